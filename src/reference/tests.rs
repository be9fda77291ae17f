//! The executable specification against numbers worked out by hand, and against what follows from its definition.

use super::*;
use crate::batch::Update;
use crate::error::ErrorKind;
use crate::options::{EmptyClass, Reduction};

/// p = 3/4, 1/4 and its mirror image.
fn quarter() -> [f64; 2] {
    [3f64.ln(), 0.0]
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-14 * b.abs().max(1.0)
}

fn assert_close(a: &[f64], b: &[f64]) {
    assert!(a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| close(a, b)), "{a:?} differs from {b:?}");
}

const UNIT: i64 = 1 << 30;

#[test]
fn two_classes_by_hand() {
    // S = [[0.9, 0.1], [0.1, 0.9]], alpha = 1/2, y = 0:
    // q = (0.5 + 0.5*0.9, 0.5*0.1) = (0.95, 0.05); Q = 1; p = (0.75, 0.25).
    // loss = -0.95 ln 0.75 - 0.05 ln 0.25; grad = (0.75 - 0.95, 0.25 - 0.05) = (-0.2, 0.2).
    let mut criterion = Reference::new(&Options::new(2).reduction(Reduction::Sum)).unwrap();
    let outcome = criterion.forward(&Samples::new(&quarter(), &[0])).unwrap();
    // 0.9 and 0.1 are f32 in S, so the numbers hold to 2^-24 or so.
    assert!((outcome.loss[0] - (-0.95 * 0.75f64.ln() - 0.05 * 0.25f64.ln())).abs() < 1e-7);
    assert!((outcome.gradient[0] + 0.2).abs() < 1e-7 && (outcome.gradient[1] - 0.2).abs() < 1e-7);
    // Class 0 is the argmax, so p was added, in units of 2^-30.
    assert_eq!((&criterion.counts[..], &criterion.sums[..]), (&[1, 0][..], &[3 * UNIT / 4, UNIT / 4, 0, 0][..]));
    // Class 1 was not measured and keeps its row.
    let report = criterion.next_epoch();
    assert_eq!(criterion.soft_labels, [0.75, 0.25, 0.1, 0.9]);
    assert_eq!((report.epoch, report.rows_measured, report.rows_kept, report.samples_accumulated), (1, 1, 1, 1));
    assert_eq!((&criterion.counts[..], &criterion.sums[..]), (&[0, 0][..], &[0; 4][..]));
}

#[test]
fn class_weights_by_hand() {
    // S = rows of 1/2, alpha = 1/2, w = (2, 4), y = 1:
    // q = ((1/2)*2*(1/2), (1/2)*4 + (1/2)*4*(1/2)) = (0.5, 3); Q = 3.5; p = (0.75, 0.25).
    // grad = (3.5*0.75 - 0.5, 3.5*0.25 - 3) = (2.125, -2.125); loss = -0.5 ln 0.75 - 3 ln 0.25; the mean divides by w[1] = 4.
    let options = Options::new(2).initial(Initial::Uniform).class_weights(vec![2.0, 4.0]);
    let mut criterion = Reference::new(&options).unwrap();
    let outcome = criterion.forward(&Samples::new(&quarter(), &[1])).unwrap();
    assert_close(&outcome.sample_gradient, &[2.125, -2.125]);
    assert_close(&outcome.gradient, &[2.125 / 4.0, -2.125 / 4.0]);
    assert_close(&outcome.loss, &[(-0.5 * 0.75f64.ln() - 3.0 * 0.25f64.ln()) / 4.0]);
    // The argmax is class 0: nothing is counted.
    assert_eq!(criterion.counts, [0, 0]);
}

