//! Runs a case through the public interface of the library.

use ols::{Batch, Counter, Criterion, DType, Options, TensorMut, Update};

use super::buffer::Buffer;
use super::model::{Action, Case, CaseBatch, CaseReport, Expect, Integers, Named, Numbers, Targets, Values, View};
use super::oracle::{Tolerance, dtype_of_loss};

/// The tensors of a batch.
pub struct Tensors {
    pub logits: Buffer,
    targets: (Buffer, View),
    target_offset: i64,
    sample_weights: Option<(Buffer, View)>,
    targets2: Option<(Buffer, View)>,
    lam: Option<(Buffer, View)>,
    grad_loss: Option<(Buffer, View)>,
}

impl Tensors {
    pub fn new(batch: &CaseBatch) -> Self {
        let targets = |it: &Targets| (Buffer::integers(it.dtype.0, &it.view, &it.values), it.view.clone());
        let numbers = |it: &Numbers| {
            let values: Vec<f64> = it.values.iter().map(|value| value.0).collect();
            (Buffer::numbers(it.dtype.0, &it.view, &values), it.view.clone())
        };
        Self {
            logits: Buffer::numbers(batch.logits.dtype.0, &batch.logits.view, &batch.logits.values()),
            targets: targets(&batch.targets),
            target_offset: batch.target_offset,
            sample_weights: batch.sample_weights.as_ref().map(numbers),
            targets2: batch.targets2.as_ref().map(targets),
            lam: batch.lam.as_ref().map(numbers),
            grad_loss: batch.grad_loss.as_ref().map(numbers),
        }
    }

    /// All but the logits.
    fn complete<'a, L>(&'a self, mut batch: Batch<'a, L>, update: Update) -> ols::Result<Batch<'a, L>> {
        let view = |it: &'a (Buffer, View)| it.0.view(&it.1);
        if let Some(weights) = &self.sample_weights {
            batch = batch.sample_weights(view(weights)?);
        }
        if let (Some(targets), Some(lam)) = (&self.targets2, &self.lam) {
            batch = batch.second_targets(view(targets)?, view(lam)?);
        }
        if let Some(grad_loss) = &self.grad_loss {
            batch = batch.grad_loss(view(grad_loss)?);
        }
        Ok(batch.target_offset(self.target_offset).update(update))
    }

    pub fn batch<'a>(&'a self, logits: &'a Buffer, view: &View, update: Update) -> ols::Result<Batch<'a>> {
        self.complete(Batch::new(logits.view(view)?, self.targets.0.view(&self.targets.1)?), update)
    }

    pub fn in_place<'a>(&'a self, logits: &'a mut Buffer, view: &View, update: Update) -> ols::Result<Batch<'a, TensorMut<'a>>> {
        self.complete(Batch::in_place(logits.view_mut(view)?, self.targets.0.view(&self.targets.1)?), update)
    }
}

/// Loss and gradient of a call; what was not asked for is absent.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    pub loss: Option<(Buffer, View)>,
    pub grad: Option<(Buffer, View)>,
}

impl Outputs {
    /// The bits of all memory.
    pub fn bits(&self) -> Vec<Vec<u64>> {
        [&self.loss, &self.grad].into_iter().flatten().map(|(buffer, _)| buffer.bits()).collect()
    }
}

fn fresh(dtype: DType, view: &Option<View>) -> Option<(Buffer, View)> {
    view.as_ref().map(|view| (Buffer::unused(dtype, view.length()), view.clone()))
}

/// Runs a forward pass. The outputs are there even where it fails, to see that nothing was written.
pub fn forward(
    criterion: &mut Criterion,
    batch: &CaseBatch,
    update: Update,
    loss: &Option<View>,
    grad: &Option<View>,
    in_place: bool,
) -> (ols::Result<()>, Outputs) {
    let tensors = Tensors::new(batch);
    let dtype = batch.logits.dtype.0;
    let mut outputs = Outputs { loss: fresh(dtype_of_loss(dtype), loss), grad: fresh(dtype, grad) };
    let mut call = || {
        let loss = outputs.loss.as_mut().map(|(buffer, view)| buffer.view_mut(view)).transpose()?;
        if in_place {
            let mut logits = tensors.logits.clone();
            let result = criterion.forward_in_place(tensors.in_place(&mut logits, &batch.logits.view, update)?, loss);
            outputs.grad = Some((logits, batch.logits.view.clone()));
            result
        } else {
            let grad = outputs.grad.as_mut().map(|(buffer, view)| buffer.view_mut(view)).transpose()?;
            criterion.forward(&tensors.batch(&tensors.logits, &batch.logits.view, update)?, loss, grad)
        }
    };
    (call(), outputs)
}

