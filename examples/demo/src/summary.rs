//! Statistics over the seeds.

use serde::Serialize;

use crate::checkpoint::Finished;
use crate::data::{Dataset, Split};
use crate::loss::{Labels, Loss};
use crate::metrics::Calibration;
use crate::settings::Settings;
use crate::training::Epoch;

/// The mean over seeds and the sample standard deviation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub mean: f64,
    /// 0 for a single seed.
    pub deviation: f64,
}

impl Spread {
    pub fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self { mean, deviation: if values.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 } }
    }
}

/// The runs of one loss with the same kind of labels.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    pub labels: Labels,
    pub loss: Loss,
    /// In the last epoch.
    pub test_accuracy: Spread,
    /// Negative log-likelihood in nats.
    pub test_nll: Spread,
    /// Expected calibration error.
    pub test_ece: Spread,
    /// In the epoch with the best validation accuracy, whose labels are as noisy as the training labels.
    pub early_stopped_test_accuracy: Spread,
    /// With respect to the training labels as given.
    pub train_accuracy: Spread,
    /// Fraction of the wrong training labels that were memorised.
    pub wrong_learned: Option<Spread>,
    /// Mean over the seeds, one row per class.
    pub soft_labels: Vec<Vec<f64>>,
    /// Of the test predictions of all seeds together.
    pub calibration: Calibration,
    #[serde(skip)]
    pub histories: Vec<Vec<Epoch>>,
}

impl Group {
    /// Returns a quantity of each epoch, over the seeds.
    pub fn curve(&self, number: impl Fn(&Epoch) -> f64) -> Vec<Spread> {
        let epochs = self.histories.first().map_or(0, Vec::len);
        let at = |epoch| self.histories.iter().map(|history| number(&history[epoch])).collect::<Vec<_>>();
        (0..epochs).map(|epoch| Spread::of(&at(epoch))).collect()
    }
}

/// Groups the runs by labels, clean ones first, and then by loss.
pub fn summarise(data: &Dataset, settings: &Settings, finished: &[Finished]) -> Vec<Group> {
    let mut groups = Vec::new();
    for labels in Labels::ALL {
        for loss in Loss::ALL {
            let runs: Vec<&Finished> = finished.iter().filter(|f| f.result.run.labels == labels && f.result.run.loss == loss).collect();
            groups.push(group(data, settings, labels, loss, &runs));
        }
    }
    groups
}

fn group(data: &Dataset, settings: &Settings, labels: Labels, loss: Loss, runs: &[&Finished]) -> Group {
    let histories: Vec<Vec<Epoch>> = runs.iter().map(|run| run.result.history.clone()).collect();
    let last =
        |number: &dyn Fn(&Epoch) -> f64| Spread::of(&histories.iter().filter_map(|history| history.last()).map(number).collect::<Vec<_>>());
    let early: Vec<f64> = histories.iter().filter_map(|history| early_stop(history)).map(|epoch| epoch.test_accuracy).collect();
    let wrong: Vec<f64> = histories.iter().filter_map(|history| history.last()?.wrong_learned).collect();
    let classes = data.classes();
    let mut soft_labels = vec![vec![0.0; classes]; classes];
    let mut calibration = Calibration::default();
    for run in runs {
        for (mean, row) in soft_labels.iter_mut().zip(&run.result.soft_labels) {
            for (mean, value) in mean.iter_mut().zip(row) {
                *mean += f64::from(*value) / runs.len() as f64;
            }
        }
        let test = Split::draw(data, run.result.run.seed, settings.train).test.classes();
        calibration.add(&run.predictions.calibration(&test));
    }
    Group {
        labels,
        loss,
        test_accuracy: last(&|epoch| epoch.test_accuracy),
        test_nll: last(&|epoch| epoch.test_nll),
        test_ece: last(&|epoch| epoch.test_ece),
        early_stopped_test_accuracy: Spread::of(&early),
        train_accuracy: last(&|epoch| epoch.train_accuracy),
        wrong_learned: (!wrong.is_empty()).then(|| Spread::of(&wrong)),
        soft_labels,
        calibration,
        histories,
    }
}

/// Returns the first epoch with the best validation accuracy.
fn early_stop(history: &[Epoch]) -> Option<&Epoch> {
    history.iter().rev().max_by(|a, b| a.validation_accuracy.total_cmp(&b.validation_accuracy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_by_hand() {
        // Deviations -2, 0, 2: variance (4 + 0 + 4) / 2.
        assert_eq!(Spread::of(&[1.0, 3.0, 5.0]), Spread { mean: 3.0, deviation: 2.0 });
        assert_eq!(Spread::of(&[7.0]), Spread { mean: 7.0, deviation: 0.0 });
    }

    #[test]
    fn early_stopping_takes_the_first_best_epoch() {
        let epoch = |validation_accuracy, test_accuracy| Epoch {
            loss: 0.0,
            train_accuracy: 0.0,
            wrong_learned: None,
            validation_accuracy,
            test_accuracy,
            test_nll: 0.0,
            test_ece: 0.0,
        };
        let history = [epoch(0.5, 0.1), epoch(0.8, 0.2), epoch(0.8, 0.3), epoch(0.7, 0.4)];
        assert_eq!(early_stop(&history).unwrap().test_accuracy, 0.2);
    }
}
