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
    } else {
        for class in 0..options.classes {
            end_class(options, state, class, &mut report);
        }
    }
    state.sums.fill(0);
    state.counts.fill(0);
    state.counters.fill(0);
    report
}

/// The new soft label of one class.
fn end_class(options: &Options, state: &mut State, class: usize, report: &mut Report) {
    let row = state.soft_labels.row_mut(class);
    let frozen = options.freeze_above.is_some_and(|threshold| row.iter().any(|&s| f64::from(s) >= threshold));
    if frozen {
        report.rows_frozen += 1;
        return;
    }
    let momentum = options.momentum;
    let mix = |old: &mut f32, new: f64| *old = (momentum * f64::from(*old) + (1.0 - momentum) * new) as f32;
    let sums = state.sums.row(class);
    let total: i64 = sums.iter().fold(0, |total, &sum| total.wrapping_add(sum));
    if state.counts.row(0)[class] >= options.min_count && total > 0 {
        report.rows_measured += 1;
        for (old, &sum) in row.iter_mut().zip(sums) {
            mix(old, sum as f64 / total as f64);
        }
        return;
    }
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
        mix(old, new);
    }
}
