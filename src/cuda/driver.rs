//! The CUDA driver: found when it is asked for, its errors in this library's words, its contexts left as they were.

use std::ffi::{CString, c_void};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cudarc::driver::{DriverError, result, sys};

use super::arguments::Argument;
use super::images::{self, Image};
use super::variants::{self, KernelId, Listed, Module, Path};
use crate::error::{Error, ErrorKind, Result, fail};
use crate::tensor::{Device as DeviceName, RawTensor};

/// The oldest driver that reads the kernels, as `cuDriverGetVersion` counts.
const OLDEST_DRIVER: i32 = 12_000;
/// The oldest compute capability.
const OLDEST_CAPABILITY: (i32, i32) = (7, 5);
/// The oldest that runs the kernels of [`Module::Hopper`].
const HOPPER_CAPABILITY: (i32, i32) = (9, 0);

/// A driver's error as ours; `what` is what was tried.
fn failed(what: &str) -> impl Fn(DriverError) -> Error {
    move |error| {
        let kind = if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY { ErrorKind::OutOfMemory } else { ErrorKind::Cuda };
        Error::new(kind, format!("{what}: CUDA error {}", describe(error)))
    }
}

/// `100 (CUDA_ERROR_NO_DEVICE): no CUDA-capable device is detected`
fn describe(error: DriverError) -> String {
    let text =
        |text: std::result::Result<&std::ffi::CStr, DriverError>| text.map_or("unknown".into(), |text| text.to_string_lossy().into_owned());
    format!("{} ({}): {}", error.0 as u32, text(error.error_name()), text(error.error_string()))
}

/// Finds the driver, or says why there is none.
fn start(device: DeviceName) -> Result<()> {
    // SAFETY: asks the dynamic loader for libcuda, and keeps nothing.
    if !unsafe { sys::is_culib_present() } {
        fail!(Unsupported, "device = {device}: there is no CUDA driver here (libcuda cannot be loaded)");
    }
    let mut version = 0;
    // SAFETY: writes one number.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(failed("cuDriverGetVersion"))?;
    if version < OLDEST_DRIVER {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        fail!(Unsupported, "device = {device}: the CUDA driver is of CUDA {major}.{minor}, but 12.0 or newer is needed");
    }
    result::init()
        .map_err(|error| Error::new(ErrorKind::Unsupported, format!("device = {device}: CUDA cannot be used: error {}", describe(error))))
}

fn ask(device: sys::CUdevice, attribute: sys::CUdevice_attribute) -> Result<i32> {
    // SAFETY: the device exists.
    unsafe { result::device::get_attribute(device, attribute) }.map_err(failed("cuDeviceGetAttribute"))
}