/// Runs a backward pass.
pub fn backward(criterion: &mut Criterion, batch: &CaseBatch, grad: &View) -> (ols::Result<()>, Outputs) {
    let tensors = Tensors::new(batch);
    let mut outputs = Outputs { loss: None, grad: fresh(batch.logits.dtype.0, &Some(grad.clone())) };
    let mut call = || {
        let (buffer, view) = outputs.grad.as_mut().expect("just made");
        criterion.backward(&tensors.batch(&tensors.logits, &batch.logits.view, Update::Add)?, buffer.view_mut(view)?)
    };
    (call(), outputs)
}

/// Adds given probabilities.
pub fn accumulate(criterion: &mut Criterion, batch: &CaseBatch, update: Update) -> ols::Result<()> {
    let tensors = Tensors::new(batch);
    criterion.accumulate(&tensors.batch(&tensors.logits, &batch.logits.view, update)?)
}

/// S, A and c.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub soft_labels: Vec<f32>,
    pub sums: Vec<i64>,
    pub counts: Vec<i64>,
    pub samples_skipped: i64,
}

impl State {
    pub fn of(criterion: &Criterion) -> Self {
        let classes = criterion.options().classes;
        Self {
            soft_labels: (0..classes).flat_map(|class| criterion.soft_label(class).to_vec()).collect(),
            sums: (0..classes).flat_map(|class| criterion.sums(class).to_vec()).collect(),
            counts: criterion.counts().to_vec(),
            samples_skipped: criterion.counters()[Counter::SkippedNonFinite as usize],
        }
    }
}

/// Runs a case; the error says what differs.
pub fn run(case: &Case) -> Result<(), String> {
    let created = Criterion::new(&case.options.options());
    let mut criterion = match (created, &case.error) {
        (Ok(criterion), None) => criterion,
        (result, _) => return check_error(result.map(drop), case.error.as_ref()),
    };
    for (number, step) in case.steps.iter().enumerate() {
        run_step(&mut criterion, case, number).map_err(|error| {
            let action = serde_json::to_string(&step.action).unwrap_or_default();
            format!("step {number} {action}: {error}")
        })?;
    }
    Ok(())
}

fn run_step(criterion: &mut Criterion, case: &Case, number: usize) -> Result<(), String> {
    let step = &case.steps[number];
    let expect = &step.expect;
    let before = expect.error.is_some().then(|| criterion.to_bytes().ok());
    let mut outputs = Outputs::default();
    let mut untouched = Outputs::default();
    let result = match &step.action {
        Action::Forward { batch, update, loss, grad, in_place } => {
            let batch = &case.batches[*batch];
            let dtype = batch.logits.dtype.0;
            untouched = Outputs { loss: fresh(dtype_of_loss(dtype), loss), grad: fresh(dtype, grad) };
            if *in_place {
                untouched.grad = Some((Tensors::new(batch).logits, batch.logits.view.clone()));
            }
            let (result, written) = forward(criterion, batch, update.0, loss, grad, *in_place);
            outputs = written;
            result
        }
        Action::Backward { batch, grad } => {
            let batch = &case.batches[*batch];
            untouched.grad = fresh(batch.logits.dtype.0, &Some(grad.clone()));
            let (result, written) = backward(criterion, batch, grad);
            outputs = written;
            result
        }
        Action::Accumulate { batch, update } => accumulate(criterion, &case.batches[*batch], update.0),
        Action::NextEpoch {} => criterion.next_epoch().map(drop),
        Action::SetMode { mode } => {
            criterion.set_mode(mode.0);
            Ok(())
        }
        Action::SetAlpha { alpha } => criterion.set_alpha(alpha.0),
        Action::SetSoftLabels { values } => criterion.set_soft_labels(&values.iter().map(|value| value.0 as f32).collect::<Vec<_>>()),
        Action::SaveLoad {} => save_load(criterion),
    };
    check_error(result, expect.error.as_ref())?;
    if let Some(before) = before {
        if before != criterion.to_bytes().ok() {
            return Err("the state changed with an error".into());
        }
        if outputs.bits() != untouched.bits() {
            return Err("outputs were written with an error".into());
        }
    }
    for (name, written, untouched) in [("loss", &outputs.loss, &untouched.loss), ("grad", &outputs.grad, &untouched.grad)] {
        if let (Some((written, view)), Some((untouched, _))) = (written, untouched) {
            let named = view.positions();
            let (written, untouched) = (written.bits(), untouched.bits());
            if let Some(place) = (0..written.len()).find(|place| written[*place] != untouched[*place] && !named.contains(place)) {
                return Err(format!("{name}: element {place} of the memory is no part of the view, but was written"));
            }
        }
    }
    check(expect, &outputs, criterion.report().into(), criterion.epoch(), || State::of(criterion))
}

