//! The CUDA backend: state and scratch memory on a device, and kernels that are enqueued on the caller's stream.
//!
//! Nothing is allocated, and nobody waits, in passes and at the end of an epoch. What a captured graph points to stays where it is until the
//! criterion is dropped. Calls leave the caller's context current, and use no stream but the caller's.
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

use arguments::{REPORT_LENGTH, Scratch, StateArguments};
use driver::{Current, Device, DeviceMemory, Stream};
use variants::Path;

use crate::error::Result;
use crate::options::{Initial, Options, scale_of_weights};
use crate::state::{State, StateMemory, try_vec};

/// The names of the kernels in each module of `cuda/compiled`, for tests.
#[doc(hidden)]
pub fn kernel_names() -> [(&'static str, Vec<String>); 2] {
    ["ols", "hopper"].map(|file| (file, variants::kernels().map(|listed| listed.name).collect()))
}

/// What a criterion has on a device beside its state.
#[derive(Debug)]
pub(crate) struct Backend {
    device: Arc<Device>,
    /// All that is ours; freed when the criterion is dropped, never before, because captured graphs may point to it.
    memory: Vec<DeviceMemory>,
    scratch: u64,
    tally: u64,
    weights: Option<Weights>,
    /// Whether the options have class weights now; a load may take them away.
    weighted: bool,
    initial: Option<u64>,
}

/// w, and w divided by `scale`, a power of two, so that no weight is too small or too large for a row's type.
#[derive(Clone, Copy, Debug)]
struct Weights {
    plain: u64,
    scaled: u64,
    scaled32: u64,
    scale: f64,
}

impl Backend {
    /// Backend and state of a new criterion.
    ///
    /// # Safety
    /// What `memory` names is memory of the device, used by nobody else while work of the criterion runs, until it is dropped.
    pub unsafe fn new(options: &Options, memory: &StateMemory) -> Result<(Self, State)> {
        let path = Path::wanted()?;
        let device = Device::get(options.device, path)?;
        let current = device.enter()?;
        let mut this = Self { device, memory: Vec::new(), scratch: 0, tally: 0, weights: None, weighted: false, initial: None };
        for (name, tensor) in
            [("soft_labels", memory.soft_labels), ("sums", memory.sums), ("counts", memory.counts), ("counters", memory.counters)]
        {
            // One that says it is elsewhere is refused for that, below.
            if let Some(tensor) = tensor.filter(|tensor| tensor.device == options.device) {
                this.device.check(name, &tensor)?;
            }
        }
        let classes = options.classes;
        // SAFETY: the caller's promise.
        let state = unsafe { State::on_device(classes, memory, options.device, |name, bytes| this.allocate(name, bytes))? };
        this.scratch = this.allocate("scratch memory", Some(size_of::<Scratch>()))?;
        this.tally = this.allocate("scratch memory", classes.checked_mul(size_of::<i64>()))?;
        let stream = Stream::legacy();
        // Whoever used the caller's memory before may still be at it, on a stream that we do not know.
        driver::wait_for_device()?;
        // SAFETY: memory of these sizes was allocated above.
        unsafe {
            driver::clear(this.scratch, size_of::<Scratch>(), stream)?;
            driver::clear(this.tally, classes * size_of::<i64>(), stream)?;
        }
        this.set_options(options, stream)?;
        this.initialise_state(options, &state, memory, stream)?;
        stream.wait()?;
        current.leave()?;
        Ok((this, state))
    }

    /// Device memory that lives as long as the criterion; the context is current.
    fn allocate(&mut self, name: &str, bytes: Option<usize>) -> Result<u64> {
        let memory = DeviceMemory::new(name, bytes)?;
        let address = memory.address;
        self.memory.push(memory);
        Ok(address)
    }

    /// Copies class weights and initial soft labels to the device, to where they were before if they were; the context is current. Memory comes
    /// first, so that nothing has changed where there is not enough.
    fn set_options(&mut self, options: &Options, stream: Stream) -> Result<()> {
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
            self.weights = Some(Weights { plain, scaled, scaled32, scale: 1.0 });
        }
        if matrix.is_some() && self.initial.is_none() {
            let bytes = classes.checked_mul(classes).and_then(|entries| entries.checked_mul(size_of::<f32>()));
            self.initial = Some(self.allocate("initial soft labels", bytes)?);
        }
        let mut scaled = try_vec::<f64>("class weights", classes)?;
        let mut scaled32 = try_vec::<f32>("class weights", classes)?;
        self.weighted = options.class_weights.is_some();
        if let (Some(values), Some(weights)) = (&options.class_weights, &mut self.weights) {
            weights.scale = scale_of_weights(values);
            for ((scaled, scaled32), value) in scaled.iter_mut().zip(&mut scaled32).zip(values) {
                *scaled = value / weights.scale;
                *scaled32 = *scaled as f32;
            }
            // SAFETY: there is room for `classes` numbers of 8 bytes in each.
            unsafe {
                driver::upload(weights.plain, values, stream)?;
                driver::upload(weights.scaled, &scaled, stream)?;
                driver::upload(weights.scaled32, &scaled32, stream)?;
            }
        }
        if let (Some(matrix), Some(initial)) = (matrix, self.initial) {
            // SAFETY: there is room for classes * classes entries, and the options were checked to have as many.
            unsafe { driver::upload(initial, matrix, stream)? };
        }
        Ok(())
    }

    /// The address of the report in the scratch memory.
    fn report_address(&self) -> u64 {
        self.scratch + offset_of!(Scratch, report) as u64
    }

    /// Forgets the last epoch's report.
    fn clear_report(&self, stream: Stream) -> Result<()> {
        // SAFETY: the report is part of the scratch memory.
        unsafe { driver::clear(self.report_address(), REPORT_LENGTH * size_of::<i64>(), stream) }
    }

    fn state_arguments(&self, state: &State) -> StateArguments {
        StateArguments::new(state)
    }

    fn enter(&self) -> Result<Current> {
        self.device.enter()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // In a child after a fork the memory is the parent's.
        if !self.device.is_of_this_process() {
            return;
        }
        if let Ok(current) = self.device.enter() {
            let _ = driver::wait_for_device();
            self.memory.drain(..).for_each(DeviceMemory::free);
            let _ = current.leave();
        }
    }
}
