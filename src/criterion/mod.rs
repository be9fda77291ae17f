//! The criterion: options, state, and what can be done with them.
//!
//! This file has its life, its settings, passes over a batch as the Rust API offers them, and the ends of epochs; the files beside it what the two faces
//! share.
#![allow(unsafe_code, reason = "views are promises about memory; they are handed to the kernels here")]

mod matrix;
mod passes;
mod persistence;
mod state;

pub(crate) use matrix::read_matrix;
pub use state::StatisticsMut;

use std::fmt;

use crate::batch::Batch;
use crate::cpu::{DefaultFloatEnvironment, Level, Scratch};
use crate::cuda;
use crate::error::{Result, fail};
use crate::options::{Mode, Options, validate_alpha};
use crate::soft_labels;
use crate::state::{State, StateMemory, try_vec};
use crate::statistics::Report;
use crate::stream::CudaStream;
use crate::tensor::{Device, DeviceKind, Logit, RawTensor, Target, TensorMut, TensorRef};

/// The Online Label Smoothing loss with the soft labels that it learns.
///
/// It may go from thread to thread, as may views and batches. Calls that compute or change something borrow it exclusively; on the CPU they share out their
/// work to threads of their own ([`Options::threads`]), whose number changes no bit of a result.
///
/// ```
/// use ols::{Criterion, Options};
/// # fn main() -> ols::Result<()> {
/// let mut criterion = Criterion::new(&Options::new(3).alpha(0.5))?;
/// let logits = [2.0f32, 0.1, -1.0, 0.3, 0.2, 0.1]; // 2 samples, 3 classes
/// let mut gradient = [0f32; 6];
/// let loss = criterion.loss_and_gradient(&logits, &[0u8, 2], &mut gradient)?;
/// assert!(loss > 0.0);
/// let report = criterion.next_epoch()?; // once an epoch
/// assert_eq!((report.samples_accumulated, report.rows_measured), (1, 1));
/// assert!(criterion.soft_label(0)[0] > 0.7); // class 0 was measured
/// # Ok(())
/// # }
/// ```
pub struct Criterion {
    options: Options,
    state: State,
    epoch: i64,
    finished: Report,
    level: Level,
    /// Those that the process may run on, as they were at creation.
    processors: usize,
    scratch: Scratch,
    /// Samples per class of a batch that is to be taken back.
    tally: Vec<i64>,
    /// There on a CUDA device, and then `state` describes memory of that device.
    cuda: Option<Box<cuda::Backend>>,
}

impl fmt::Debug for Criterion {
    /// Without its K x K numbers, which may be those of a device.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Criterion").field("options", &self.options).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Criterion {
    /// Creates a criterion with the soft labels of the first epoch and empty statistics.
    ///
    /// # Errors
    /// An option that breaks its rule; a device that this build cannot use; K x K numbers that cannot be allocated.
    pub fn new(options: &Options) -> Result<Self> {
        // SAFETY: no memory of the caller's is named.
        unsafe { Self::with_memory(options, &StateMemory::default()) }
    }

