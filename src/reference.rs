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

use crate::batch::Update;
use crate::error::{Result, fail};
use crate::options::{EmptyClass, Initial, Mode, Options, Reduction};
use crate::statistics::Report;

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
    /// Upstream gradient: one number, or N with [`Reduction::None`]. Default: 1.
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
pub struct Outcome {
    /// Per sample `-sum_k q[n,k] log p[n,k]`: before the weight `v` and the reduction; 0 for an ignored sample.
    pub sample_loss: Vec<f64>,
    /// Per sample and class `Q[n] p[n,k] - q[n,k]`: before [`factor`](Self::factor); 0 for an ignored sample.
    pub sample_gradient: Vec<f64>,
    /// Per sample the factor of its gradient: `v`, the reduction's divisor and `grad_loss`; 0 for an ignored sample.
    pub factor: Vec<f64>,
    /// Per sample `Q[n] = sum_k q[n,k]`; 0 for an ignored sample.
    pub total: Vec<f64>,
    /// The loss: N numbers with [`Reduction::None`], else one.
    pub loss: Vec<f64>,
    /// The gradient: N rows of K, not yet rounded to the type of the logits.
    pub gradient: Vec<f64>,
}

/// A sample that takes part.
struct Participant {
    /// Which row of the batch it is.
    sample: usize,
    /// Its class.
    class: usize,
    /// Its second class; the first again where there is none.
    class2: usize,
    /// What the first class weighs; the second weighs `1 - lam`.
    lam: f64,
    /// `v`.
    weight: f64,
}

impl Participant {
    /// The class that the statistics take it for: the target with the larger lam, the first one at 1/2.
    fn counted_class(&self) -> usize {
        if self.lam >= 0.5 { self.class } else { self.class2 }
    }
}

/// What a batch adds to the statistics.
#[derive(Default)]
struct Contribution {
    /// Samples that are classified right: the class, and K probabilities in units of 2^-30.
    right: Vec<(usize, Vec<i64>)>,
    /// Rows that are no distribution.
    skipped: i64,
}

