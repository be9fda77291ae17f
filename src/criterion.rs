//! The criterion: options, state, and what can be done with them.
#![allow(unsafe_code, reason = "views are promises about memory; they are handed to the kernels here")]

use std::ffi::c_void;
use std::path::Path;

use crate::batch::{Batch, RawBatch, Update};
use crate::checkpoint;
use crate::cpu::{self, DefaultFloatEnvironment, Level, Pass, Scratch, Statistics};
use crate::cuda;
use crate::error::{Result, fail};
use crate::options::{Mode, Options, Reduction, validate_alpha, validate_soft_labels};
use crate::samples::Samples;
use crate::soft_labels;
use crate::state::{State, StateMemory, is_soft_label_dtype, try_vec};
use crate::statistics::Report;
use crate::tensor::{DType, Device, DeviceKind, Logit, RawTensor, Target, TensorMut, TensorRef};

/// The Online Label Smoothing loss with the soft labels that it learns.
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
#[derive(Debug)]
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
            let options = options.try_clone()?;
            // SAFETY: the caller's promise.
            let (backend, state) = unsafe { cuda::Backend::new(&options, memory)? };
            let (level, cuda) = (Level::detect()?, Some(Box::new(backend)));
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
    /// (Zhang et al. 2021, equations 3 to 6). `loss` is f32 (f64 for f64 logits): one value, or one per sample with [`Reduction::None`].
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
    /// [`Update`] as a forward pass does; a row with NaN or an infinity is skipped and counted.
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
        self.end_epoch(std::ptr::null_mut())?;
        Ok(self.reports(std::ptr::null_mut())?.0)
    }

    /// As [`next_epoch`](Self::next_epoch); on a CUDA device enqueued on `stream`, without waiting.
    pub(crate) fn end_epoch(&mut self, stream: *mut c_void) -> Result<()> {
        let Some(epoch) = self.epoch.checked_add(1) else { fail!(InvalidState, "epoch = {} is the last one", self.epoch) };
        if let Some(cuda) = &self.cuda {
            cuda.next_epoch(&self.options, &self.state, self.epoch, stream)?;
        } else {
            let _environment = DefaultFloatEnvironment::enter();
            self.finished = soft_labels::next_epoch(&self.options, &mut self.state, self.epoch);
        }
        self.epoch = epoch;
        Ok(())
    }

    /// The reports of the last epoch that ended and of the running one. On a CUDA device they are fetched and waited for.
    pub(crate) fn reports(&self, stream: *mut c_void) -> Result<(Report, Report)> {
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

    /// The soft label of `class`: K numbers.
    ///
    /// # Panics
    /// If `class` is not a class, or if the criterion is on a CUDA device.
    pub fn soft_label(&self, class: usize) -> &[f32] {
        self.state.soft_labels.row(class)
    }

    /// Replaces the soft labels: K x K numbers, row-major, a row per class, finite and not negative.
    ///
    /// # Errors
    /// Another number of elements, or one that is negative or not finite. The soft labels are as before then.
    pub fn set_soft_labels(&mut self, soft_labels: &[f32]) -> Result<()> {
        let classes = self.options.classes;
        // SAFETY: the view borrows what it describes.
        unsafe { self.set_soft_labels_raw(TensorRef::new(soft_labels, &[classes, classes])?.raw, std::ptr::null_mut()) }
    }

    /// The summed probabilities of `class` in the running epoch, in units of 2^-30: K numbers.
    ///
    /// # Panics
    /// If `class` is not a class, or if the criterion is on a CUDA device.
    pub fn sums(&self, class: usize) -> &[i64] {
        self.state.sums.row(class)
    }

    /// The samples of each class that were accumulated in the running epoch.
    ///
    /// # Panics
    /// If the criterion is on a CUDA device.
    pub fn counts(&self) -> &[i64] {
        self.state.counts.row(0)
    }

    /// The counters of the running epoch; see [`Counter`](crate::Counter).
    ///
    /// # Panics
    /// If the criterion is on a CUDA device.
    pub fn counters(&self) -> &[i64] {
        self.state.counters.row(0)
    }

    /// Adds the statistics of another worker to those of this one, exactly, so that workers that share an epoch's samples learn the same soft
    /// labels, bit for bit, as one that saw them all.
    ///
    /// # Errors
    /// Another number of classes; a criterion on a CUDA device; a sum that does not fit 64 bits, as that of two full classes may be. Nothing is added then.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.options.classes != other.options.classes {
            fail!(InvalidArgument, "num_classes = {} differs from the other's {}", self.options.classes, other.options.classes);
        }
        if self.cuda.is_some() || other.cuda.is_some() {
            fail!(Unsupported, "statistics on a CUDA device are merged there, by an all-reduce of their memory");
        }
        let pairs = [
            ("sums", &mut self.state.sums, &other.state.sums),
            ("counts", &mut self.state.counts, &other.state.counts),
            ("counters", &mut self.state.counters, &other.state.counters),
        ];
        for (name, own, others) in &pairs {
            for row in 0..own.rows() {
                let fits = |(own, other): (&i64, &i64)| own.checked_add(*other).is_some();
                if let Some(column) = own.row(row).iter().zip(others.row(row)).position(|pair| !fits(pair)) {
                    let (own, other) = (own.row(row)[column], others.row(row)[column]);
                    fail!(InvalidState, "{name}[{row}, {column}] = {own} + {other} does not fit 64 bits");
                }
            }
        }
        for (_, own, others) in pairs {
            for row in 0..own.rows() {
                own.row_mut(row).iter_mut().zip(others.row(row)).for_each(|(own, other)| *own += *other);
            }
        }
        Ok(())
    }

    /// Descriptions of S, A, c and the counters, in this order, to read and to write.
    pub(crate) fn state_views(&mut self) -> [RawTensor; 4] {
        let state = &mut self.state;
        [state.soft_labels.as_raw_mut(), state.sums.as_raw_mut(), state.counts.as_raw_mut(), state.counters.as_raw_mut()]
    }

    /// Writes state, epoch and the options that shape the result to a file in the safetensors format; atomically: whatever happens, the name
    /// stands for the old file or for the whole new one.
    ///
    /// # Errors
    /// What the system says of the file; no memory for its bytes. The old file is as it was then.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_on(path.as_ref(), std::ptr::null_mut())
    }

    /// As [`save`](Self::save), waiting for `stream` on a CUDA device.
    pub(crate) fn save_on(&self, path: &Path, stream: *mut c_void) -> Result<()> {
        self.with_host_state(stream, |state| checkpoint::save(&self.options, state, self.epoch, path))
    }

    /// Runs `body` on the state in host memory: its own, or a copy from the device.
    fn with_host_state<R>(&self, stream: *mut c_void, body: impl FnOnce(&State) -> Result<R>) -> Result<R> {
        match &self.cuda {
            Some(cuda) => body(&cuda.download(&self.state, stream)?),
            None => body(&self.state),
        }
    }

    /// Reads what [`save`](Self::save) wrote. Mode, reduction, device and threads stay; everything else becomes as it was saved.
    ///
    /// # Errors
    /// A file that cannot be read, is truncated, corrupted or foreign, or has another number of classes. The criterion is as before then.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.load_on(path.as_ref(), std::ptr::null_mut())
    }

    /// As [`load`](Self::load), on `stream` on a CUDA device.
    pub(crate) fn load_on(&mut self, path: &Path, stream: *mut c_void) -> Result<()> {
        let bytes = checkpoint::read(path)?;
        self.load_bytes_on(&bytes, stream).map_err(|error| crate::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// The bytes that [`save`](Self::save) writes.
    ///
    /// # Errors
    /// No memory for the bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.to_bytes_on(std::ptr::null_mut())
    }

    /// As [`to_bytes`](Self::to_bytes), waiting for `stream` on a CUDA device.
    pub(crate) fn to_bytes_on(&self, stream: *mut c_void) -> Result<Vec<u8>> {
        self.with_host_state(stream, |state| checkpoint::to_bytes(&self.options, state, self.epoch))
    }

    /// As [`load`](Self::load), from the bytes of a file.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.load_bytes_on(bytes, std::ptr::null_mut())
    }

    /// As [`load_bytes`](Self::load_bytes), on `stream` on a CUDA device.
    pub(crate) fn load_bytes_on(&mut self, bytes: &[u8], stream: *mut c_void) -> Result<()> {
        let loaded = checkpoint::parse(bytes, &self.options)?;
        if let Some(cuda) = &mut self.cuda {
            // SAFETY: no memory of the caller's is named.
            let mut copy = unsafe { State::new(self.options.classes, &StateMemory::default())? };
            loaded.write_to(&mut copy);
            cuda.load(&loaded.options, &copy, &self.state, stream)?;
        } else {
            loaded.write_to(&mut self.state);
        }
        self.epoch = loaded.epoch;
        self.finished = Report::default();
        self.options = loaded.options;
        Ok(())
    }

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

    /// # Safety
    /// `matrix` describes memory that can be read.
    pub(crate) unsafe fn set_soft_labels_raw(&mut self, matrix: RawTensor, stream: *mut c_void) -> Result<()> {
        const NAME: &str = "soft_labels";
        let classes = self.options.classes;
        check_matrix(NAME, &matrix, classes, self.options.device)?;
        if self.state.soft_labels.as_raw().overlaps(&matrix) {
            fail!(InvalidArgument, "{NAME} overlaps the criterion's state");
        }
        if let Some(cuda) = &self.cuda {
            // SAFETY: the caller's promise.
            return unsafe { cuda.set_soft_labels(&self.state, &matrix, stream) };
        }
        let _environment = DefaultFloatEnvironment::enter();
        // SAFETY: the caller's promise.
        let read = unsafe { read_matrix(NAME, &matrix, classes, self.options.device)? };
        validate_soft_labels(NAME, classes, (0..classes * classes).map(|index| f64::from(read(index))))?;
        for class in 0..classes {
            let row = self.state.soft_labels.row_mut(class);
            row.iter_mut().enumerate().for_each(|(k, to)| *to = read(class * classes + k));
        }
        Ok(())
    }
}

