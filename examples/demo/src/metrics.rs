//! Metrics of predictions.

use serde::{Deserialize, Serialize};

/// The number of calibration bins of equal width, as in Guo et al. 2017.
pub const BINS: usize = 15;

/// Probabilities (N, classes), one row per image.
#[derive(Clone, Debug)]
pub struct Predictions {
    pub probabilities: Vec<f32>,
    pub classes: usize,
}

impl Predictions {
    /// Computes the softmax of logits.
    pub fn from_logits(mut logits: Vec<f32>, classes: usize) -> Self {
        for row in logits.chunks_exact_mut(classes) {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter_mut().for_each(|value| *value = (*value - largest).exp());
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|value| *value /= sum);
        }
        Self { probabilities: logits, classes }
    }

    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.probabilities.chunks_exact(self.classes)
    }

    /// The most likely class and its probability, the confidence.
    pub fn top(&self) -> impl ExactSizeIterator<Item = (i64, f32)> {
        self.rows().map(|row| {
            let best = (1..row.len()).fold(0, |best, class| if row[class] > row[best] { class } else { best });
            (best as i64, row[best])
        })
    }

    /// The fraction of predictions that equal the label.
    pub fn accuracy(&self, labels: &[i64]) -> f64 {
        let right = self.top().zip(labels).filter(|((class, _), label)| class == *label).count();
        right as f64 / labels.len() as f64
    }

    /// The mean negative log-likelihood of the labels, in nats.
    pub fn nll(&self, labels: &[i64]) -> f64 {
        // A probability that has underflowed is replaced by the smallest normal number, so that a single image cannot
        // make the mean infinite.
        let loss = |(row, label): (&[f32], &i64)| -f64::from(row[*label as usize].max(f32::MIN_POSITIVE)).ln();
        self.rows().zip(labels).map(loss).sum::<f64>() / labels.len() as f64
    }

    pub fn calibration(&self, labels: &[i64]) -> Calibration {
        let mut calibration = Calibration::default();
        for ((class, confidence), label) in self.top().zip(labels) {
            let bin = &mut calibration.bins[((confidence * BINS as f32) as usize).min(BINS - 1)];
            bin.count += 1;
            bin.confidence += f64::from(confidence);
            bin.right += usize::from(class == *label);
        }
        calibration
    }
}

/// Predictions grouped into bins by their confidence.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Calibration {
    pub bins: [Bin; BINS],
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Bin {
    pub count: usize,
    /// The sum over the predictions of the bin.
    pub confidence: f64,
    pub right: usize,
}

impl Calibration {
    /// The expected calibration error: the mean gap between confidence and accuracy, weighted by the number of
    /// predictions in each bin.
    pub fn error(&self) -> f64 {
        let count: usize = self.bins.iter().map(|bin| bin.count).sum();
        self.bins.iter().map(|bin| (bin.confidence - bin.right as f64).abs()).sum::<f64>() / count as f64
    }

    pub fn add(&mut self, other: &Self) {
        for (bin, other) in self.bins.iter_mut().zip(&other.bins) {
            bin.count += other.count;
            bin.confidence += other.confidence;
            bin.right += other.right;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-6, "{a} is not {b}");
    }

    /// Four predictions of two classes, with confidences 0.9, 0.9, 0.6 and 0.7: correct, wrong, correct, correct.
    fn example() -> (Predictions, [i64; 4]) {
        (Predictions { probabilities: vec![0.9, 0.1, 0.1, 0.9, 0.6, 0.4, 0.3, 0.7], classes: 2 }, [0, 0, 0, 1])
    }

    #[test]
    fn expected_calibration_error_by_hand() {
        let (predictions, labels) = example();
        // Bins of width 1/15: in {0.9, 0.9} half are correct, in {0.6} and {0.7} all.
        // (2 * |0.9 - 0.5| + |0.6 - 1| + |0.7 - 1|) / 4 = (0.8 + 0.4 + 0.3) / 4
        near(predictions.calibration(&labels).error(), 0.375);
    }

    #[test]
    fn full_confidence_falls_into_the_last_bin() {
        let sure = Predictions { probabilities: vec![1.0, 0.0], classes: 2 };
        assert_eq!(sure.calibration(&[0]).bins[BINS - 1].count, 1);
        near(sure.calibration(&[0]).error(), 0.0);
        near(sure.calibration(&[1]).error(), 1.0);
    }

    #[test]
    fn accuracy_and_likelihood_by_hand() {
        let (predictions, labels) = example();
        near(predictions.accuracy(&labels), 0.75);
        near(predictions.nll(&labels), -(0.9f64.ln() + 0.1f64.ln() + 0.6f64.ln() + 0.7f64.ln()) / 4.0);
        let never = Predictions { probabilities: vec![0.0, 1.0], classes: 2 };
        assert!(never.nll(&[0]).is_finite());
    }

    #[test]
    fn softmax_of_large_logits() {
        let predictions = Predictions::from_logits(vec![1000.0, 1000.0, -1000.0, 0.0], 2);
        assert_eq!(predictions.probabilities, [0.5, 0.5, 0.0, 1.0]);
    }
}
