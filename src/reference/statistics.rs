//! `A` and `c`, and the new `S` that comes of them.

use super::loss::{Softmax, softmax};
use super::samples::Participant;
use super::{Reference, Samples};
use crate::batch::Update;
use crate::error::{Result, fail};
use crate::options::{EmptyClass, Mode};
use crate::statistics::Report;

/// What a batch adds to the statistics.
#[derive(Default)]
pub(super) struct Contribution {
    /// Samples that are classified right: the class, and K probabilities in units of 2^-30.
    pub right: Vec<(usize, Vec<i64>)>,
    /// Rows that are no distribution.
    pub skipped: i64,
}

impl Reference {
    /// What the samples that take part add to the statistics: `p[n,:]` where the argmax of the logits as stored is the class.
    pub(super) fn contribution(&self, samples: &Samples<'_>, participants: &[Participant]) -> Contribution {
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
    pub(super) fn update(&mut self, update: Update, contribution: &Contribution) -> Result<()> {
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

/// The first index of the largest value; -0 equals +0.
pub(super) fn argmax(row: &[f64]) -> usize {
    let mut best = 0;
    for (k, &value) in row.iter().enumerate() {
        if value > row[best] {
            best = k;
        }
    }
    best
}

/// A probability in units of 2^-30, rounded once, half to even.
pub(super) fn units(p: f64) -> i64 {
    (p * f64::from(1 << 30)).round_ties_even() as i64
}
