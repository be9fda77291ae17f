//! A device: its primary context, the kernels loaded there, and how they are launched.

use std::ffi::{CString, c_void};
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

/// A device with its primary context and our kernels, shared by the criteria on it.
#[derive(Debug)]
pub(in crate::cuda) struct Device {
    pub name: DeviceName,
    device: sys::CUdevice,
    context: sys::CUcontext,
    /// The one whose kernels are loaded.
    pub module: Module,
    loaded: Option<sys::CUmodule>,
    multiprocessors: usize,
    /// By [`KernelId`].
    kernels: Vec<Kernel>,
    process: u32,
}

/// A kernel that was loaded.
#[derive(Debug)]
struct Kernel {
    function: sys::CUfunction,
    /// Bytes of a row that it may keep in shared memory.
    row_bytes: usize,
    /// The driver's last answer to [`Device::blocks_at_once`], beside what it was asked; 0: none.
    occupancy: AtomicU64,
}

impl Kernel {
    fn new(function: sys::CUfunction, row_bytes: usize) -> Self {
        Self { function, row_bytes, occupancy: AtomicU64::new(0) }
    }
}

/// How many blocks of how many threads a kernel runs in.
#[derive(Clone, Copy, Debug)]
pub(in crate::cuda) struct Grid {
    pub blocks: u32,
    pub threads: u32,
    /// Bytes of shared memory beside what the kernel always has.
    pub shared: usize,
}

impl Grid {
    pub fn new(blocks: u32, threads: u32) -> Self {
        Self { blocks, threads, shared: 0 }
    }
}

// SAFETY: contexts, modules and functions of the driver may be used from any thread.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// Devices in use. Compiling the kernels may take seconds, so criteria share them.
static DEVICES: Mutex<Vec<Weak<Device>>> = Mutex::new(Vec::new());

impl Device {
    /// The device `name`, a CUDA device, with the kernels that `path` asks for.
    pub fn get(name: DeviceName, path: Path) -> Result<Arc<Self>> {
        let (device, module, image) = find(name, path)?;
        let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        devices.retain(|device| device.strong_count() > 0);
        let fits = |device: &Arc<Self>| device.name == name && device.module == module && device.process == process::id();
        let known = devices.iter().filter_map(Weak::upgrade).find(fits);
        if let Some(device) = known {
            return Ok(device);
        }
        let device = Arc::new(Self::open(name, device, module, image)?);
        devices.push(Arc::downgrade(&device));
        Ok(device)
    }

