//! A device: its primary context, the kernels loaded into it, and launching them.

use std::ffi::{CString, c_void};
use std::fmt;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cudarc::driver::{result, sys};

use super::memory::{Memory, memory_at};
use super::{Current, RelaxedCapture, Stream, ask, failed, find};
use crate::cuda::arguments::Argument;
use crate::cuda::images::Image;
use crate::cuda::variants::{self, KernelId, Listed, Module, Path};
use crate::error::{Result, fail};
use crate::tensor::{Device as DeviceName, RawTensor};

/// A device with its primary context and the loaded kernels; shared by all criteria on the device.
#[derive(Debug)]
pub(in crate::cuda) struct Device {
    pub name: DeviceName,
    device: sys::CUdevice,
    context: sys::CUcontext,
    /// Which kernels are loaded.
    pub kernels_of: Kernels,
    loaded: Option<sys::CUmodule>,
    multiprocessors: usize,
    /// Indexed by [`KernelId`].
    kernels: Vec<Kernel>,
    process: u32,
}

/// The kernels for a device.
#[derive(Clone, Copy)]
pub(in crate::cuda) struct Kernels {
    pub module: Module,
    /// Whether to use those whose rows the copy engine brings to shared memory.
    pub copies: bool,
    pub image: &'static Image,
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernels").field("module", &self.module).field("copies", &self.copies).finish_non_exhaustive()
    }
}

/// A loaded kernel.
#[derive(Debug)]
struct Kernel {
    function: sys::CUfunction,
    /// For long rows: the dynamic shared memory, in bytes, that its blocks can have.
    room: usize,
    /// The last result of [`Device::blocks_at_once`] together with its arguments; 0: none yet.
    occupancy: AtomicU64,
}

impl Kernel {
    fn new(function: sys::CUfunction, room: usize) -> Self {
        Self { function, room, occupancy: AtomicU64::new(0) }
    }
}

/// The launch configuration of a kernel.
#[derive(Clone, Copy, Debug)]
pub(in crate::cuda) struct Grid {
    pub blocks: u32,
    pub threads: u32,
    /// Dynamic shared memory in bytes.
    pub shared: usize,
}

impl Grid {
    pub fn new(blocks: u32, threads: u32) -> Self {
        Self { blocks, threads, shared: 0 }
    }
}

// SAFETY: driver contexts, modules and functions may be used from any thread.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// Devices in use. Loading the kernels may compile them for seconds, so criteria share them.
static DEVICES: Mutex<Vec<Weak<Device>>> = Mutex::new(Vec::new());

impl Device {
    /// The CUDA device `name` with the kernels selected by `path`.
    pub fn get(name: DeviceName, path: Path) -> Result<Arc<Self>> {
        let (device, kernels) = find(name, path)?;
        let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        devices.retain(|device| device.strong_count() > 0);
        let fits =
            |device: &Arc<Self>| device.name == name && device.kernels_of.module == kernels.module && device.process == process::id();
        let known = devices.iter().filter_map(Weak::upgrade).find(fits);
        if let Some(device) = known {
            return Ok(device);
        }
        let device = Arc::new(Self::open(name, device, kernels)?);
        devices.push(Arc::downgrade(&device));
        Ok(device)
    }