/// The device `name`, and the module that `path` has for it.
fn find(name: DeviceName, path: Path) -> Result<(sys::CUdevice, Module, &'static Image)> {
    use sys::CUdevice_attribute_enum as Attribute;
    start(name)?;
    let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
    if !(0..count).contains(&name.id) {
        fail!(InvalidDevice, "device_id = {} is outside [0, {count}), the CUDA devices there are", name.id);
    }
    let device = result::device::get(name.id).map_err(failed("cuDeviceGet"))?;
    let (major, minor) = (
        ask(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        ask(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    if (major, minor) < OLDEST_CAPABILITY {
        let (least, of_least) = OLDEST_CAPABILITY;
        fail!(Unsupported, "device = {name} has compute capability {major}.{minor}, but {least}.{of_least} or newer is needed");
    }
    let Some(module) = path.module((major, minor) >= HOPPER_CAPABILITY) else {
        let (least, of_least) = HOPPER_CAPABILITY;
        fail!(
            Unsupported,
            "device = {name} has compute capability {major}.{minor}, but what OLS_CUDA_PATH asks for needs {least}.{of_least}"
        );
    };
    Ok((device, module, images::image(module, (major, minor))))
}

/// A device with its primary context and our kernels, shared by the criteria on it.
#[derive(Debug)]
pub(super) struct Device {
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
pub(super) struct Grid {
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
        this.load(image, shared)?;
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
        match memory_at(tensor.data) {
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
                if let Some(module) = self.loaded.take() {
                    let _ = result::module::unload(module);
                }
                let _ = current.leave();
            }
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

/// Memory, as the driver knows it.
enum Memory {
    Device(i32),
    /// Of the host; also what the driver does not know at all.
    Host,
}

fn memory_at(pointer: *const u8) -> Memory {
    use sys::CUpointer_attribute_enum as Attribute;
    let (mut kind, mut device) = (0u32, -1i32);
    let mut attributes = [Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL];
    let mut to = [(&raw mut kind).cast::<c_void>(), (&raw mut device).cast()];
    // SAFETY: two attributes, and a number to write for each. The driver looks the address up and does not read there.
    let answer = unsafe { sys::cuPointerGetAttributes(2, attributes.as_mut_ptr(), to.as_mut_ptr(), pointer as u64) };
    match (answer.result(), sys::CUmemorytype_enum::CU_MEMORYTYPE_DEVICE as u32) {
        (Ok(()), on_device) if kind == on_device => Memory::Device(device),
        _ => Memory::Host,
    }
}

/// Checks that `tensor`, which the host is to read, is not memory of a device. `device`: one on which CUDA is to be used anyway.
pub(crate) fn check_host_memory(device: DeviceName, name: &str, tensor: &RawTensor) -> Result<()> {
    start(device)?;
    match memory_at(tensor.data) {
        Memory::Device(id) if !tensor.is_empty() => {
            fail!(InvalidDevice, "{name}.data = {:p} is memory of cuda:{id}, but it is read by the host", tensor.data)
        }
        _ => Ok(()),
    }
}

/// A stream of the caller's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream(pub sys::CUstream);

impl Stream {
    pub fn new(stream: *mut c_void) -> Self {
        Self(stream.cast())
    }

    /// The legacy stream.
    pub fn legacy() -> Self {
        Self(std::ptr::null_mut())
    }

    /// Waits for all that was enqueued.
    pub fn wait(self) -> Result<()> {
        // SAFETY: the driver knows its streams, and refuses others.
        unsafe { result::stream::synchronize(self.0) }.map_err(failed("waiting for the stream"))
    }
}

/// Our context is current on this thread; [`leave`](Self::leave), or dropping it, brings the caller's back.
pub(super) struct Current {
    callers: Option<sys::CUcontext>,
    changed: bool,
}

impl Current {
    fn enter(context: sys::CUcontext) -> Result<Self> {
        let callers = result::ctx::get_current().map_err(failed("cuCtxGetCurrent"))?;
        let changed = callers != Some(context);
        if changed {
            // SAFETY: a primary context that we hold.
            unsafe { result::ctx::set_current(context) }.map_err(failed("cuCtxSetCurrent"))?;
        }
        Ok(Self { callers, changed })
    }

    /// Brings the caller's context back.
    pub fn leave(mut self) -> Result<()> {
        self.restore().map_err(failed("cuCtxSetCurrent"))
    }

    fn restore(&mut self) -> std::result::Result<(), DriverError> {
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        // SAFETY: it was current before.
        unsafe { result::ctx::set_current(self.callers.unwrap_or(std::ptr::null_mut())) }
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        // Only on the way out with another error, which is the one to tell.
        let _ = self.restore();
    }
}

/// Memory of the device that is ours. Freed with the context current.
#[derive(Debug)]
pub(super) struct DeviceMemory {
    pub address: u64,
}

impl DeviceMemory {
    /// Memory with any content; the context is current.
    pub fn new(name: &str, bytes: Option<usize>) -> Result<Self> {
        let Some(bytes) = bytes.filter(|&bytes| bytes <= isize::MAX as usize) else {
            fail!(OutOfMemory, "{name}: more bytes than an address space");
        };
        // SAFETY: allocates; not 0 bytes, as there are 2 classes or more.
        let address = unsafe { result::malloc_sync(bytes) }.map_err(failed(&format!("{name}: {bytes} bytes of device memory")))?;
        Ok(Self { address })
    }

    /// Gives the memory back; the context is current. Waits for the device.
    pub fn free(self) {
        // SAFETY: it was allocated by `new`. An error here is one of earlier work, or of a driver that shuts down.
        let _ = unsafe { result::free_sync(self.address) };
    }
}

/// Copies to the device; the source may go once this returns.
///
/// # Safety
/// `to` has room.
pub(super) unsafe fn upload<T>(to: u64, from: &[T], stream: Stream) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { result::memcpy_htod_async(to, from, stream.0) }.map_err(failed("copying to the device"))
}

/// Enqueues a copy from the device; wait for the stream before `to` is read or goes.
///
/// # Safety
/// `from` has as much.
pub(super) unsafe fn download<T>(to: &mut [T], from: u64, stream: Stream) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { result::memcpy_dtoh_async(to, from, stream.0) }.map_err(failed("copying from the device"))
}

/// Enqueues zeros.
///
/// # Safety
/// There are that many bytes.
pub(super) unsafe fn clear(at: u64, bytes: usize, stream: Stream) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { result::memset_d8_async(at, 0, bytes, stream.0) }.map_err(failed("clearing device memory"))
}

/// Waits for everything on the device; the context is current.
pub(super) fn wait_for_device() -> Result<()> {
    result::ctx::synchronize().map_err(failed("waiting for the device"))
}