    fn open(name: DeviceName, device: sys::CUdevice, module: Module, image: &Image) -> Result<Self> {
        use sys::CUdevice_attribute_enum as Attribute;
        let shared = ask(device, Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let multiprocessors = ask(device, Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        // SAFETY: the device exists; the context is released when the result is dropped, also where something below fails.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(failed("cuDevicePrimaryCtxRetain"))?;
        let mut this = Self {
            name,
            device,
            context,
            module,
            loaded: None,
            multiprocessors: multiprocessors.max(1) as usize,
            kernels: (0..variants::KERNELS).map(|_| Kernel::new(std::ptr::null_mut(), 0)).collect(),
            process: process::id(),
        };
        let current = Current::enter(this.context)?;
        let relaxed = RelaxedCapture::enter()?;
        this.load(image, shared)?;
        drop(relaxed);
        current.leave()?;
        Ok(this)
    }

    /// Loads the module's kernels, so that no launch has to; the context is current. `shared`: the most bytes of shared memory of a block.
    fn load(&mut self, image: &Image, shared: i32) -> Result<()> {
        use sys::CUfunction_attribute_enum as Attribute;
        // SAFETY: PTX that ends with 0, or an ELF file; the context is current.
        let loaded = unsafe { result::module::load_data(image.bytes().as_ptr().cast()) }.map_err(failed("the kernels cannot be loaded"))?;
        self.loaded = Some(loaded);
        for Listed { id, name, threads, long_rows } in variants::kernels() {
            let text = CString::new(name.as_str()).unwrap_or_else(|_| unreachable!("a kernel's name"));
            // SAFETY: the module was loaded. Asking for an attribute loads a kernel that the driver would else load with its first launch.
            let (function, own) = unsafe {
                let function = result::module::get_function(loaded, text).map_err(failed(&name))?;
                let own = result::function::get_function_attribute(function, Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
                (function, own.map_err(failed(&name))?)
            };
            let mut row_bytes = 0;
            if long_rows {
                row_bytes = shared.saturating_sub(own).max(0);
                // SAFETY: the function is one of the module, and the device offered that much.
                unsafe {
                    let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                    result::function::set_function_attribute(function, attribute, row_bytes)
                }
                .map_err(failed("shared memory for long rows"))?;
            }
            self.kernels[id.0] = Kernel::new(function, row_bytes as usize);
            if let Some(threads) = threads {
                // Now, so that no pass has to ask but where rows take shared memory.
                self.blocks_at_once(id, threads, 0)?;
            }
        }
        Ok(())
    }

    /// Blocks of so many threads, with so many bytes of shared memory for a row, that are at work at once; the context is current. Neither waits nor
    /// enqueues, so it may be asked while a stream is captured.
    pub fn blocks_at_once(&self, kernel: KernelId, threads: u32, shared: usize) -> Result<usize> {
        let Kernel { function, occupancy, .. } = &self.kernels[kernel.0];
        // Threads, bytes and the answer side by side in one word, so that it is always that of its question.
        let question = u64::from(threads) << 48 | (shared as u64) << 16;
        let known = occupancy.load(Ordering::Relaxed);
        let mut blocks = (known & 0xffff) as usize;
        if blocks == 0 || known & !0xffff != question {
            // SAFETY: the function was loaded, and the context is current.
            let found = unsafe { result::occupancy::max_active_block_per_multiprocessor(*function, threads as i32, shared) };
            // What does not fit at all is for the launch to tell.
            blocks = found.map_err(failed("cuOccupancyMaxActiveBlocksPerMultiprocessor"))?.clamp(1, 0xffff) as usize;
            occupancy.store(question | blocks as u64, Ordering::Relaxed);
        }
        Ok(self.multiprocessors * blocks)
    }

    /// Bytes of a row that a kernel may keep in shared memory.
    pub fn row_bytes(&self, kernel: KernelId) -> usize {
        self.kernels[kernel.0].row_bytes
    }

    /// Makes the primary context current until the result is left.
    pub fn enter(&self) -> Result<Current> {
        if self.process != process::id() {
            fail!(InvalidState, "{}: the criterion was created before a fork, and CUDA cannot be used in the child", self.name);
        }
        Current::enter(self.context)
    }

    /// Whether this process may use the device: not so in a child after a fork.
    pub fn is_of_this_process(&self) -> bool {
        self.process == process::id()
    }

    /// Enqueues a kernel.
    ///
    /// # Safety
    /// The context is current, and `argument` is that of the kernel, with memory that stays until the kernel has run.
    pub unsafe fn launch<A: Argument>(&self, kernel: KernelId, grid: Grid, stream: Stream, argument: &A) -> Result<()> {
        let mut arguments = [std::ptr::from_ref(argument).cast_mut().cast::<c_void>()];
        let function = self.kernels[kernel.0].function;
        // SAFETY: the caller's promise; the driver copies the argument.
        let launched = unsafe {
            let (blocks, threads) = ((grid.blocks, 1, 1), (grid.threads, 1, 1));
            result::launch_kernel(function, blocks, threads, grid.shared as u32, stream.0, &mut arguments)
        };
        launched.map_err(failed("a kernel cannot be launched on this stream"))
    }

    /// Checks that `tensor` names memory of this device, as far as the driver knows.
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
                fail!(InvalidDevice, "{name}.data = {:p} is memory of the host, but {name}.device = {}", tensor.data, self.name)
            }
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.process != process::id() {
            return;
        }
        // SAFETY: the modules and the context are ours to give back. There is nobody to tell of an error: the driver may be shutting down.
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