/// S to read, and what a pass in `mode` does to the statistics.
fn statistics(state: &mut State, mode: Mode, update: Update) -> (&crate::state::Matrix<f32>, Statistics<'_>) {
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

/// Checks the description of a (K, K) matrix of f32 or f64.
fn check_matrix(name: &str, matrix: &RawTensor, classes: usize, device: Device) -> Result<()> {
    if !is_soft_label_dtype(matrix.dtype) {
        fail!(InvalidDtype, "{name}.dtype = {} is not one of f32, f64", matrix.dtype);
    }
    if matrix.device != device {
        fail!(InvalidDevice, "{name}.device = {}, but the criterion is on {device}", matrix.device);
    }
    matrix.check_shape(name, &[classes as i64, classes as i64], "(num_classes, num_classes)")?;
    matrix.check(name).map(|_| ())
}

/// Checks a (K, K) matrix of f32 or f64 and gives its entries, in row-major order, as f32.
///
/// # Safety
/// `matrix` describes memory that can be read for as long as the result is used.
pub(crate) unsafe fn read_matrix(name: &str, matrix: &RawTensor, classes: usize, device: Device) -> Result<impl Fn(usize) -> f32 + use<>> {
    check_matrix(name, matrix, classes, device)?;
    let matrix = *matrix;
    Ok(move |index: usize| {
        let (row, column) = ((index / classes) as i64, (index % classes) as i64);
        let offset = row * matrix.strides[0] + column * matrix.strides[1];
        let address = matrix.data.wrapping_offset((offset * matrix.dtype.size() as i64) as isize);
        // SAFETY: the caller's promise; `check` found the address aligned and the strides in range.
        unsafe { if matrix.dtype == DType::F64 { address.cast::<f64>().read() as f32 } else { address.cast::<f32>().read() } }
    })
}
