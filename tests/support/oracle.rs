//! What must come of a case, by the reference; and how far from it a result may be.

use ols::reference::{Outcome, Reference, Samples};
use ols::{DType, Mode, Reduction, Update};

use super::hex::Hex;
use super::model::{Action, Case, CaseBatch, CaseReport, Expect, Failure, Integers, Name, Step, Values, splitmix64};

/// Gradients and matrices up to this many numbers are listed whole, larger ones in part.
const WHOLE: usize = 256;

/// How far a result may be from the reference: `|result - expected| <= atol + rtol * |expected|`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub atol: f64,
    pub rtol: f64,
}

impl Tolerance {
    pub fn accepts(self, result: f64, expected: f64) -> bool {
        if expected.is_nan() || result.is_nan() {
            return expected.is_nan() && result.is_nan();
        }
        result == expected || (result - expected).abs() <= self.atol + self.rtol * expected.abs()
    }
}

/// The promised error of the loss, relative to `max(1, loss)` and for weights up to 1.
pub fn loss_error(dtype: DType) -> f64 {
    if dtype == DType::F64 { 1e-13 } else { 2e-6 }
}

/// The promised error of the gradient before the reduction's factor and before it is rounded to its dtype, for weights up to 1.
pub fn gradient_error(dtype: DType) -> f64 {
    if dtype == DType::F64 { 1e-13 } else { 4e-7 }
}

/// The error of rounding to `dtype` once, as (relative, absolute).
pub fn rounding(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F64 => (2f64.powi(-50), 0.0),
        DType::F16 => (2f64.powi(-11) + 2f64.powi(-21), 2f64.powi(-25) * 1.01),
        DType::Bf16 => (2f64.powi(-8) + 2f64.powi(-21), 0.0),
        _ => (2f64.powi(-21), 0.0),
    }
}

/// What the promised errors grow by: they hold for `Q` and weights up to 1.
pub fn scale(reference: &Reference, outcome: &Outcome) -> f64 {
    let weights = reference.options.class_weights.iter().flatten().copied();
    weights.chain(outcome.total.iter().copied()).fold(1.0, f64::max)
}

/// The tolerance of the loss; `samples` decides the weights.
pub fn loss_tolerance(reference: &Reference, dtype: DType, samples: &Samples<'_>) -> Tolerance {
    let plain = reference.backward(&Samples { grad_loss: None, ..*samples }).expect("it passed before");
    let weights = plain.factor.iter().copied();
    let weight = if reference.options.reduction == Reduction::None { weights.fold(0.0, f64::max) } else { weights.sum() };
    Tolerance { atol: loss_error(dtype) * scale(reference, &plain) * weight, rtol: loss_error(dtype) + rounding(dtype_of_loss(dtype)).0 }
}

/// The tolerance of the gradient in its dtype.
pub fn gradient_tolerance(reference: &Reference, dtype: DType, outcome: &Outcome) -> Tolerance {
    let factor = outcome.factor.iter().map(|factor| factor.abs()).fold(0.0, f64::max);
    let (relative, absolute) = rounding(dtype);
    Tolerance { atol: gradient_error(dtype) * scale(reference, outcome) * factor + absolute, rtol: relative }
}

