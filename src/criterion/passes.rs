//! Passes over a batch, on the device of the criterion: the batch is checked, then handed to the kernels.
#![allow(unsafe_code, reason = "views are promises about memory; they are handed to the kernels here")]

use super::Criterion;
use crate::batch::{RawBatch, Update};
use crate::cpu::{self, DefaultFloatEnvironment, Pass, Statistics};
use crate::cuda;
use crate::error::{Result, fail};
use crate::options::{Mode, Reduction};
use crate::samples::Samples;
use crate::state::{Matrix, State};
use crate::tensor::RawTensor;

impl Criterion {
    /// # Safety
    /// Every tensor describes memory that can be read for the length of the call, `loss` and `grad` memory that can be written and that nobody
    /// else uses meanwhile. (What descriptions alone can show to be wrong is an error.)
    pub(crate) unsafe fn forward_raw(&mut self, batch: &RawBatch, loss: Option<RawTensor>, grad: Option<RawTensor>) -> Result<()> {
        let samples = Samples::new(&self.options, &self.state, batch, loss.as_ref(), grad.as_ref())?;
        let in_place = grad.is_some_and(|grad| grad.overlaps(&batch.logits));
        if batch.update == Update::TakeBack && in_place {
            fail!(InvalidArgument, "grad takes the place of the logits, but taking back reads them twice");
        }
        if let Some(cuda) = &self.cuda {
            let outputs = [("loss", loss), ("grad", grad)];
            // SAFETY: the caller's promise.
            return unsafe { cuda.run(&self.options, &self.state, self.options.mode, &samples, batch, &outputs, cuda::Call::Forward) };
        }
        // SAFETY: the caller's promise.
        unsafe { self.run(&samples, batch.update) }
    }

    /// # Safety
    /// As [`forward_raw`](Self::forward_raw).
    pub(crate) unsafe fn backward_raw(&mut self, batch: &RawBatch, grad: RawTensor) -> Result<()> {
        if batch.update == Update::TakeBack {
            fail!(InvalidArgument, "flags: taking back belongs to a forward pass; backward touches no state");
        }
        let samples = Samples::new(&self.options, &self.state, batch, None, Some(&grad))?;
        if let Some(cuda) = &self.cuda {
            let outputs = [("grad", Some(grad))];
            // SAFETY: the caller's promise.
            return unsafe { cuda.run(&self.options, &self.state, self.options.mode, &samples, batch, &outputs, cuda::Call::Backward) };
        }
        // SAFETY: the caller's promise.
        unsafe { self.run(&samples, Update::None) }
    }

    /// # Safety
    /// As [`forward_raw`](Self::forward_raw).
    pub(crate) unsafe fn accumulate_raw(&mut self, batch: &RawBatch) -> Result<()> {
        let samples = Samples::new(&self.options, &self.state, batch, None, None)?;
        if let Some(cuda) = &self.cuda {
            // SAFETY: the caller's promise.
            return unsafe { cuda.run(&self.options, &self.state, self.options.mode, &samples, batch, &[], cuda::Call::Accumulate) };
        }
        let _environment = DefaultFloatEnvironment::enter();
        // SAFETY: the caller's promise.
        unsafe { samples.validate(None)? };
        if batch.update == Update::TakeBack {
            // SAFETY: as above.
            let tallied = unsafe { cpu::accumulate(&samples, &mut Statistics::Tally(&mut self.tally)) };
            finish_tally(&mut self.tally, self.state.counts.row(0), tallied)?;
        }
        let mut statistics = statistics(&mut self.state, self.options.mode, batch.update).1;
        // SAFETY: as above.
        unsafe { cpu::accumulate(&samples, &mut statistics) }
    }

    /// # Safety
    /// The tensors behind `samples` can be read, loss and gradient can be written and are used by nobody else.
    unsafe fn run(&mut self, samples: &Samples, update: Update) -> Result<()> {
        let weights = self.options.class_weights.as_deref();
        let _environment = DefaultFloatEnvironment::enter();
        // SAFETY: the caller's promise.
        let divisor = unsafe { samples.validate(weights)? };
        let divisor = if self.options.reduction == Reduction::Mean { divisor } else { 1.0 };
        let each = self.options.reduction == Reduction::None;
        let (alpha, level, threads) = (self.options.alpha, self.level, self.threads());
        if update == Update::TakeBack {
            // First how many samples of each class that is, so that nothing is touched if it cannot be.
            let silent = samples.without_outputs();
            let soft_labels = self.state.soft_labels.view();
            let pass = Pass { samples: &silent, soft_labels, alpha, class_weights: weights, divisor, each, level, threads };
            // SAFETY: as above; the batch was validated.
            let tallied = unsafe { cpu::run(&pass, &mut self.scratch, &mut Statistics::Tally(&mut self.tally)) };
            finish_tally(&mut self.tally, self.state.counts.row(0), tallied)?;
        }
        let (soft_labels, mut statistics) = statistics(&mut self.state, self.options.mode, update);
        if samples.loss.is_some() || samples.grad.is_some() || !matches!(statistics, Statistics::Leave) {
            let pass = Pass { samples, soft_labels: soft_labels.view(), alpha, class_weights: weights, divisor, each, level, threads };
            // SAFETY: as above; the batch was validated.
            unsafe { cpu::run(&pass, &mut self.scratch, &mut statistics)? };
        }
        Ok(())
    }
}

/// S to read, and what a pass in `mode` does to the statistics.
fn statistics(state: &mut State, mode: Mode, update: Update) -> (&Matrix<f32>, Statistics<'_>) {
    let State { soft_labels, sums, counts, counters, .. } = state;
    let statistics = match (update, mode) {
        (Update::TakeBack, _) => Statistics::Apply { sums, counts, counters, negate: true },
        (Update::Add, Mode::Train) => Statistics::Apply { sums, counts, counters, negate: false },
        (Update::Add, Mode::Eval) | (Update::None, _) => Statistics::Leave,
    };
    (soft_labels, statistics)
}

/// Checks that no class has fewer samples than are to be taken back, and clears the tally.
fn finish_tally(tally: &mut [i64], counts: &[i64], tallied: Result<()>) -> Result<()> {
    let short = tally.iter().zip(counts).enumerate().find(|(_, (wanted, there))| wanted > there);
    let short = short.map(|(class, (&wanted, &there))| (class, wanted, there));
    tally.fill(0);
    tallied?;
    if let Some((class, wanted, there)) = short {
        fail!(InvalidState, "take back: the batch has {wanted} samples of class {class} to take back, but only {there} were accumulated");
    }
    Ok(())
}
