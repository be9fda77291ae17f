//! The CUDA driver: found when it is asked for, its errors in this library's words, its contexts left as they were.

use std::ffi::{CString, c_void};
use std::process;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cudarc::driver::{DriverError, result, sys};

use super::arguments::Argument;
use super::variants::{self, KernelId, Module};
use crate::error::{Error, ErrorKind, Result, fail};
use crate::tensor::{Device as DeviceName, RawTensor};

/// PTX for compute capability 7.5 and 9.0, which every newer device compiles for itself; made by `cuda/build`.
const OLS: &str = concat!(include_str!("../../cuda/ols.ptx"), "\0");
const HOPPER: &str = concat!(include_str!("../../cuda/hopper.ptx"), "\0");
/// The oldest driver that reads it, as `cuDriverGetVersion` counts.
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

/// A device with its primary context and our kernels, shared by the criteria on it.
#[derive(Debug)]
pub(super) struct Device {
    pub name: DeviceName,
    device: sys::CUdevice,
    context: sys::CUcontext,
    modules: Vec<sys::CUmodule>,
    /// By [`KernelId`].
    kernels: Vec<Kernel>,
    /// Whether the kernels of [`Module::Hopper`] are loaded.
    hopper: bool,
    /// Clusters that can be at work at once, where there are kernels for them.
    pub clusters: usize,
    process: u32,
}

/// A kernel that was loaded.
#[derive(Clone, Copy, Debug)]
struct Kernel {
    function: sys::CUfunction,
    /// Bytes of a row that it may keep in shared memory.
    row_bytes: usize,
}

/// How many blocks of how many threads a kernel runs in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub blocks: u32,
    pub threads: u32,
    /// Blocks of a cluster; 1: no clusters.
    pub cluster: u32,
    /// Bytes of shared memory beside what the kernel always has.
    pub shared: usize,
}

impl Grid {
    pub fn new(blocks: u32, threads: u32) -> Self {
        Self { blocks, threads, cluster: 1, shared: 0 }
    }
}

// SAFETY: contexts, modules and functions of the driver may be used from any thread.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// Devices in use. Compiling the kernels may take seconds, so criteria share them.
static DEVICES: Mutex<Vec<Weak<Device>>> = Mutex::new(Vec::new());

impl Device {
    /// The device `name`, a CUDA device; `hopper`: with the kernels for compute capability 9.0.
    pub fn get(name: DeviceName, hopper: bool) -> Result<Arc<Self>> {
        let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        devices.retain(|device| device.strong_count() > 0);
        let fits = |device: &Arc<Self>| device.name == name && device.hopper == hopper && device.process == process::id();
        let known = devices.iter().filter_map(Weak::upgrade).find(fits);
        if let Some(device) = known {
            return Ok(device);
        }
        let device = Arc::new(Self::open(name, hopper)?);
        devices.push(Arc::downgrade(&device));
        Ok(device)
    }

    fn open(name: DeviceName, hopper: bool) -> Result<Self> {
        start(name)?;
        let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
        if !(0..count).contains(&name.id) {
            fail!(InvalidDevice, "device_id = {} is outside [0, {count}), the CUDA devices there are", name.id);
        }
        let device = result::device::get(name.id).map_err(failed("cuDeviceGet"))?;
        let ask = |attribute| {
            // SAFETY: the device exists.
            unsafe { result::device::get_attribute(device, attribute) }.map_err(failed("cuDeviceGetAttribute"))
        };
        use sys::CUdevice_attribute_enum as Attribute;
        let capability =
            (ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?, ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?);
        if capability < OLDEST_CAPABILITY {
            let ((major, minor), oldest) = (capability, OLDEST_CAPABILITY);
            fail!(Unsupported, "device = {name} has compute capability {major}.{minor}, but {}.{} or newer is needed", oldest.0, oldest.1);
        }
        if hopper && capability < HOPPER_CAPABILITY {
            let ((major, minor), oldest) = (capability, HOPPER_CAPABILITY);
            fail!(
                Unsupported,
                "device = {name} has compute capability {major}.{minor}, but what OLS_CUDA_PATH asks for needs {}.{}",
                oldest.0,
                oldest.1
            );
        }
        let shared = ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        // SAFETY: the device exists; the context is released when the result is dropped, also where something below fails.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(failed("cuDevicePrimaryCtxRetain"))?;
        let mut this = Self {
            name,
            device,
            context,
            modules: Vec::new(),
            kernels: vec![Kernel { function: std::ptr::null_mut(), row_bytes: 0 }; variants::KERNELS],
            hopper,
            clusters: 0,
            process: process::id(),
        };
        let current = Current::enter(this.context)?;
        this.load(Module::Ols, OLS, shared)?;
        if hopper {
            this.load(Module::Hopper, HOPPER, shared)?;
            this.clusters = this.count_clusters()?;
        }
        current.leave()?;
        Ok(this)
    }

