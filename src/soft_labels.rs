//! S: the soft labels of the first epoch, and how an epoch's statistics become the next one's.

use crate::options::{EmptyClass, Initial, Options};
use crate::state::{Matrix, State};
use crate::statistics::{Counter, FULL_CLASS, Report};

/// What the soft labels of the first epoch are for the class itself and for the others; 0 for a matrix.
pub(crate) fn constants(initial: &Initial, classes: usize) -> (f64, f64) {
    let count = classes as f64;
    match initial {
        Initial::Smoothing(eps) => (1.0 - eps, eps / (count - 1.0)),
        Initial::Uniform => (1.0 / count, 1.0 / count),
        Initial::Zero | Initial::Matrix(_) => (0.0, 0.0),
        Initial::OneHot => (1.0, 0.0),
    }
}

/// The soft label that `class` begins with.
fn initial_row(initial: &Initial, classes: usize, class: usize) -> impl Iterator<Item = f64> {
    let (own, other) = constants(initial, classes);
    let matrix = match initial {
        Initial::Matrix(matrix) => Some(&matrix[class * classes..][..classes]),
        _ => None,
    };
    (0..classes).map(move |k| match matrix {
        Some(row) => f64::from(row[k]),
        None if k == class => own,
        None => other,
    })
}

/// Sets S to the soft labels of the first epoch.
pub(crate) fn fill_initial(initial: &Initial, soft_labels: &mut Matrix<f32>) {
    let classes = soft_labels.columns();
    for class in 0..classes {
        for (to, value) in soft_labels.row_mut(class).iter_mut().zip(initial_row(initial, classes, class)) {
            *to = value as f32;
        }
    }
}

/// What the running epoch has counted so far; its number is that of the epoch it will be.
pub(crate) fn running_report(counts: &[i64], counters: &[i64], epoch: i64) -> Report {
    Report {
        epoch: epoch.saturating_add(1),
        samples_accumulated: counts.iter().fold(0i64, |sum, &count| sum.saturating_add(count)),
        samples_skipped: counters[Counter::SkippedNonFinite as usize],
        classes_full: counts.iter().filter(|&&count| count >= FULL_CLASS).count() as i64,
        targets_out_of_range: counters[Counter::TargetsOutOfRange as usize],
        ..Report::default()
    }
}

/// Makes the new S from A and c, clears both and the counters, and reports. In f64, rounded once to f32, plain products and sums.
pub(crate) fn next_epoch(options: &Options, state: &mut State, epoch: i64) -> Report {
    let mut report = running_report(state.counts.row(0), state.counters.row(0), epoch);
    if state.counts.row(0).iter().all(|&count| count == 0) {
        // Nothing to learn from: S stays as it is, whatever the policy.
        report.rows_kept = options.classes as i64;
        state.sums.fill(0);
    } else {
        for class in 0..options.classes {
            end_class(options, state, class, &mut report);
        }
    }
    state.counts.fill(0);
    state.counters.fill(0);
    report
}

/// The new soft label of one class, whose sums it clears while they are in the cache.
fn end_class(options: &Options, state: &mut State, class: usize, report: &mut Report) {
    let row = state.soft_labels.row_mut(class);
    let sums = state.sums.row_mut(class);
    let frozen = options.freeze_above.is_some_and(|threshold| row.iter().any(|&s| f64::from(s) >= threshold));
    let total: i64 = sums.iter().fold(0, |total, &sum| total.wrapping_add(sum));
    if frozen {
        report.rows_frozen += 1;
    } else if state.counts.row(0)[class] >= options.min_count && total > 0 {
        report.rows_measured += 1;
        return measure(row, sums, total, options.momentum);
    } else {
        end_empty_class(options, row, class, report);
    }
    sums.fill(0);
}

/// `momentum * old + (1 - momentum) * sum / total` for each class; the sums become 0.
fn measure(row: &mut [f32], sums: &mut [i64], total: i64, momentum: f64) {
    let total = to_f64(total);
    let sums = sums.iter_mut().map(std::mem::take);
    if momentum == 0.0 {
        // The same numbers, but for what an old one costs to be read.
        row.iter_mut().zip(sums).for_each(|(old, sum)| *old = (to_f64(sum) / total) as f32);
    } else {
        row.iter_mut().zip(sums).for_each(|(old, sum)| *old = mix(momentum, *old, to_f64(sum) / total));
    }
}

/// A soft label as the policy for classes that were not measured has it.
fn end_empty_class(options: &Options, row: &mut [f32], class: usize, report: &mut Report) {
    let (rows, policy) = match options.empty_class {
        EmptyClass::Keep => {
            report.rows_kept += 1;
            return;
        }
        EmptyClass::Uniform => (&mut report.rows_uniform, &Initial::Uniform),
        EmptyClass::Zero => (&mut report.rows_zero, &Initial::Zero),
        EmptyClass::OneHot => (&mut report.rows_one_hot, &Initial::OneHot),
        EmptyClass::Initial => (&mut report.rows_initial, &options.initial),
    };
    *rows += 1;
    for (old, new) in row.iter_mut().zip(initial_row(policy, options.classes, class)) {
        *old = mix(options.momentum, *old, new);
    }
}

fn mix(momentum: f64, old: f32, new: f64) -> f32 {
    (momentum * f64::from(old) + (1.0 - momentum) * new) as f32
}

/// `number as f64`, of which processors before AVX-512 have no vector form: both parts are exact, so that their sum is rounded as the number is.
fn to_f64(number: i64) -> f64 {
    f64::from((number >> 32) as i32) * 4_294_967_296.0 + f64::from(number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_converted_as_the_language_does() {
        let steps = (0..63).flat_map(|bit| [-2, -1, 0, 1, 2].map(|near| (1i64 << bit) + near));
        let mixed = (0..100_000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) as i64).flat_map(|n| [n, n >> 9, n >> 20, n >> 40]);
        for number in steps.chain(mixed).chain([i64::MAX, i64::MIN]) {
            assert_eq!(to_f64(number).to_bits(), (number as f64).to_bits(), "{number}");
            assert_eq!(to_f64(number.wrapping_neg()).to_bits(), (number.wrapping_neg() as f64).to_bits(), "-{number}");
        }
    }
}