/// Saves, loads in another criterion, and goes on with that one.
pub fn save_load(criterion: &mut Criterion) -> ols::Result<()> {
    let bytes = criterion.to_bytes()?;
    let old = criterion.options();
    let mut next = Criterion::new(&Options::new(old.classes).reduction(old.reduction).mode(criterion.mode()))?;
    next.load_bytes(&bytes)?;
    *criterion = next;
    Ok(())
}

fn check_error(result: ols::Result<()>, expected: Option<&super::model::Failure>) -> Result<(), String> {
    match (result, expected) {
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(failure)) => Err(format!("passed, but {} was expected", failure.kind.0.name())),
        (Err(error), None) => Err(format!("failed with {:?}: {error}", error.kind())),
        (Err(error), Some(failure)) => {
            if error.kind() != failure.kind.0 {
                return Err(format!("failed with {:?} ({error}), but {} was expected", error.kind(), failure.kind.0.name()));
            }
            match &failure.message {
                Some(text) if !error.message().contains(text) => {
                    Err(format!("the message {:?} does not contain {text:?}", error.message()))
                }
                _ => Ok(()),
            }
        }
    }
}

/// Whether a step did what is expected.
pub fn check(
    expect: &Expect,
    outputs: &Outputs,
    found_report: CaseReport,
    found_epoch: i64,
    state: impl FnOnce() -> State,
) -> Result<(), String> {
    if let Some((values, (buffer, view))) = expect.loss.as_ref().zip(outputs.loss.as_ref()) {
        check_values("loss", &buffer.values(view), values)?;
    }
    if let Some((buffer, view)) = &outputs.grad {
        let grad = buffer.values(view);
        if let Some(values) = &expect.grad {
            check_values("grad", &grad, values)?;
        }
        if let Some(values) = &expect.grad_abs_sum {
            check_values("grad_abs_sum", &[grad.iter().map(|value| value.abs()).sum()], values)?;
        }
    }
    if let Some(report) = &expect.report
        && *report != found_report
    {
        return Err(format!("report: {found_report:?} differs from {report:?}"));
    }
    if let Some(epoch) = expect.epoch
        && epoch != found_epoch
    {
        return Err(format!("epoch: {found_epoch} differs from {epoch}"));
    }
    if expect.counts.is_none() && expect.soft_labels.is_none() {
        return Ok(());
    }
    let state = state();
    if let Some(counts) = &expect.counts
        && *counts != state.counts
    {
        return Err(format!("counts: {:?} differs from {counts:?}", state.counts));
    }
    if let Some(skipped) = expect.samples_skipped
        && skipped != state.samples_skipped
    {
        return Err(format!("samples_skipped: {} differs from {skipped}", state.samples_skipped));
    }
    if let Some(Integers { at, values, atol, rtol }) = &expect.sums {
        let values = Values {
            at: at.clone(),
            values: values.iter().map(|&value| super::hex::Hex(value as f64)).collect(),
            atol: super::hex::Hex(*atol as f64),
            rtol: *rtol,
        };
        check_values("sums", &state.sums.iter().map(|&value| value as f64).collect::<Vec<_>>(), &values)?;
    }
    if let Some(values) = &expect.soft_labels {
        check_values("soft_labels", &state.soft_labels.iter().map(|&value| value.into()).collect::<Vec<_>>(), values)?;
    }
    Ok(())
}

fn check_values(name: &str, found: &[f64], expected: &Values) -> Result<(), String> {
    let tolerance = Tolerance { atol: expected.atol.0, rtol: expected.rtol.0 };
    if expected.at.is_none() && found.len() != expected.values.len() {
        return Err(format!("{name}: {} values differ from {}", found.len(), expected.values.len()));
    }
    for (number, value) in expected.values.iter().enumerate() {
        let index = expected.at.as_ref().map_or(number, |at| at[number]);
        if !tolerance.accepts(found[index], value.0) {
            let error = (found[index] - value.0).abs();
            return Err(format!("{name}[{index}] = {:e} differs from {:e} by {error:e}; allowed are {tolerance:?}", found[index], value.0));
        }
    }
    Ok(())
}
