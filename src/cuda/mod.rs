//! The CUDA backend: state and scratch memory on a device, and kernels enqueued on the caller's stream.
//!
//! Passes and the end of an epoch neither allocate nor synchronise. Memory that a captured graph refers to stays at
//! the same address until the criterion is dropped. Calls preserve the caller's current context, and use no stream
//! but the caller's, except that creating a criterion uses the thread's default stream.
#![allow(unsafe_code, reason = "the driver is a C library, and device memory has no type")]

mod arguments;
mod driver;
mod epoch;
mod images;
mod pass;
mod state;
mod variants;

#[doc(hidden)]
pub use arguments::layout;
pub(crate) use driver::check_host_memory;
pub(crate) use pass::Call;

use std::mem::offset_of;
use std::sync::Arc;

use arguments::{REPORT_LENGTH, Scratch};
use driver::{Current, Device, DeviceMemory, RelaxedCapture, Stream};
use variants::{Module, Path};

use crate::error::Result;
use crate::options::{Initial, Options, scale_of_weights};
use crate::state::{State, StateMemory, try_vec};

/// The names of the kernels in each module of `cuda/compiled`, for tests.
#[doc(hidden)]
pub fn kernel_names() -> [(&'static str, Vec<String>); 2] {
    [("ols", Module::Ols), ("hopper", Module::Hopper)]
        .map(|(file, module)| (file, variants::kernels(module).map(|listed| listed.name).collect()))
}

/// What a criterion keeps on a device beside its state.
#[derive(Debug)]
pub(crate) struct Backend {
    device: Arc<Device>,
    /// All memory allocated by the criterion. Freed only when the criterion is dropped, since captured graphs may
    /// refer to it.
    memory: Vec<DeviceMemory>,
    scratch: u64,
    tally: u64,
    weights: Option<Weights>,
    initial: Option<u64>,
}

/// Class weights w, and w / `scale`, where `scale` is a power of two that keeps every weight in the range of the
/// row's type.
#[derive(Clone, Copy, Debug)]
struct Weights {
    plain: u64,
    scaled: u64,
    scaled32: u64,
    /// `None` if the options have no class weights; loading a state may remove them.
    scale: Option<f64>,
}

/// Sources of copies that may be in flight, and the scale that holds once they have arrived.
#[derive(Default)]
struct Uploads {
    scaled: Vec<f64>,
    scaled32: Vec<f32>,
    scale: Option<f64>,
}

impl Backend {
    /// Backend and state of a new criterion.
    ///
    /// # Safety
    /// `memory` refers to memory of the device that nobody else uses while work of the criterion runs, until the
    /// criterion is dropped.
    pub unsafe fn new(options: &Options, memory: &StateMemory) -> Result<(Self, State)> {
        let path = Path::wanted()?;
        let device = Device::get(options.device, path)?;
        let current = device.enter()?;
        let relaxed = RelaxedCapture::enter()?;
        let mut this = Self { device, memory: Vec::new(), scratch: 0, tally: 0, weights: None, initial: None };
        let given = [("soft_labels", memory.soft_labels), ("sums", memory.sums), ("counts", memory.counts), ("counters", memory.counters)];
        for (name, tensor) in &given {
            // A tensor that claims another device is rejected for that reason below.
            if let Some(tensor) = tensor.filter(|tensor| tensor.device == options.device) {
                this.device.check(name, &tensor)?;
            }
        }
        let classes = options.classes;
        // SAFETY: guaranteed by the caller.
        let state = unsafe { State::on_device(classes, memory, options.device, |name, bytes| this.allocate(name, bytes))? };
        this.scratch = this.allocate("scratch memory", Some(size_of::<Scratch>()))?;
        this.tally = this.allocate("scratch memory", classes.checked_mul(size_of::<i64>()))?;
        let stream = Stream::per_thread();
        stream.check_not_captured()?;
        if given.iter().any(|(_, tensor)| tensor.is_some()) {
            // Earlier work on the caller's memory may still be running on a stream unknown to us.
            driver::wait_for_device()?;
        }
        // SAFETY: memory of these sizes was allocated above.
        unsafe {
            driver::clear(this.scratch, size_of::<Scratch>(), stream)?;
            driver::clear(this.tally, classes * size_of::<i64>(), stream)?;
        }
        let mut uploads = Uploads::default();
        let enqueued =
            this.upload_options(options, &mut uploads, stream).and_then(|()| this.initialise_state(options, &state, memory, stream));
        // Even after a failure: a copy may be in flight from memory that is about to be freed.
        let waited = stream.wait();
        enqueued.and(waited)?;
        this.take(&uploads);
        drop(relaxed);
        current.leave()?;
        Ok((this, state))
    }

    /// Allocates device memory that lives as long as the criterion; the context must be current.
    fn allocate(&mut self, name: &str, bytes: Option<usize>) -> Result<u64> {
        let memory = DeviceMemory::new(name, bytes)?;
        let address = memory.address;
        self.memory.push(memory);
        Ok(address)
    }

    /// Enqueues copies of the class weights and the initial soft labels to the device, into the memory allocated
    /// earlier, if any; the context must be current. Allocates first, so that nothing has changed if memory runs out.
    /// Keep `uploads` until the stream has been synchronised, then pass it to [`take`](Self::take).
    fn upload_options(&mut self, options: &Options, uploads: &mut Uploads, stream: Stream) -> Result<()> {
        let classes = options.classes;
        let matrix = match &options.initial {
            Initial::Matrix(matrix) => Some(matrix),
            _ => None,
        };
        if options.class_weights.is_some() && self.weights.is_none() {
            let bytes = classes.checked_mul(size_of::<f64>());
            let plain = self.allocate("class weights", bytes)?;
            let scaled = self.allocate("class weights", bytes)?;
            let scaled32 = self.allocate("class weights", bytes)?;
            self.weights = Some(Weights { plain, scaled, scaled32, scale: None });
        }
        if matrix.is_some() && self.initial.is_none() {
            let bytes = classes.checked_mul(classes).and_then(|entries| entries.checked_mul(size_of::<f32>()));
            self.initial = Some(self.allocate("initial soft labels", bytes)?);
        }
        if let (Some(values), Some(weights)) = (&options.class_weights, &self.weights) {
            let scale = scale_of_weights(values);
            uploads.scaled = try_vec::<f64>("class weights", classes)?;
            uploads.scaled32 = try_vec::<f32>("class weights", classes)?;
            for ((scaled, scaled32), value) in uploads.scaled.iter_mut().zip(&mut uploads.scaled32).zip(values) {
                *scaled = value / scale;
                *scaled32 = *scaled as f32;
            }
            uploads.scale = Some(scale);
            // SAFETY: each has room for `classes` numbers of 8 bytes. The sources live until the stream has been
            // synchronised.
            unsafe {
                driver::upload(weights.plain, values, stream)?;
                driver::upload(weights.scaled, &uploads.scaled, stream)?;
                driver::upload(weights.scaled32, &uploads.scaled32, stream)?;
            }
        }
        if let (Some(matrix), Some(initial)) = (matrix, self.initial) {
            // SAFETY: there is room for classes * classes entries, and the options have been checked to have as many.
            unsafe { driver::upload(initial, matrix, stream)? };
        }
        Ok(())
    }

    /// Makes later passes use the class weights that were copied, or none.
    fn take(&mut self, uploads: &Uploads) {
        if let Some(weights) = &mut self.weights {
            weights.scale = uploads.scale;
        }
    }

    /// The class weights on the device, if the options have any.
    fn class_weights(&self) -> Option<Weights> {
        self.weights.filter(|weights| weights.scale.is_some())
    }

    /// The address of the report in the scratch memory.
    fn report_address(&self) -> u64 {
        self.scratch + offset_of!(Scratch, report) as u64
    }

    /// Clears the last epoch's report.
    fn clear_report(&self, stream: Stream) -> Result<()> {
        // SAFETY: the report is part of the scratch memory.
        unsafe { driver::clear(self.report_address(), REPORT_LENGTH * size_of::<i64>(), stream) }
    }

    fn enter(&self) -> Result<Current> {
        self.device.enter()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // In the child of a fork, the memory belongs to the parent.
        if !self.device.is_of_this_process() {
            return;
        }
        if let Ok(current) = self.device.enter() {
            let _relaxed = RelaxedCapture::enter();
            // The first free waits for the device, where work on the caller's memory may still be running.
            // `cuCtxSynchronize` would invalidate captures in progress elsewhere.
            self.memory.drain(..).for_each(DeviceMemory::free);
            let _ = current.leave();
        }
    }
}