/// The criterion: options and state, all public.
#[derive(Clone, Debug)]
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
    /// The mode alone decides whether a batch is added: in [`Mode::Eval`] a forward pass changes no state. [`Update::TakeBack`] works in both
    /// modes. A failed call has no effect.
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

    /// Checks a batch and says who takes part in it.
    ///
    /// A sample takes part unless one of its targets is the ignore index or its weight is 0. All targets, weights and lams are checked, also
    /// those of samples that take no part.
    fn participants(&self, samples: &Samples<'_>) -> Result<Vec<Participant>> {
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
    fn outcome(&self, samples: &Samples<'_>, participants: &[Participant]) -> Result<Outcome> {
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

    /// What the samples that take part add to the statistics: `p[n,:]` where the argmax of the logits as stored is the class.
    fn contribution(&self, samples: &Samples<'_>, participants: &[Participant]) -> Contribution {
        let classes = self.options.classes;
        let mut contribution = Contribution::default();
        for participant in participants {
            let row = &samples.logits[participant.sample * classes..][..classes];
            match softmax(row) {
                None => contribution.skipped += 1,
                Some(Softmax { p, .. }) if argmax(row) == participant.counted_class() => {
                    contribution.right.push((participant.counted_class(), p.into_iter().map(units).collect()));
                }
                Some(_) => {}
            }
        }
        contribution
    }

    /// Adds a contribution, leaves it, or takes it back.
    ///
    /// A class is full at 2^32 samples and takes no more. Taking back is refused as a whole where a count would become negative.
    fn update(&mut self, update: Update, contribution: &Contribution) -> Result<()> {
        let classes = self.options.classes;
        match update {
            Update::None => {}
            Update::Add if self.mode == Mode::Eval => {}
            Update::Add => {
                self.samples_skipped += contribution.skipped;
                for (class, p) in &contribution.right {
                    if self.counts[*class] < 1 << 32 {
                        self.counts[*class] += 1;
                        self.sums[class * classes..][..classes].iter_mut().zip(p).for_each(|(sum, p)| *sum += p);
                    }
                }
            }
            Update::TakeBack => {
                for class in 0..classes {
                    let taken = contribution.right.iter().filter(|(of, _)| *of == class).count() as i64;
                    if taken > self.counts[class] {
                        let count = self.counts[class];
                        fail!(InvalidState, "{taken} samples of class {class} cannot be taken back: only {count} were accumulated");
                    }
                }
                self.samples_skipped = (self.samples_skipped - contribution.skipped).max(0);
                for (class, p) in &contribution.right {
                    self.counts[*class] -= 1;
                    self.sums[class * classes..][..classes].iter_mut().zip(p).for_each(|(sum, p)| *sum -= p);
                }
            }
        }
        Ok(())
    }

    /// Ends the epoch: computes the new `S` from `A` and `c`, and resets both.
    ///
    /// ```text
    /// frozen    max(S_old[j,:]) >= freeze_above               : row j stays as it is
    /// measured  c[j] >= min_count and sum(A[j,:]) > 0         : row = A[j,:] / sum(A[j,:])
    /// otherwise the policy for empty classes                  : the old row | 1/K | the first row | one-hot | zeros
    /// then      S[j,:] = momentum*S_old[j,:] + (1-momentum)*row     (not for a row that stays)
    /// ```
    ///
    /// In `f64`, rounded once to `f32`. If nothing at all was accumulated, all rows are unchanged, whatever the policy, and count as kept.
    pub fn next_epoch(&mut self) -> Report {
        let (classes, options) = (self.options.classes, &self.options);
        let mut report = Report {
            epoch: self.epoch + 1,
            samples_accumulated: self.counts.iter().sum(),
            samples_skipped: self.samples_skipped,
            classes_full: self.counts.iter().filter(|&&count| count >= 1 << 32).count() as i64,
            ..Report::default()
        };
        let nothing_accumulated = self.counts.iter().all(|&count| count == 0);
        for class in 0..classes {
            let row = class * classes..(class + 1) * classes;
            let old: Vec<f64> = self.soft_labels[row.clone()].iter().map(|&value| f64::from(value)).collect();
            let sums = &self.sums[row.clone()];
            let sum: i64 = sums.iter().sum();

            let new: Vec<f64> = if nothing_accumulated {
                report.rows_kept += 1;
                continue;
            } else if options.freeze_above.is_some_and(|threshold| old.iter().any(|&value| value >= threshold)) {
                report.rows_frozen += 1;
                continue;
            } else if self.counts[class] >= options.min_count && sum > 0 {
                report.rows_measured += 1;
                sums.iter().map(|&value| value as f64 / sum as f64).collect()
            } else {
                match options.empty_class {
                    EmptyClass::Keep => {
                        report.rows_kept += 1;
                        continue;
                    }
                    EmptyClass::Uniform => {
                        report.rows_uniform += 1;
                        vec![1.0 / classes as f64; classes]
                    }
                    EmptyClass::Initial => {
                        report.rows_initial += 1;
                        self.initial[row.clone()].to_vec()
                    }
                    EmptyClass::OneHot => {
                        report.rows_one_hot += 1;
                        (0..classes).map(|k| f64::from(k == class)).collect()
                    }
                    EmptyClass::Zero => {
                        report.rows_zero += 1;
                        vec![0.0; classes]
                    }
                }
            };
            for k in 0..classes {
                self.soft_labels[row.start + k] = (options.momentum * old[k] + (1.0 - options.momentum) * new[k]) as f32;
            }
        }
        self.sums.fill(0);
        self.counts.fill(0);
        self.samples_skipped = 0;
        self.epoch += 1;
        self.report = report;
        report
    }
}

/// A distribution and its logarithm.
struct Softmax {
    p: Vec<f64>,
    log_p: Vec<f64>,
}

/// The softmax of a row, or `None` where there is none: a row with NaN or +inf, or with nothing but -inf.
///
/// -inf in part of a row is a masked class: its probability is 0.
fn softmax(row: &[f64]) -> Option<Softmax> {
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

/// The first index of the largest value; -0 equals +0.
fn argmax(row: &[f64]) -> usize {
    let mut best = 0;
    for (k, &value) in row.iter().enumerate() {
        if value > row[best] {
            best = k;
        }
    }
    best
}

/// A probability in units of 2^-30, rounded once, half to even.
fn units(p: f64) -> i64 {
    (p * f64::from(1 << 30)).round_ties_even() as i64
}

#[cfg(test)]
mod tests;