    /// Creates a criterion whose state lives in memory of the caller's, where `memory` names some.
    ///
    /// # Safety
    /// What `memory` names can be read and written, by nobody else while a call on the criterion runs, until the criterion is dropped.
    pub(crate) unsafe fn with_memory(options: &Options, memory: &StateMemory) -> Result<Self> {
        options.validate()?;
        if options.device.kind == DeviceKind::Cuda {
            let (options, level) = (options.try_clone()?, Level::detect()?);
            // Last, since it writes to the caller's memory.
            // SAFETY: the caller's promise.
            let (backend, state) = unsafe { cuda::Backend::new(&options, memory)? };
            let cuda = Some(Box::new(backend));
            let (finished, scratch, tally) = (Report::default(), Scratch::default(), Vec::new());
            return Ok(Self { options, state, epoch: 0, finished, level, processors: 1, scratch, tally, cuda });
        }
        if options.device != Device::CPU {
            fail!(InvalidDevice, "device_id = {} is not 0, the only CPU", options.device.id);
        }
        let _environment = DefaultFloatEnvironment::enter();
        let level = Level::detect()?;
        let options = options.try_clone()?;
        // K x K numbers before the K that are filled at once: the error comes quickly where the former cannot be had.
        // SAFETY: the caller's promise.
        let mut state = unsafe { State::new(options.classes, memory)? };
        let tally = try_vec("tally", options.classes)?;
        // Nothing can fail from here on, so the caller's memory is written to.
        let given = |tensor: &Option<RawTensor>| tensor.is_some() && memory.adopt;
        if !given(&memory.soft_labels) {
            soft_labels::fill_initial(&options.initial, &mut state.soft_labels);
        }
        // Memory of the criterion's own is zero already; writing it would make it resident.
        if memory.sums.is_some() && !memory.adopt {
            state.sums.fill(0);
        }
        if memory.counts.is_some() && !memory.adopt {
            state.counts.fill(0);
        }
        if memory.counters.is_some() && !memory.adopt {
            state.counters.fill(0);
        }
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            options,
            state,
            epoch: 0,
            finished: Report::default(),
            level,
            processors,
            scratch: Scratch::default(),
            tally,
            cuda: None,
        })
    }

    /// The same criterion at another level of the instruction set.
    #[cfg(test)]
    pub(crate) fn at_level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// The most threads that a call may use.
    fn threads(&self) -> usize {
        match self.options.threads {
            0 => self.processors,
            threads => threads,
        }
    }

    /// The options as they are now: with the mode and alpha that were set last, and what [`load`](Self::load) replaced.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.options.mode
    }

    /// Sets the mode: whether forward passes add to the statistics.
    pub fn set_mode(&mut self, mode: Mode) {
        self.options.mode = mode;
    }

    /// Sets the weight of the hard label, in [0, 1]: schedules.
    ///
    /// # Errors
    /// Outside [0, 1], or NaN; alpha is as before then.
    pub fn set_alpha(&mut self, alpha: f64) -> Result<()> {
        validate_alpha(alpha)?;
        self.options.alpha = alpha;
        Ok(())
    }

    /// Number of epochs that have ended.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Sets the number of epochs that have ended, for those who restore a state themselves.
    ///
    /// # Errors
    /// The largest number there is, or a negative one; the number is as before then.
    pub fn set_epoch(&mut self, epoch: i64) -> Result<()> {
        if !(0..i64::MAX).contains(&epoch) {
            fail!(InvalidArgument, "epoch = {epoch} is outside [0, {})", i64::MAX);
        }
        self.epoch = epoch;
        Ok(())
    }

    /// Loss, gradient with respect to the logits, and, in training mode, statistics of a batch, in one pass over the logits.
    ///
    /// With `q = alpha*w[y]*onehot(y) + (1 - alpha)*w*S[y]` the loss of a sample is `-sum_k q_k log p_k` and its gradient `(sum q) p - q`
    /// (Zhang et al. 2021, equations 3 to 6). `loss` is f32 (f64 for f64 logits): one value, or one per sample with [`Reduction::None`](crate::Reduction::None).
    /// `grad` has the logits' shape and dtype. Both may be left out. What is left out costs nothing.
    ///
    /// # Errors
    /// Shapes, dtypes or values that break their rule. Nothing is written and no state is changed then.
    pub fn forward(&mut self, batch: &Batch<'_>, loss: Option<TensorMut<'_>>, grad: Option<TensorMut<'_>>) -> Result<()> {
        // SAFETY: the views borrow all that they describe.
        unsafe { self.forward_raw(&batch.raw, loss.map(|loss| loss.raw), grad.map(|grad| grad.raw)) }
    }

    /// As [`forward`](Self::forward), with the gradient in place of the logits.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_in_place(&mut self, batch: Batch<'_, TensorMut<'_>>, loss: Option<TensorMut<'_>>) -> Result<()> {
        // SAFETY: the views borrow all that they describe, the logits exclusively.
        unsafe { self.forward_raw(&batch.raw, loss.map(|loss| loss.raw), Some(batch.raw.logits)) }
    }

    /// The gradient alone, recomputed from the logits: bit for bit what [`forward`](Self::forward) gives. Touches no state.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward(&mut self, batch: &Batch<'_>, grad: TensorMut<'_>) -> Result<()> {
        // SAFETY: the views borrow all that they describe.
        unsafe { self.backward_raw(&batch.raw, grad.raw) }
    }

    /// Loss and gradient of row-major logits (N, K), for the reductions `Mean` and `Sum`: [`forward`](Self::forward) for the usual case.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); slices whose lengths do not fit each other.
    pub fn loss_and_gradient<L: Logit, T: Target>(&mut self, logits: &[L], targets: &[T], gradient: &mut [L]) -> Result<L::Loss> {
        let shape = [targets.len(), self.options.classes];
        if logits.len() != shape[0] * shape[1] || gradient.len() != logits.len() {
            let (samples, classes) = (shape[0], shape[1]);
            let (logits, gradient) = (logits.len(), gradient.len());
            fail!(
                InvalidShape,
                "logits has {logits} elements and gradient {gradient}, but {samples} targets of {classes} classes need {}",
                samples * classes
            );
        }
        let batch = Batch::new(TensorRef::new(logits, &shape)?, targets.into());
        let mut loss = L::Loss::default();
        self.forward(&batch, Some(TensorMut::scalar(&mut loss)), Some(TensorMut::new(gradient, &shape)?))?;
        Ok(loss)
    }

    /// Statistics from given probabilities, which `batch` has in the place of its logits; entries in [0, 1]. Obeys mode and
    /// [`Update`](crate::Update) as a forward pass does; a row with NaN or an infinity is skipped and counted.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); an entry outside [0, 1].
    pub fn accumulate(&mut self, batch: &Batch<'_>) -> Result<()> {
        // SAFETY: the views borrow all that they describe.
        unsafe { self.accumulate_raw(&batch.raw) }
    }

    /// Ends the epoch: makes the soft labels of the next one from the statistics, which begin anew (Zhang et al. 2021, equations 4 and 5).
    ///
    /// Where nothing at all was accumulated the soft labels stay as they are.
    ///
    /// On a CUDA device the work is enqueued on the legacy stream and waited for.
    ///
    /// # Errors
    /// No epoch is left to count; what CUDA reports. Nothing has changed then.
    pub fn next_epoch(&mut self) -> Result<Report> {
        self.next_epoch_on(CudaStream::LEGACY)?;
        Ok(self.reports_on(CudaStream::LEGACY)?.0)
    }

    /// As [`next_epoch`](Self::next_epoch), but on a CUDA device enqueued on `stream` and not waited for; [`reports_on`](Self::reports_on) tells what
    /// happened.
    ///
    /// # Errors
    /// As [`next_epoch`](Self::next_epoch).
    pub fn next_epoch_on(&mut self, stream: CudaStream) -> Result<()> {
        // The numbers that `set_epoch` and a saved state may have.
        let Some(epoch) = self.epoch.checked_add(1).filter(|&epoch| epoch < i64::MAX) else {
            fail!(InvalidState, "epoch = {} is the last one", self.epoch)
        };
        if let Some(cuda) = &self.cuda {
            cuda.next_epoch(&self.options, &self.state, self.epoch, stream)?;
        } else {
            let _environment = DefaultFloatEnvironment::enter();
            self.finished = soft_labels::next_epoch(&self.options, &mut self.state, self.epoch);
        }
        self.epoch = epoch;
        Ok(())
    }

    /// The reports of the last epoch that ended and of the running one, of which the `rows_` are 0. On a CUDA device they are fetched, behind the work
    /// on `stream`, and waited for.
    ///
    /// # Errors
    /// What CUDA reports; soft labels, or a batch to be taken back, that the device refused.
    pub fn reports_on(&self, stream: CudaStream) -> Result<(Report, Report)> {
        match &self.cuda {
            Some(cuda) => cuda.reports(&self.state, self.epoch, stream),
            None => Ok((self.finished, self.running())),
        }
    }

    /// The report of the last [`next_epoch`](Self::next_epoch); all 0 before the first, and on a CUDA device always.
    pub fn report(&self) -> Report {
        self.finished
    }

    /// What the running epoch has counted so far; the `rows_` are 0.
    ///
    /// # Panics
    /// If the criterion is on a CUDA device.
    pub fn running(&self) -> Report {
        soft_labels::running_report(self.state.counts.row(0), self.state.counters.row(0), self.epoch)
    }
}
