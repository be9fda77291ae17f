//! The conformance cases of all languages on the stand-in: like the CPU, except for errors that a device can only
//! report later.

use ols::ErrorKind;
use ols::capi::ols_status_t;

use crate::device::CudaCriterion;
use crate::standin::{Standin, root};
use crate::support::model::{Action, Case, File};
use crate::support::runner::{self, Outputs};

/// How an error on the CPU shows on a device.
#[derive(Debug, PartialEq)]
enum Deferred {
    /// As the same error.
    No,
    /// In the counter of targets out of range.
    Target,
    /// As NaN in the loss and the gradient.
    Weight,
    /// In the report; nothing has changed.
    Report,
    /// In the counter of skipped rows.
    Probability,
}

fn deferred(kind: ErrorKind, message: &str, action: &Action) -> Deferred {
    match (kind, action) {
        (ErrorKind::TargetOutOfRange, _) => Deferred::Target,
        (ErrorKind::InvalidState, Action::Forward { .. } | Action::Accumulate { .. }) => Deferred::Report,
        (_, Action::SetSoftLabels { .. }) => Deferred::Report,
        (_, Action::Accumulate { .. }) if message.starts_with("logits[") => Deferred::Probability,
        (ErrorKind::InvalidArgument, Action::Forward { .. } | Action::Backward { .. })
            if message.starts_with("sample_weights[") || message.starts_with("lam") =>
        {
            Deferred::Weight
        }
        _ => Deferred::No,
    }
}

fn run(standin: &Standin, case: &Case) -> Result<(), String> {
    let options = case.options.options();
    let mut criterion = match (CudaCriterion::new(&options), &case.error) {
        (Ok(criterion), None) => criterion,
        (Err(failure), Some(expected)) => {
            let right = failure.status == ols_status_t::from(expected.kind.0)
                && expected.message.as_ref().is_none_or(|message| failure.text.contains(message));
            return if right { Ok(()) } else { Err(format!("{failure:?} differs from {expected:?}")) };
        }
        (Err(failure), None) => return Err(format!("{failure:?}")),
        (Ok(_), Some(expected)) => return Err(format!("created, but {expected:?} was expected")),
    };
    let mut told_later = false;
    for (number, step) in case.steps.iter().enumerate() {
        let what = |error: String| format!("step {number} {}: {error}", serde_json::to_string(&step.action).unwrap_or_default());
        let mut outputs = Outputs::default();
        let result = match &step.action {
            Action::Forward { batch, update, loss, grad, in_place } => {
                let (result, written) = criterion.forward(standin, &case.batches[*batch], update.0, loss, grad, *in_place);
                outputs = written;
                result
            }
            Action::Backward { batch, grad } => {
                let (result, written) = criterion.backward(standin, &case.batches[*batch], grad);
                outputs = written;
                result
            }
            Action::Accumulate { batch, update } => criterion.accumulate(standin, &case.batches[*batch], update.0),
            Action::NextEpoch {} => criterion.next_epoch(),
            Action::SetMode { mode } => {
                criterion.set_mode(mode.0);
                Ok(())
            }
            Action::SetAlpha { alpha } => criterion.set_alpha(alpha.0),
            Action::SetSoftLabels { values } => {
                criterion.set_soft_labels(standin, &values.iter().map(|value| value.0 as f32).collect::<Vec<_>>())
            }
            Action::SaveLoad {} => {
                let bytes = criterion.save();
                let fresh = ols::Options::new(options.classes).reduction(options.reduction).mode(ols::Mode::Train);
                let mut next = CudaCriterion::new(&fresh).map_err(|failure| what(format!("{failure:?}")))?;
                // The mode belongs to the caller, not to the file; look back for the one set last.
                let mode = case.steps[..number].iter().rev().find_map(|step| match &step.action {
                    Action::SetMode { mode } => Some(mode.0),
                    _ => None,
                });
                next.set_mode(mode.unwrap_or(options.mode));
                let result = next.load(&bytes);
                criterion = next;
                result
            }
        };
        if let Some(expected) = &step.expect.error {
            let message = expected.message.as_deref().unwrap_or_default();
            let counters = criterion.counters(standin);
            match deferred(expected.kind.0, message, &step.action) {
                Deferred::No => match result {
                    Err(failure) if failure.status == ols_status_t::from(expected.kind.0) && failure.text.contains(message) => {}
                    other => return Err(what(format!("{other:?} differs from {expected:?}"))),
                },
                Deferred::Report => {
                    result.map_err(|failure| what(format!("{failure:?}")))?;
                    match criterion.report() {
                        Err(failure) if failure.status == ols_status_t::from(expected.kind.0) => {
                            told_later |= expected.kind.0 == ErrorKind::InvalidState
                        }
                        other => return Err(what(format!("the report says {other:?}, not {expected:?}"))),
                    }
                }
                how => {
                    result.map_err(|failure| what(format!("{failure:?}")))?;
                    let nan = outputs
                        .loss
                        .iter()
                        .chain(&outputs.grad)
                        .all(|(buffer, view)| buffer.values(view).iter().any(|value| value.is_nan()));
                    let ignored = case.name.contains("of-ignored");
                    let counted = matches!(&step.action, Action::Backward { .. }) || counters[1] > 0;
                    let right = match how {
                        Deferred::Target => counted,
                        Deferred::Weight => nan != ignored,
                        _ => counters[0] > 0,
                    };
                    if !right {
                        return Err(what(format!("{how:?} is not to be seen: {counters:?} {:?}", outputs.loss)));
                    }
                    // Unlike on the CPU, the other samples of the batch have been counted, so later steps differ.
                    return Ok(());
                }
            }
            continue;
        }
        result.map_err(|failure| what(format!("{failure:?}")))?;
        let report = match criterion.report() {
            Ok(report) => {
                if told_later && !matches!(step.action, Action::NextEpoch {}) && report.epoch == 0 {
                    return Err(what("the report has forgotten the batch that could not be taken back".into()));
                }
                Some(report.into())
            }
            Err(_) if told_later => None,
            Err(failure) => return Err(what(format!("{failure:?}"))),
        };
        let mut expect = step.expect.clone();
        if report.is_none() {
            expect.report = None;
        }
        runner::check(&expect, &outputs, report.unwrap_or_default(), criterion.epoch(), || criterion.state(standin)).map_err(what)?;
    }
    Ok(())
}

fn run_all(name: &str) {
    let standin = Standin::new();
    let text = std::fs::read_to_string(root().join(format!("tests/vectors/{name}.json"))).unwrap();
    let file: File = serde_json::from_str(&text).unwrap();
    let mut failures = Vec::new();
    for (number, case) in file.cases.iter().enumerate() {
        // Shuffle threads and blocks differently each time.
        standin.set("seed", number as i64);
        if let Err(error) = run(&standin, case) {
            failures.push(format!("{name}/{}: {error}", case.name));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases fail:\n{}", failures.len(), file.cases.len(), failures.join("\n"));
    assert!(!file.cases.is_empty());
}

macro_rules! run_files {
    ($($test:ident $name:literal),+ $(,)?) => { $(
        #[test]
        fn $test() {
            run_all($name);
        }
    )+ };
}
run_files!(
    cuda_conformance_sizes "sizes",
    cuda_conformance_options "options",
    cuda_conformance_weights "weights",
    cuda_conformance_targets "targets",
    cuda_conformance_special "special",
    cuda_conformance_layouts "layouts",
    cuda_conformance_epochs "epochs",
    cuda_conformance_errors "errors",
);
