//! Loss and gradient.

use super::samples::Participant;
use super::{Outcome, Reference, Samples};
use crate::error::{Result, fail};
use crate::options::Reduction;

impl Reference {
    /// Loss and gradient:
    ///
    /// ```text
    /// q(y)[k]   = alpha*w[y]*[k==y] + (1-alpha)*w[k]*S[y,k]
    /// q[n,k]    = lam*q(y)[k] + (1-lam)*q(y2)[k]            (lam = 1 without a second target)
    /// loss[n]   = -sum_k q[n,k] * log p[n,k]                (a term with q == 0 counts 0, even where z is -inf)
    /// grad[n,k] = Q[n]*p[n,k] - q[n,k]    with    Q[n] = sum_k q[n,k]
    /// ```
    ///
    /// `alpha` weighs the hard term. Reduction `none` gives `v*loss`, `sum` their sum, and `mean` divides the sum by
    /// `sum v*(lam*w[y] + (1-lam)*w[y2])`, all over the samples that take part. Where that divisor is 0, loss and gradient are 0.
    pub(super) fn outcome(&self, samples: &Samples<'_>, participants: &[Participant]) -> Result<Outcome> {
        let (n, classes, alpha) = (samples.targets.len(), self.options.classes, self.options.alpha);
        let reduction = self.options.reduction;
        let one = [1.0];
        let grad_loss = samples.grad_loss.unwrap_or(&one);
        if grad_loss.len() != 1 && !(reduction == Reduction::None && grad_loss.len() == n) {
            fail!(InvalidShape, "grad_loss has {} values, but needs one, or one per sample with reduction none", grad_loss.len());
        }
        let mut outcome = Outcome {
            sample_loss: vec![0.0; n],
            sample_gradient: vec![0.0; n * classes],
            factor: vec![0.0; n],
            total: vec![0.0; n],
            loss: vec![0.0; if reduction == Reduction::None { n } else { 1 }],
            gradient: vec![0.0; n * classes],
        };

        let divisor = match reduction {
            Reduction::Mean => participants
                .iter()
                .map(|it| it.weight * (it.lam * self.class_weight(it.class) + (1.0 - it.lam) * self.class_weight(it.class2)))
                .sum(),
            Reduction::Sum | Reduction::None => 1.0,
        };

        let one_target = |class: usize, k: usize| {
            let hard = if k == class { alpha * self.class_weight(class) } else { 0.0 };
            hard + (1.0 - alpha) * self.class_weight(k) * f64::from(self.soft_label(class)[k])
        };
        for it in participants {
            let row = it.sample * classes..(it.sample + 1) * classes;
            let q: Vec<f64> = (0..classes).map(|k| it.lam * one_target(it.class, k) + (1.0 - it.lam) * one_target(it.class2, k)).collect();
            let total = sum(q.iter().copied());
            outcome.total[it.sample] = total;
            match softmax(&samples.logits[row.clone()]) {
                Some(Softmax { p, log_p }) => {
                    outcome.sample_loss[it.sample] = -sum((0..classes).filter(|&k| q[k] != 0.0).map(|k| q[k] * log_p[k]));
                    for k in 0..classes {
                        outcome.sample_gradient[row.start + k] = total * p[k] - q[k];
                    }
                }
                None => {
                    outcome.sample_loss[it.sample] = f64::NAN;
                    outcome.sample_gradient[row.clone()].fill(f64::NAN);
                }
            }
            if divisor == 0.0 {
                continue;
            }
            let factor = it.weight / divisor * grad_loss[if grad_loss.len() == 1 { 0 } else { it.sample }];
            outcome.factor[it.sample] = factor;
            outcome.loss[if reduction == Reduction::None { it.sample } else { 0 }] += it.weight * outcome.sample_loss[it.sample] / divisor;
            for index in row {
                outcome.gradient[index] = factor * outcome.sample_gradient[index];
            }
        }
        Ok(outcome)
    }
}

/// A distribution and its logarithm.
pub(super) struct Softmax {
    pub p: Vec<f64>,
    pub log_p: Vec<f64>,
}

/// The softmax of a row, or `None` where there is none: a row with NaN or +inf, or with nothing but -inf.
///
/// -inf in part of a row is a masked class: its probability is 0.
pub(super) fn softmax(row: &[f64]) -> Option<Softmax> {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if row.iter().any(|z| z.is_nan()) || largest.is_infinite() {
        return None;
    }
    let sum = sum(row.iter().map(|z| (z - largest).exp()));
    Some(Softmax {
        p: row.iter().map(|z| (z - largest).exp() / sum).collect(),
        log_p: row.iter().map(|z| (z - largest) - sum.ln()).collect(),
    })
}

/// A sum with the rounding errors of its additions added at the end (Neumaier): thousands of equal terms beside a large one would all lose the same
/// bits.
fn sum(terms: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut error) = (0f64, 0f64);
    for term in terms {
        let next = sum + term;
        error += if sum.abs() >= term.abs() { (sum - next) + term } else { (term - next) + sum };
        sum = next;
    }
    // An infinite term has no such errors.
    if sum.is_finite() { sum + error } else { sum }
}