#[test]
fn two_targets_and_weights_by_hand() {
    // One-hot S, so q(y) is one-hot whatever alpha. lam = 1/4: q = (1/4, 3/4) for y = 0, y2 = 1; p = (3/4, 1/4); grad = (1/2, -1/2).
    // The second sample weighs 3 and has its targets the other way round: q = (3/4, 1/4) = p, so its gradient is 0 and its loss the entropy.
    let options = Options::new(2).initial(Initial::OneHot);
    let mut criterion = Reference::new(&options).unwrap();
    let logits = [quarter(), quarter()].concat();
    let samples = Samples {
        sample_weights: Some(&[1.0, 3.0]),
        second_targets: Some((&[1, 0], &[0.25])),
        grad_loss: Some(&[8.0]),
        ..Samples::new(&logits, &[0, 1])
    };
    let outcome = criterion.forward(&samples).unwrap();
    let (a, b) = (0.75f64.ln(), 0.25f64.ln());
    assert_close(&outcome.sample_loss, &[-0.25 * a - 0.75 * b, -0.75 * a - 0.25 * b]);
    assert_close(&outcome.loss, &[(-0.25 * a - 0.75 * b + 3.0 * (-0.75 * a - 0.25 * b)) / 4.0]);
    assert_close(&outcome.factor, &[8.0 / 4.0, 8.0 * 3.0 / 4.0]);
    assert_close(&outcome.gradient, &[1.0, -1.0, 0.0, 0.0]);
    // The target with the larger lam is y2: 1 for the first sample, which is wrong, and 0 for the second, which is right.
    assert_eq!(criterion.counts, [1, 0]);
    // At 1/2 the first one is meant.
    let samples = Samples { second_targets: Some((&[1], &[0.5])), ..Samples::new(&logits[..2], &[0]) };
    criterion.forward(&samples).unwrap();
    assert_eq!(criterion.counts, [2, 0]);
}

#[test]
fn who_takes_no_part() {
    let mut criterion = Reference::new(&Options::new(2).ignore_index(7)).unwrap();
    let logits = [f64::NAN, 0.0, f64::INFINITY, 0.0, 0.0, 1.0];
    let samples = Samples { sample_weights: Some(&[1.0, 0.0, 1.0]), target_offset: 1, ..Samples::new(&logits, &[7, 1, 2]) };
    let outcome = criterion.forward(&samples).unwrap();
    assert_eq!(outcome.sample_loss[..2], [0.0, 0.0]);
    assert_eq!(outcome.gradient[..4], [0.0; 4]);
    assert_eq!((criterion.counts.clone(), criterion.samples_skipped), (vec![0, 1], 0));
    // All else is checked also where nobody takes part.
    for (targets, weight, lam) in [([7, 0], 0.0, 0.5), ([3, 7], 0.0, 0.5), ([7, 7], -1.0, 0.5), ([7, 7], f64::NAN, 0.5), ([7, 7], 0.0, 1.5)]
    {
        let samples = Samples {
            target_offset: 1,
            sample_weights: Some(&[weight]),
            second_targets: Some((&targets[1..], &[lam])),
            ..Samples::new(&logits[..2], &targets[..1])
        };
        assert!(criterion.forward(&samples).is_err(), "{targets:?} {weight} {lam}");
    }
    // Nobody, and a divisor of 0.
    let outcome = criterion.forward(&Samples::new(&[], &[])).unwrap();
    assert_eq!((outcome.loss, outcome.gradient), (vec![0.0], vec![]));
    criterion.options.class_weights = Some(vec![1.0, 0.0]);
    let outcome = criterion.forward(&Samples::new(&[0.0, 1.0], &[1])).unwrap();
    assert_eq!((outcome.loss, outcome.gradient), (vec![0.0], vec![0.0, 0.0]));
}

#[test]
fn rows_that_are_not_finite() {
    let mut criterion = Reference::new(&Options::new(3).reduction(Reduction::None)).unwrap();
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let logits = [[nan, 0.0, 0.0], [0.0, inf, 0.0], [-inf, -inf, -inf]].concat();
    let outcome = criterion.forward(&Samples::new(&logits, &[0, 1, 2])).unwrap();
    assert!(outcome.loss.iter().chain(&outcome.gradient).all(|value| value.is_nan()));
    assert_eq!((criterion.counts.clone(), criterion.samples_skipped), (vec![0; 3], 3));
    // A masked class: p = (1/2, 1/2, 0). With q > 0 on it the loss is +inf; the gradient is finite.
    let outcome = criterion.forward(&Samples::new(&[0.0, 0.0, -inf], &[0])).unwrap();
    assert_eq!(outcome.loss, [inf]);
    assert!(outcome.gradient.iter().all(|value| value.is_finite()));
    assert_eq!(criterion.sums[..3], [UNIT / 2, UNIT / 2, 0]);
    // With q = 0 there it is ln 2.
    criterion.options.alpha = 1.0;
    let outcome = criterion.forward(&Samples::new(&[0.0, 0.0, -inf], &[0])).unwrap();
    assert_close(&outcome.loss, &[2f64.ln()]);
    assert_close(&outcome.gradient, &[-0.5, 0.5, 0.0]);
}

#[test]
fn the_first_index_wins_a_tie() {
    let mut criterion = Reference::new(&Options::new(3)).unwrap();
    criterion.forward(&Samples::new(&[-0.0, 0.0, -1.0], &[0])).unwrap();
    criterion.forward(&Samples::new(&[-0.0, 0.0, -1.0], &[1])).unwrap();
    criterion.forward(&Samples::new(&[-1.0, 0.0, -0.0], &[1])).unwrap();
    criterion.forward(&Samples::new(&[-1.0, 0.0, -0.0], &[2])).unwrap();
    assert_eq!(criterion.counts, [1, 1, 0]);
}

