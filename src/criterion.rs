//! The criterion: options, state, and what can be done with them.
#![allow(unsafe_code, reason = "views are promises about memory; they are handed to the kernels here")]

use std::path::Path;

use crate::batch::{Batch, RawBatch};
use crate::error::Result;
use crate::options::{Mode, Options};
use crate::state::{Matrix, State, StateMemory};
use crate::statistics::Report;
use crate::tensor::{Logit, RawTensor, Target, TensorMut};

/// The Online Label Smoothing loss with the soft labels that it learns.
#[derive(Debug)]
pub struct Criterion {
    options: Options,
    state: State,
    mode: Mode,
    epoch: i64,
    finished: Report,
}

impl Criterion {
    /// Creates a criterion.
    pub fn new(options: &Options) -> Result<Self> {
        Self::with_memory(options, StateMemory::default())
    }

    /// Creates a criterion whose state lives in memory of the caller's, where `memory` names some.
    pub(crate) fn with_memory(options: &Options, memory: StateMemory) -> Result<Self> {
        let _ = (options, memory);
        todo!()
    }

    /// The options; `alpha` as it is now.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Sets the mode.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// Sets the weight of the hard label.
    pub fn set_alpha(&mut self, alpha: f64) -> Result<()> {
        let _ = alpha;
        todo!()
    }

    /// Number of epochs that have ended.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Sets the number of epochs that have ended.
    pub fn set_epoch(&mut self, epoch: i64) -> Result<()> {
        let _ = epoch;
        todo!()
    }

    /// Loss, gradient and statistics of a batch in one pass.
    pub fn forward(&mut self, batch: &Batch<'_>, loss: Option<TensorMut<'_>>, grad: Option<TensorMut<'_>>) -> Result<()> {
        // SAFETY: the views borrow all that they describe.
        unsafe { self.forward_raw(&batch.raw, loss.map(|loss| loss.raw), grad.map(|grad| grad.raw)) }
    }

    /// As [`forward`](Self::forward), with the gradient in place of the logits.
    pub fn forward_in_place(&mut self, batch: Batch<'_, TensorMut<'_>>, loss: Option<TensorMut<'_>>) -> Result<()> {
        // SAFETY: the views borrow all that they describe; the logits exclusively.
        unsafe { self.forward_raw(&batch.raw, loss.map(|loss| loss.raw), Some(batch.raw.logits)) }
    }

    /// The gradient alone; touches no state.
    pub fn backward(&mut self, batch: &Batch<'_>, grad: TensorMut<'_>) -> Result<()> {
        // SAFETY: the views borrow all that they describe.
        unsafe { self.backward_raw(&batch.raw, grad.raw) }
    }

    /// Loss and gradient of row-major logits (N, K), for the reductions `Mean` and `Sum`.
    pub fn loss_and_gradient<L: Logit, T: Target>(&mut self, logits: &[L], targets: &[T], gradient: &mut [L]) -> Result<L::Loss> {
        let _ = (logits, targets, gradient);
        todo!()
    }

    /// Statistics from given probabilities: `batch.logits` are probabilities in [0, 1].
    pub fn accumulate(&mut self, batch: &Batch<'_>) -> Result<()> {
        // SAFETY: the views borrow all that they describe.
        unsafe { self.accumulate_raw(&batch.raw) }
    }

    /// Ends the epoch: new soft labels from the statistics, which begin anew.
    pub fn next_epoch(&mut self) -> Result<Report> {
        todo!()
    }

    /// The report of the last [`next_epoch`](Self::next_epoch); all 0 before the first.
    pub fn report(&self) -> Report {
        self.finished
    }

    /// What the running epoch has counted so far; the `rows_` are 0.
    pub fn running(&self) -> Report {
        todo!()
    }

    /// The soft label of `class`: K numbers.
    pub fn soft_label(&self, class: usize) -> &[f32] {
        self.state.soft_labels.row(class)
    }

    /// Replaces the soft labels: K x K, row-major, finite and not negative.
    pub fn set_soft_labels(&mut self, soft_labels: &[f32]) -> Result<()> {
        let _ = soft_labels;
        todo!()
    }

    /// The state: S, A, c and the counters.
    pub(crate) fn state(&mut self) -> &mut State {
        &mut self.state
    }

    /// The initial soft labels, where they were given as a matrix.
    pub(crate) fn initial(&self) -> Option<&Matrix<f32>> {
        todo!()
    }

    /// Writes the state to a file, atomically.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let _ = path;
        todo!()
    }

    /// Reads the state from a file.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let _ = path;
        todo!()
    }

    /// The bytes that [`save`](Self::save) writes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        todo!()
    }

    /// Reads the state from the bytes of a file.
    pub fn load_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let _ = bytes;
        todo!()
    }

    /// # Safety
    /// Every tensor describes memory that can be read for the length of the call, `loss` and `grad` memory that can be written and that nobody
    /// else uses meanwhile.
    pub(crate) unsafe fn forward_raw(&mut self, batch: &RawBatch, loss: Option<RawTensor>, grad: Option<RawTensor>) -> Result<()> {
        let _ = (batch, loss, grad);
        todo!()
    }

    /// # Safety
    /// As [`forward_raw`](Self::forward_raw).
    pub(crate) unsafe fn backward_raw(&mut self, batch: &RawBatch, grad: RawTensor) -> Result<()> {
        let _ = (batch, grad);
        todo!()
    }

    /// # Safety
    /// As [`forward_raw`](Self::forward_raw).
    pub(crate) unsafe fn accumulate_raw(&mut self, batch: &RawBatch) -> Result<()> {
        let _ = batch;
        todo!()
    }

    /// # Safety
    /// As [`forward_raw`](Self::forward_raw).
    pub(crate) unsafe fn set_soft_labels_raw(&mut self, matrix: RawTensor) -> Result<()> {
        let _ = matrix;
        todo!()
    }
}