/// The dtype of the loss of logits of `dtype`.
pub fn dtype_of_loss(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// Runs a case through the reference and writes down what came of it.
pub fn fill(case: &mut Case) {
    let mut reference = match Reference::new(&case.options.options()) {
        Ok(reference) => reference,
        Err(error) => {
            let message = case.error.as_ref().and_then(|failure| failure.message.clone());
            case.error = Some(Failure { kind: Name(error.kind()), message });
            return;
        }
    };
    let mut knowledge = Knowledge { loosen: 1.0, exact_sums: true, exact_soft_labels: true };
    for step in &mut case.steps {
        let expect = run(&mut reference, &case.batches, step, &mut knowledge);
        let keep = std::mem::replace(&mut step.expect, expect);
        match (&mut step.expect.error, keep.error) {
            (Some(failure), Some(keep)) => {
                assert_eq!(failure.kind, keep.kind, "{}: {failure:?}", case.name);
                failure.message = keep.message;
            }
            (None, None) => {}
            (found, expected) => panic!("{}: found {found:?}, expected {expected:?}", case.name),
        }
    }
}

/// How well a case is known at a step.
struct Knowledge {
    /// What tolerances of loss and gradient grow by: soft labels that were measured from logits differ in their last bits.
    loosen: f64,
    /// No logits were added: sums of given probabilities are known to the unit.
    exact_sums: bool,
    /// And so are the soft labels that come of them.
    exact_soft_labels: bool,
}

fn run(reference: &mut Reference, batches: &[CaseBatch], step: &Step, knowledge: &mut Knowledge) -> Expect {
    let loosen = knowledge.loosen;
    let mut expect = Expect::default();
    let dtype = batches.first().map_or(DType::F32, |batch| batch.logits.dtype.0);
    let mut show = Show::Statistics;
    let result = match &step.action {
        Action::Forward { batch, update, loss, grad, in_place } => {
            let (batch, dtype) = (&batches[*batch], batches[*batch].logits.dtype.0);
            let rows = batch.rows();
            let samples = rows.samples(update.0);
            if grad.is_none() && !in_place && update.0 == Update::None {
                show = Show::Nothing;
            }
            knowledge.exact_sums &= !counts(reference.mode, update.0);
            let tolerance = reference.backward(&samples).map(|_| loss_tolerance(reference, dtype, &samples));
            reference.forward(&samples).map(|outcome| {
                if loss.is_some() {
                    expect.loss = Some(values(dtype, &outcome.loss, None, tolerance.expect("forward passed"), loosen));
                }
                if grad.is_some() || *in_place {
                    (expect.grad, expect.grad_abs_sum) = gradient(reference, batch, &outcome, loosen);
                }
            })
        }
        Action::Backward { batch, .. } => {
            let batch = &batches[*batch];
            let rows = batch.rows();
            reference.backward(&rows.samples(Update::None)).map(|outcome| {
                (expect.grad, expect.grad_abs_sum) = gradient(reference, batch, &outcome, loosen);
            })
        }
        Action::Accumulate { batch, update } => {
            let rows = batches[*batch].rows();
            reference.accumulate(&rows.samples(update.0))
        }
        Action::NextEpoch {} => {
            let report = reference.next_epoch();
            expect.report = Some(CaseReport::from(report));
            show = Show::All;
            if report.rows_measured > 0 && !knowledge.exact_sums {
                (knowledge.loosen, knowledge.exact_soft_labels) = (4.0, false);
            }
            knowledge.exact_sums = true;
            Ok(())
        }
        Action::SetMode { mode } => {
            reference.mode = mode.0;
            show = Show::Nothing;
            Ok(())
        }
        Action::SetAlpha { alpha } => {
            show = Show::Nothing;
            if !(0.0..=1.0).contains(&alpha.0) {
                Err(ols::ErrorKind::InvalidArgument)
            } else {
                reference.options.alpha = alpha.0;
                Ok(())
            }
            .map_err(|kind| expect.error = Some(Failure { kind: Name(kind), message: None }))
            .ok();
            Ok(())
        }
        Action::SetSoftLabels { values } => {
            show = Show::All;
            if values.iter().any(|value| !(value.0.is_finite() && value.0 >= 0.0)) {
                expect.error = Some(Failure { kind: Name(ols::ErrorKind::InvalidArgument), message: None });
            } else {
                reference.soft_labels = values.iter().map(|value| value.0 as f32).collect();
            }
            Ok(())
        }
        Action::SaveLoad {} => {
            show = Show::All;
            Ok(())
        }
    };
    if let Err(error) = result {
        expect.error = Some(Failure { kind: Name(error.kind()), message: None });
        show = Show::All;
    }
    if show != Show::Nothing {
        expect.counts = Some(reference.counts.clone());
        expect.sums = Some(sums(reference, dtype, knowledge.exact_sums));
        expect.samples_skipped = Some(reference.samples_skipped);
    }
    if show == Show::All {
        expect.epoch = Some(reference.epoch);
        expect.soft_labels = Some(soft_labels(reference, knowledge.exact_soft_labels));
    }
    expect
}

#[derive(PartialEq)]
enum Show {
    Nothing,
    Statistics,
    All,
}

/// Numbers as a file gives them: for 32-bit arithmetic 32 bits of the significand are enough.
fn hex(dtype: DType, value: f64) -> Hex {
    if dtype == DType::F64 { Hex(value) } else { Hex::short(value) }
}

fn values(dtype: DType, numbers: &[f64], at: Option<Vec<usize>>, tolerance: Tolerance, loosen: f64) -> Values {
    let values = match &at {
        Some(at) => at.iter().map(|&index| hex(dtype, numbers[index])).collect(),
        None => numbers.iter().map(|&value| hex(dtype, value)).collect(),
    };
    Values { at, values, atol: Hex::short(tolerance.atol * loosen), rtol: Hex::short(tolerance.rtol * loosen) }
}

/// The gradient, whole or in part, and in the latter case the sum of all magnitudes.
fn gradient(reference: &Reference, batch: &CaseBatch, outcome: &Outcome, loosen: f64) -> (Option<Values>, Option<Values>) {
    let dtype = batch.logits.dtype.0;
    let tolerance = gradient_tolerance(reference, dtype, outcome);
    let numbers = batch.logical(&outcome.gradient);
    if numbers.len() <= WHOLE {
        return (Some(values(dtype, &numbers, None, tolerance, loosen)), None);
    }
    // First and last classes, the targets, what was set by hand, and some more; of the first samples.
    let (n, classes, inner) = batch.sizes();
    let mut at: Vec<usize> = batch.logits.set.iter().map(|&(index, _)| index).collect();
    for sample in 0..(n * inner).min(8) {
        let (outer, i) = (sample / inner, sample % inner);
        let some = (0..12).map(|index| splitmix64(99, (sample * 12 + index) as u64) as usize % classes);
        let target = usize::try_from(batch.targets.values[sample] - batch.target_offset).ok().filter(|&class| class < classes);
        at.extend([0, classes - 1].into_iter().chain(target).chain(some).map(|class| (outer * classes + class) * inner + i));
    }
    at.sort_unstable();
    at.dedup();
    let sum: f64 = numbers.iter().map(|value| value.abs()).sum();
    let all = Tolerance { atol: tolerance.atol * numbers.len() as f64, rtol: tolerance.rtol };
    (Some(values(dtype, &numbers, Some(at), tolerance, loosen)), Some(values(dtype, &[sum], None, all, loosen)))
}

/// Which entries of a K x K matrix are listed: all of a small one; else of each measured class (at most 6) the diagonal and some more.
fn entries(reference: &Reference) -> Option<Vec<usize>> {
    let classes = reference.options.classes;
    if classes * classes <= WHOLE {
        return None;
    }
    let counted = (0..classes).filter(|&class| reference.counts[class] > 0);
    let initial = initial(reference);
    let changed = (0..classes).filter(|&class| *reference.soft_label(class) != initial[class * classes..][..classes]);
    let mut at = Vec::new();
    for class in counted.chain(changed).take(6).chain([0, classes - 1]) {
        let some = (0..6).map(|index| splitmix64(98, (class * 6 + index) as u64) as usize % classes);
        at.extend([0, class, classes - 1].into_iter().chain(some).map(|k| class * classes + k));
    }
    at.sort_unstable();
    at.dedup();
    Some(at)
}

/// A: a probability is within 2^-20 of itself in 32-bit arithmetic, and each one is rounded to a unit. What was given is exact.
fn sums(reference: &Reference, dtype: DType, exact: bool) -> Integers {
    let at = entries(reference);
    let values = match &at {
        Some(at) => at.iter().map(|&index| reference.sums[index]).collect(),
        None => reference.sums.clone(),
    };
    let rtol = if exact || dtype == DType::F64 { 0.0 } else { 2f64.powi(-20) };
    let atol = if exact { 0 } else { reference.counts.iter().copied().max().unwrap_or(0) };
    Integers { at, values, atol, rtol: Hex(rtol) }
}

/// The soft labels of the first epoch.
fn initial(reference: &Reference) -> Vec<f32> {
    reference.initial.iter().map(|&value| value as f32).collect()
}

fn soft_labels(reference: &Reference, exact: bool) -> Values {
    let numbers: Vec<f64> = reference.soft_labels.iter().map(|&value| value.into()).collect();
    let tolerance = if exact { Tolerance { atol: 0.0, rtol: 0.0 } } else { soft_label_tolerance() };
    values(DType::F64, &numbers, entries(reference), tolerance, 1.0)
}

/// The tolerance of measured soft labels.
pub fn soft_label_tolerance() -> Tolerance {
    Tolerance { atol: 2f64.powi(-29), rtol: 2f64.powi(-20) }
}

/// Whether a forward pass of this criterion may change its statistics.
pub fn counts(mode: Mode, update: Update) -> bool {
    update == Update::TakeBack || (update == Update::Add && mode == Mode::Train)
}