#[test]
fn taking_back_is_exact_or_refused() {
    let mut criterion = Reference::new(&Options::new(2)).unwrap();
    let logits = [0.3, 0.1, 0.1, 0.7, f64::NAN, 0.0];
    let samples = Samples::new(&logits, &[0, 1, 0]);
    criterion.forward(&samples).unwrap();
    let before = (criterion.sums.clone(), criterion.counts.clone(), criterion.samples_skipped);
    criterion.forward(&samples).unwrap();
    criterion.mode = Mode::Eval;
    criterion.forward(&samples).unwrap();
    let back = Samples { update: Update::TakeBack, ..samples };
    criterion.forward(&back).unwrap();
    assert_eq!(before, (criterion.sums.clone(), criterion.counts.clone(), criterion.samples_skipped));
    criterion.forward(&back).unwrap();
    assert_eq!((&criterion.sums[..], &criterion.counts[..]), (&[0; 4][..], &[0, 0][..]));
    let error = criterion.forward(&back).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState);
}

#[test]
fn a_full_class_takes_no_more() {
    let mut criterion = Reference::new(&Options::new(2)).unwrap();
    criterion.counts[0] = (1 << 32) - 1;
    for _ in 0..2 {
        criterion.forward(&Samples::new(&quarter(), &[0])).unwrap();
    }
    assert_eq!((criterion.counts[0], criterion.sums[0]), (1 << 32, 3 * UNIT / 4));
    assert_eq!(criterion.next_epoch().classes_full, 1);
}

#[test]
fn the_end_of_an_epoch_by_hand() {
    // Class 0 is measured twice: A = (3/4 + 1/2, 1/4 + 1/2) = (5/4, 3/4), so the row is (5/8, 3/8).
    // Momentum 1/2 on a start of (1, 0): (13/16, 3/16). Class 1 by policy, on a start of (0, 1).
    let policies = [
        (EmptyClass::Keep, [0.0, 1.0]),
        (EmptyClass::Uniform, [0.25, 0.75]),
        (EmptyClass::Initial, [0.0, 1.0]),
        (EmptyClass::OneHot, [0.0, 1.0]),
        (EmptyClass::Zero, [0.0, 0.5]),
    ];
    for (policy, row) in policies {
        let options = Options::new(2).initial(Initial::OneHot).momentum(0.5).empty_class(policy);
        let mut criterion = Reference::new(&options).unwrap();
        let probabilities = [0.75, 0.25, 0.5, 0.5, 0.6, 0.4];
        criterion.accumulate(&Samples::new(&probabilities, &[0, 0, 1])).unwrap();
        let report = criterion.next_epoch();
        assert_eq!(criterion.soft_labels, [13.0 / 16.0, 3.0 / 16.0, row[0], row[1]], "{policy:?}");
        let rows = [report.rows_kept, report.rows_uniform, report.rows_initial, report.rows_one_hot, report.rows_zero];
        assert_eq!((report.rows_measured, rows.iter().sum::<i64>()), (1, 1), "{policy:?}");
        // Nothing was accumulated since: every row stays, and the epoch advances.
        let before = criterion.soft_labels.clone();
        let report = criterion.next_epoch();
        assert_eq!((report.epoch, report.rows_kept, &criterion.soft_labels), (2, 2, &before), "{policy:?}");
    }
}

#[test]
fn min_count_and_freezing() {
    let probabilities = [0.75, 0.25, 0.5, 0.5];
    let samples = Samples::new(&probabilities, &[0, 0]);
    let mut criterion = Reference::new(&Options::new(2).min_count(3)).unwrap();
    criterion.accumulate(&samples).unwrap();
    assert_eq!(criterion.next_epoch().rows_kept, 2);
    let mut criterion = Reference::new(&Options::new(2).min_count(2).freeze_above(0.7)).unwrap();
    criterion.soft_labels = vec![0.5, 0.5, 0.1, 0.9];
    criterion.accumulate(&samples).unwrap();
    let report = criterion.next_epoch();
    assert_eq!((report.rows_measured, report.rows_frozen), (1, 1));
    assert_eq!(criterion.soft_labels, [0.625, 0.375, 0.1, 0.9]);
    // A row of zeros counts, but is no distribution.
    criterion.options.freeze_above = None;
    criterion.options.min_count = 1;
    criterion.accumulate(&Samples::new(&[0.0, 0.0], &[0])).unwrap();
    assert_eq!(criterion.counts, [1, 0]);
    assert_eq!(criterion.next_epoch().rows_kept, 2);
}