    fn open(name: DeviceName, device: sys::CUdevice, kernels_of: Kernels) -> Result<Self> {
        use sys::CUdevice_attribute_enum as Attribute;
        let shared = ask(device, Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let multiprocessors = ask(device, Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        // SAFETY: the device exists; the context is released when the result is dropped, also if something below
        // fails.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(failed("cuDevicePrimaryCtxRetain"))?;
        let mut this = Self {
            name,
            device,
            context,
            kernels_of,
            loaded: None,
            multiprocessors: multiprocessors.max(1) as usize,
            kernels: (0..variants::KERNELS).map(|_| Kernel::new(std::ptr::null_mut(), 0)).collect(),
            process: process::id(),
        };
        let current = Current::enter(this.context)?;
        let relaxed = RelaxedCapture::enter()?;
        this.load(shared)?;
        drop(relaxed);
        current.leave()?;
        Ok(this)
    }

    /// Loads all kernels of the module eagerly, so that no launch has to; the context must be current. `shared`: the
    /// device's limit of shared memory per block, in bytes.
    fn load(&mut self, shared: i32) -> Result<()> {
        use sys::CUfunction_attribute_enum as Attribute;
        // SAFETY: PTX terminated by 0, or an ELF file; the context is current.
        let loaded = unsafe { result::module::load_data(self.kernels_of.image.bytes().as_ptr().cast()) }
            .map_err(failed("cannot load the kernels"))?;
        self.loaded = Some(loaded);
        for Listed { id, name, threads, long_rows, shared: fixed } in variants::kernels(self.kernels_of.module) {
            let text = CString::new(name.as_str()).unwrap_or_else(|_| unreachable!("a kernel's name"));
            // SAFETY: the module is loaded. Querying an attribute forces the driver to load a kernel that it would
            // otherwise load lazily, at the first launch.
            let (function, own) = unsafe {
                let function = result::module::get_function(loaded, text).map_err(failed(&name))?;
                let own = result::function::get_function_attribute(function, Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
                (function, own.map_err(failed(&name))?)
            };
            let mut room = 0;
            if long_rows {
                room = shared.saturating_sub(own).max(0);
                // SAFETY: the function belongs to the module, and the device offers that much.
                unsafe {
                    let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                    result::function::set_function_attribute(function, attribute, room)
                }
                .map_err(failed("cannot reserve shared memory for long rows"))?;
            }
            self.kernels[id.0] = Kernel::new(function, room as usize);
            if let Some(threads) = threads {
                // Query now, so that only passes over long rows in shared memory have to query later.
                self.blocks_at_once(id, threads, fixed)?;
            }
        }
        Ok(())
    }

    /// How many blocks of `threads` threads, with `shared` bytes of dynamic shared memory, are resident on the
    /// device at once; the context must be current. Neither waits nor enqueues, so it may be called while a stream is
    /// being captured.
    pub fn blocks_at_once(&self, kernel: KernelId, threads: u32, shared: usize) -> Result<usize> {
        let Kernel { function, occupancy, .. } = &self.kernels[kernel.0];
        // Threads, bytes and result are packed into one atomic word, so that a result is never paired with the
        // arguments of another.
        let question = u64::from(threads) << 48 | (shared as u64) << 16;
        let known = occupancy.load(Ordering::Relaxed);
        let mut blocks = (known & 0xffff) as usize;
        if blocks == 0 || known & !0xffff != question {
            // SAFETY: the function is loaded, and the context is current.
            let found = unsafe { result::occupancy::max_active_block_per_multiprocessor(*function, threads as i32, shared) };
            // If not even one block fits, the launch reports the error.
            blocks = found.map_err(failed("cuOccupancyMaxActiveBlocksPerMultiprocessor"))?.clamp(1, 0xffff) as usize;
            occupancy.store(question | blocks as u64, Ordering::Relaxed);
        }
        Ok(self.multiprocessors * blocks)
    }

    /// The dynamic shared memory, in bytes, that a block of a kernel for long rows can have.
    pub fn room(&self, kernel: KernelId) -> usize {
        self.kernels[kernel.0].room
    }

    /// Makes the primary context current for the lifetime of the guard.
    pub fn enter(&self) -> Result<Current> {
        if self.process != process::id() {
            fail!(InvalidState, "{}: the criterion was created before a fork, and CUDA cannot be used in the child", self.name);
        }
        Current::enter(self.context)
    }

    /// Whether this process may use the device; false in the child of a fork.
    pub fn is_of_this_process(&self) -> bool {
        self.process == process::id()
    }

    /// Enqueues a kernel.
    ///
    /// # Safety
    /// The context is current, `argument` is of the type that the kernel takes, and the memory it refers to stays
    /// valid until the kernel has run.
    pub unsafe fn launch<A: Argument>(&self, kernel: KernelId, grid: Grid, stream: Stream, argument: &A) -> Result<()> {
        let mut arguments = [std::ptr::from_ref(argument).cast_mut().cast::<c_void>()];
        let function = self.kernels[kernel.0].function;
        // SAFETY: guaranteed by the caller; the driver copies the argument.
        let launched = unsafe {
            let (blocks, threads) = ((grid.blocks, 1, 1), (grid.threads, 1, 1));
            result::launch_kernel(function, blocks, threads, grid.shared as u32, stream.0, &mut arguments)
        };
        launched.map_err(failed("cannot launch a kernel on this stream"))
    }

    /// Checks that `tensor` is memory of this device, as far as the driver knows.
    pub fn check(&self, name: &str, tensor: &RawTensor) -> Result<()> {
        if tensor.is_empty() {
            return Ok(());
        }
        match memory_at(name, tensor.data)? {
            Memory::Device(id) if id == self.name.id => Ok(()),
            Memory::Device(id) => {
                fail!(InvalidDevice, "{name}.data = {:p} is memory of cuda:{id}, but the criterion is on {}", tensor.data, self.name)
            }
            Memory::Host => {
                fail!(InvalidDevice, "{name}.data = {:p} is host memory, but {name}.device = {}", tensor.data, self.name)
            }
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.process != process::id() {
            return;
        }
        // SAFETY: the module and the context are ours to release. Errors are ignored: there is nobody to report them
        // to, and the driver may be shutting down.
        unsafe {
            if let Ok(current) = Current::enter(self.context) {
                let _relaxed = RelaxedCapture::enter();
                if let Some(module) = self.loaded.take() {
                    let _ = result::module::unload(module);
                }
                let _ = current.leave();
            }
            let _ = result::primary_ctx::release(self.device);
        }
    }
}
