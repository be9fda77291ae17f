//! A batch, what comes of it, and who takes part.

use super::Reference;
use crate::batch::Update;
use crate::error::{Result, fail};

/// A batch: N rows of K numbers, already widened to `f64` from the type that they are stored in.
///
/// Logits of shape (N, K, inner) are N * inner rows: one for each `(n, i)`, in that order.
#[derive(Clone, Copy, Debug)]
pub struct Samples<'a> {
    /// `z`: N rows of K logits (or probabilities, for [`Reference::accumulate`]).
    pub logits: &'a [f64],
    /// N targets as stored: `y + target_offset`, or the ignore index.
    pub targets: &'a [i64],
    /// Subtracted from a target to obtain the class. The ignore index is compared with the target as given.
    pub target_offset: i64,
    /// `v`: N weights. Default: 1 for every sample.
    pub sample_weights: Option<&'a [f64]>,
    /// N second targets `y2`, as stored, and `lam`: N numbers or one for all.
    pub second_targets: Option<(&'a [i64], &'a [f64])>,
    /// Upstream gradient: one number, or N with [`Reduction::None`](crate::Reduction::None). Default: 1.
    pub grad_loss: Option<&'a [f64]>,
    /// What [`Reference::forward`] does to the statistics.
    pub update: Update,
}

impl<'a> Samples<'a> {
    /// Creates a batch from logits and targets, with defaults for everything else.
    pub fn new(logits: &'a [f64], targets: &'a [i64]) -> Self {
        Self { logits, targets, target_offset: 0, sample_weights: None, second_targets: None, grad_loss: None, update: Update::Add }
    }
}

/// The result of a pass over a batch.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// Per sample `-sum_k q[n,k] log p[n,k]`: before the weight `v` and the reduction; 0 for an ignored sample.
    pub sample_loss: Vec<f64>,
    /// Per sample and class `Q[n] p[n,k] - q[n,k]`: before [`factor`](Self::factor); 0 for an ignored sample.
    pub sample_gradient: Vec<f64>,
    /// Per sample the factor of its gradient: `v`, the reduction's divisor and `grad_loss`; 0 for an ignored sample.
    pub factor: Vec<f64>,
    /// Per sample `Q[n] = sum_k q[n,k]`; 0 for an ignored sample.
    pub total: Vec<f64>,
    /// The loss: N numbers with [`Reduction::None`](crate::Reduction::None), else one.
    pub loss: Vec<f64>,
    /// The gradient: N rows of K, not yet rounded to the type of the logits.
    pub gradient: Vec<f64>,
}

/// A sample that takes part.
pub(super) struct Participant {
    /// Which row of the batch it is.
    pub sample: usize,
    /// Its class.
    pub class: usize,
    /// Its second class; the first again where there is none.
    pub class2: usize,
    /// What the first class weighs; the second weighs `1 - lam`.
    pub lam: f64,
    /// `v`.
    pub weight: f64,
}

impl Participant {
    /// The class that the statistics take it for: the target with the larger lam, the first one at 1/2.
    pub fn counted_class(&self) -> usize {
        if self.lam >= 0.5 { self.class } else { self.class2 }
    }
}

impl Reference {
    /// Checks a batch and says who takes part in it.
    ///
    /// A sample takes part unless one of its targets is the ignore index or its weight is 0. All targets, weights and lams are checked, also
    /// those of samples that take no part.
    pub(super) fn participants(&self, samples: &Samples<'_>) -> Result<Vec<Participant>> {
        let n = samples.targets.len();
        assert_eq!(samples.logits.len(), n * self.options.classes, "N rows of K logits");
        let mut participants = Vec::new();
        for sample in 0..n {
            let class = self.class("target", sample, samples.targets[sample], samples.target_offset)?;
            let (mut class2, mut lam) = (class, 1.0);
            if let Some((targets2, lams)) = samples.second_targets {
                class2 = self.class("target2", sample, targets2[sample], samples.target_offset)?;
                lam = lams[if lams.len() == 1 { 0 } else { sample }];
                if !(0.0..=1.0).contains(&lam) {
                    fail!(InvalidArgument, "lam[{sample}] = {lam} is outside [0, 1]");
                }
            }
            let weight = samples.sample_weights.map_or(1.0, |weights| weights[sample]);
            if !(weight.is_finite() && weight >= 0.0) {
                fail!(InvalidArgument, "sample_weights[{sample}] = {weight} is not a finite number >= 0");
            }
            if let (Some(class), Some(class2)) = (class, class2)
                && weight != 0.0
            {
                participants.push(Participant { sample, class, class2, lam, weight });
            }
        }
        Ok(participants)
    }

    /// The class that a stored target means; `None` for the ignore index, which is compared before the offset is subtracted.
    fn class(&self, name: &str, sample: usize, target: i64, offset: i64) -> Result<Option<usize>> {
        let (classes, ignore_index) = (self.options.classes, self.options.ignore_index);
        if target == ignore_index {
            return Ok(None);
        }
        let class = i128::from(target) - i128::from(offset);
        if !(0..classes as i128).contains(&class) {
            let (low, high) = (i128::from(offset), i128::from(offset) + classes as i128);
            fail!(TargetOutOfRange, "{name}[{sample}] = {target} is outside [{low}, {high}) and is not ignore_index ({ignore_index})");
        }
        Ok(Some(class as usize))
    }
}