    /// Loads a module's kernels, so that no launch has to; the context is current. `shared`: the most bytes of shared memory of a block.
    fn load(&mut self, module: Module, ptx: &str, shared: i32) -> Result<()> {
        use sys::CUfunction_attribute_enum as Attribute;
        // SAFETY: the text is PTX and ends with 0; the context is current.
        let loaded = unsafe { result::module::load_data(ptx.as_ptr().cast()) }.map_err(failed("the kernels cannot be loaded"))?;
        self.modules.push(loaded);
        for (id, name) in variants::names(module) {
            let text = CString::new(name.as_str()).unwrap_or_else(|_| unreachable!("a kernel's name"));
            // SAFETY: the module was loaded. Asking for an attribute loads a kernel that the driver would else load with its first launch.
            let (function, own) = unsafe {
                let function = result::module::get_function(loaded, text).map_err(failed(&name))?;
                let own = result::function::get_function_attribute(function, Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
                (function, own.map_err(failed(&name))?)
            };
            let mut row_bytes = 0;
            if variants::is_for_long_rows(id) {
                row_bytes = shared.saturating_sub(own).max(0);
                // SAFETY: the function is one of the module, and the device offered that much.
                unsafe {
                    let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                    result::function::set_function_attribute(function, attribute, row_bytes)
                }
                .map_err(failed("shared memory for long rows"))?;
            }
            self.kernels[id.0] = Kernel { function, row_bytes: row_bytes as usize };
        }
        Ok(())
    }

    /// Clusters that can be at work at once, each block with all shared memory; the context is current.
    fn count_clusters(&self) -> Result<usize> {
        let mut least = i32::MAX;
        for (kernel, threads) in variants::cluster_kernels() {
            let Kernel { function, row_bytes } = self.kernels[kernel.0];
            let grid = Grid { blocks: variants::CLUSTER_BLOCKS, threads, cluster: variants::CLUSTER_BLOCKS, shared: row_bytes };
            let mut count = 0;
            // SAFETY: the function was loaded; the driver reads the configuration before it returns.
            unsafe { with_cluster(grid, Stream::legacy(), |config| sys::cuOccupancyMaxActiveClusters(&raw mut count, function, config)) }
                .result()
                .map_err(failed("cuOccupancyMaxActiveClusters"))?;
            least = least.min(count);
        }
        if least < 1 {
            fail!(Unsupported, "{}: clusters of {} blocks do not fit this device", self.name, variants::CLUSTER_BLOCKS);
        }
        Ok(least as usize)
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
            if grid.cluster == 1 {
                let (blocks, threads) = ((grid.blocks, 1, 1), (grid.threads, 1, 1));
                result::launch_kernel(function, blocks, threads, grid.shared as u32, stream.0, &mut arguments)
            } else {
                let arguments = arguments.as_mut_ptr();
                with_cluster(grid, stream, |config| sys::cuLaunchKernelEx(config, function, arguments, std::ptr::null_mut())).result()
            }
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

/// Calls `call` with the configuration of a grid of clusters, which is gone when it returns.
fn with_cluster<T>(grid: Grid, stream: Stream, call: impl FnOnce(*const sys::CUlaunchConfig) -> T) -> T {
    let size = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: grid.cluster, y: 1, z: 1 };
    let mut attribute = sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue_union { clusterDim: size },
    };
    let config = sys::CUlaunchConfig {
        gridDimX: grid.blocks,
        gridDimY: 1,
        gridDimZ: 1,
        blockDimX: grid.threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: grid.shared as u32,
        hStream: stream.0,
        attrs: &raw mut attribute,
        numAttrs: 1,
    };
    call(&raw const config)
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.process != process::id() {
            return;
        }
        // SAFETY: the modules and the context are ours to give back. There is nobody to tell of an error: the driver may be shutting down.
        unsafe {
            if let Ok(current) = Current::enter(self.context) {
                for module in self.modules.drain(..) {
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
