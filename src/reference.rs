//! The executable specification of Online Label Smoothing as implemented here, in plain `f64`.
//!
//! Everything else in this library is an optimised form of this module, and is tested against it. The code is deliberately simple, and shares
//! nothing with the optimised code except the names of the options. It is public so that bindings and ports can be compared with it as well; it is
//! slow and not intended for training.
//!
//! The method is that of Zhang et al., "Delving Deep into Label Smoothing", IEEE Transactions on Image Processing 30, 2021. In its terms:
//! `K` classes and `N` samples; logits `z[n,k]`; the target `y[n]`; `p[n,:] = softmax(z[n,:])`; soft labels `S[K,K]` with **one row per class**;
//! `A[K,K]`, the probabilities summed over the current epoch, and `c[K]`, their counts.
//!
//! ```
//! use ols::reference::{Reference, Samples};
//! let mut criterion = Reference::new(&ols::Options::new(2))?;
//! let outcome = criterion.forward(&Samples::new(&[3f64.ln(), 0.0], &[0]))?; // p = 3/4, 1/4
//! assert!((outcome.gradient[0] - (0.75 - 0.95)).abs() < 1e-7); // the soft label 0.9 is an f32
//! assert_eq!(criterion.counts, [1, 0]);
//! # Ok::<(), ols::Error>(())
//! ```

mod loss;
mod samples;
mod statistics;

pub use samples::{Outcome, Samples};

use self::statistics::{Contribution, argmax, units};
use crate::error::{Result, fail};
use crate::options::{Initial, Mode, Options};
use crate::statistics::Report;

/// The criterion: options and state, all public.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reference {
    /// The options, with the current `alpha`.
    pub options: Options,
    /// The mode.
    pub mode: Mode,
    /// Number of completed epochs.
    pub epoch: i64,
    /// `S`: K rows of K.
    pub soft_labels: Vec<f32>,
    /// The soft labels of the first epoch, before they are rounded to `f32`: what the policy `initial` brings back is rounded once, too.
    pub initial: Vec<f64>,
    /// `A`: K rows of K, in units of 2^-30.
    pub sums: Vec<i64>,
    /// `c`.
    pub counts: Vec<i64>,
    /// Number of rows in the current epoch that were not a distribution.
    pub samples_skipped: i64,
    /// The report of the last [`next_epoch`](Self::next_epoch).
    pub report: Report,
}

impl Reference {
    /// Creates a criterion in its first epoch.
    ///
    /// The first soft labels are `smoothing`: `1 - eps` on the diagonal and `eps / (K - 1)` off it; `uniform`: `1 / K`; `zero`; `one_hot`;
    /// or a matrix. They are computed in `f64` and rounded once to `f32`.
    ///
    /// # Errors
    /// As [`Options::validate`].
    pub fn new(options: &Options) -> Result<Self> {
        options.validate()?;
        let classes = options.classes;
        let mut initial = vec![0.0; classes * classes];
        for class in 0..classes {
            for k in 0..classes {
                initial[class * classes + k] = match &options.initial {
                    Initial::Smoothing(eps) if k == class => 1.0 - eps,
                    Initial::Smoothing(eps) => eps / (classes as f64 - 1.0),
                    Initial::Uniform => 1.0 / classes as f64,
                    Initial::Zero => 0.0,
                    Initial::OneHot => f64::from(k == class),
                    Initial::Matrix(matrix) => f64::from(matrix[class * classes + k]),
                };
            }
        }
        Ok(Self {
            options: options.clone(),
            mode: options.mode,
            epoch: 0,
            soft_labels: initial.iter().map(|&value| value as f32).collect(),
            initial,
            sums: vec![0; classes * classes],
            counts: vec![0; classes],
            samples_skipped: 0,
            report: Report::default(),
        })
    }

    /// `w[k]`.
    fn class_weight(&self, class: usize) -> f64 {
        self.options.class_weights.as_ref().map_or(1.0, |weights| weights[class])
    }

    /// `S[class, :]`.
    pub fn soft_label(&self, class: usize) -> &[f32] {
        &self.soft_labels[class * self.options.classes..][..self.options.classes]
    }

    /// Computes loss and gradient, and updates the statistics according to the mode and `samples.update`.
    ///
    /// The mode alone decides whether a batch is added: in [`Mode::Eval`] a forward pass changes no state. [`Update::TakeBack`](crate::Update::TakeBack)
    /// works in both modes. A failed call has no effect.
    ///
    /// # Errors
    /// A target, weight or number that violates its rule; more to take back than was added.
    pub fn forward(&mut self, samples: &Samples<'_>) -> Result<Outcome> {
        let participants = self.participants(samples)?;
        let outcome = self.outcome(samples, &participants)?;
        let contribution = self.contribution(samples, &participants);
        self.update(samples.update, &contribution)?;
        Ok(outcome)
    }

    /// Computes loss and gradient only: no state is changed.
    ///
    /// # Errors
    /// A target, weight or number that violates its rule.
    pub fn backward(&self, samples: &Samples<'_>) -> Result<Outcome> {
        self.outcome(samples, &self.participants(samples)?)
    }

    /// Updates the statistics from given probabilities instead of the softmax of logits.
    ///
    /// A sample is added if its largest probability is that of its class. A row with an entry that is not finite is skipped and counted as
    /// such; in any other row of a sample that is not ignored an entry outside [0, 1] is an error. Mode and `samples.update` have the same effect
    /// as in [`forward`](Self::forward).
    ///
    /// # Errors
    /// As [`forward`](Self::forward); an entry outside [0, 1].
    pub fn accumulate(&mut self, samples: &Samples<'_>) -> Result<()> {
        let classes = self.options.classes;
        let mut contribution = Contribution::default();
        for participant in self.participants(samples)? {
            let sample = participant.sample;
            let row = &samples.logits[sample * classes..][..classes];
            if row.iter().any(|value| !value.is_finite()) {
                contribution.skipped += 1;
                continue;
            }
            if let Some(k) = row.iter().position(|value| !(0.0..=1.0).contains(value)) {
                fail!(InvalidArgument, "logits[{sample}, {k}] = {} is not a probability: it is outside [0, 1]", row[k]);
            }
            if argmax(row) == participant.counted_class() {
                contribution.right.push((participant.counted_class(), row.iter().map(|&p| units(p)).collect()));
            }
        }
        self.update(samples.update, &contribution)
    }
}

#[cfg(test)]
mod tests;