#[test]
fn given_probabilities_are_checked() {
    let mut criterion = Reference::new(&Options::new(2)).unwrap();
    let error = criterion.accumulate(&Samples::new(&[0.5, 0.5, 0.5, 1.5], &[0, 1])).unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidArgument && error.message().starts_with("logits[1, 1] = 1.5"), "{error}");
    assert_eq!(criterion.counts, [0, 0]);
    criterion.accumulate(&Samples::new(&[f64::NAN, 0.5, 0.5, 1.5], &[0, -100])).unwrap();
    assert_eq!((criterion.counts.clone(), criterion.samples_skipped), (vec![0, 0], 1));
    criterion.mode = Mode::Eval;
    criterion.accumulate(&Samples::new(&[0.5, 0.5], &[0])).unwrap();
    assert_eq!(criterion.counts, [0, 0]);
}

/// Logits that are no round numbers.
fn some_logits(n: usize) -> Vec<f64> {
    (0..n).map(|i| 2.0 * (1.0 + i as f64 * 1.7).sin() + (i as f64 * 0.3).cos()).collect()
}

#[test]
fn a_peaked_row_loses_nothing() {
    // p[0] = 1 / (1 + 4095 e^-17), so the loss of class 0 is log(1 + x) with x = 4095 e^-17.
    let mut logits = vec![0.0; 4096];
    logits[0] = 17.0;
    let criterion = Reference::new(&Options::new(4096).alpha(1.0)).unwrap();
    let found = criterion.backward(&Samples::new(&logits, &[0])).unwrap().loss[0];
    assert!((found - (4095.0 * (-17f64).exp()).ln_1p()).abs() < 1e-15, "{found:e}");
}

#[test]
fn the_gradient_is_the_derivative_of_the_loss() {
    let (n, classes) = (6, 5);
    let logits = some_logits(n * classes);
    let targets = [0, 3, 4, -100, 2, 2];
    for reduction in [Reduction::Mean, Reduction::Sum] {
        let mut options = Options::new(classes).alpha(0.3).reduction(reduction).class_weights(vec![1.0, 0.5, 0.0, 2.0, 0.25]);
        // Rows need not sum to 1.
        options.initial = Initial::Matrix((0..25).map(|i| (i % 7) as f32 / 10.0).collect());
        let criterion = Reference::new(&options).unwrap();
        let samples = Samples {
            sample_weights: Some(&[1.0, 0.5, 2.0, 1.0, 0.0, 0.75]),
            second_targets: Some((&[1, 1, 4, 0, 3, 0], &[0.3, 0.5, 1.0, 0.2, 0.9, 0.0])),
            ..Samples::new(&logits, &targets)
        };
        let gradient = criterion.backward(&samples).unwrap().gradient;
        let loss = |logits: &[f64]| criterion.backward(&Samples { logits, ..samples }).unwrap().loss[0];
        for index in 0..logits.len() {
            let (mut up, mut down) = (logits.clone(), logits.clone());
            up[index] += 1e-5;
            down[index] -= 1e-5;
            let slope = (loss(&up) - loss(&down)) / 2e-5;
            assert!((slope - gradient[index]).abs() < 1e-9, "{reduction:?} [{index}]: {slope} differs from {}", gradient[index]);
        }
    }
}

#[test]
fn alpha_1_is_cross_entropy_and_alpha_0_is_label_smoothing() {
    let (classes, eps) = (4usize, 0.1);
    let logits = some_logits(3 * classes);
    let targets = [2i64, 0, 3];
    for (alpha, smooth) in [(1.0, 0.0), (0.0, eps)] {
        let criterion = Reference::new(&Options::new(classes).alpha(alpha)).unwrap();
        let mut expected = 0.0;
        for (row, &y) in logits.chunks(classes).zip(&targets) {
            let log_sum = row.iter().map(|z| z.exp()).sum::<f64>().ln();
            for (k, z) in row.iter().enumerate() {
                let q = if k as i64 == y { 1.0 - smooth } else { smooth / (classes as f64 - 1.0) };
                expected += q * (log_sum - z) / 3.0;
            }
        }
        let found = criterion.backward(&Samples::new(&logits, &targets)).unwrap().loss[0];
        assert!((found - expected).abs() < 1e-7, "{found} differs from {expected}"); // S holds 0.9 as f32
    }
}
