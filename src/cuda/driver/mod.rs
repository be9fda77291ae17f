//! The CUDA driver API: loaded on demand, with its errors translated and the caller's context preserved.

mod context;
mod device;
mod memory;

pub(super) use context::{Current, RelaxedCapture, Stream, wait_for_device};
use device::Kernels;
pub(super) use device::{Device, Grid};
pub(crate) use memory::check_host_memory;
pub(super) use memory::{DeviceMemory, clear, download, upload};

use cudarc::driver::{DriverError, result, sys};

use super::images;
use super::variants::{Module, Path};
use crate::error::{Error, ErrorKind, Result, fail};
use crate::tensor::Device as DeviceName;

/// The oldest driver that accepts the kernels, in the format of `cuDriverGetVersion`.
const OLDEST_DRIVER: i32 = 12_000;
/// The oldest supported compute capability.
const OLDEST_CAPABILITY: (i32, i32) = (7, 5);
/// The oldest compute capability that runs the kernels of [`Module::Hopper`].
const HOPPER_CAPABILITY: (i32, i32) = (9, 0);

/// Translates a driver error; `what` is what failed.
fn failed(what: &str) -> impl Fn(DriverError) -> Error {
    move |error| {
        let kind = if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY { ErrorKind::OutOfMemory } else { ErrorKind::Cuda };
        Error::new(kind, format!("{what}: CUDA error {}", describe(error)))
    }
}

/// For example `100 (CUDA_ERROR_NO_DEVICE): no CUDA-capable device is detected`.
fn describe(error: DriverError) -> String {
    let text =
        |text: std::result::Result<&std::ffi::CStr, DriverError>| text.map_or("unknown".into(), |text| text.to_string_lossy().into_owned());
    format!("{} ({}): {}", error.0 as u32, text(error.error_name()), text(error.error_string()))
}

/// Loads and initialises the driver, or returns why that is impossible.
fn start(device: DeviceName) -> Result<()> {
    // SAFETY: only asks the dynamic loader for libcuda.
    if !unsafe { sys::is_culib_present() } {
        fail!(Unsupported, "device = {device}: no CUDA driver was found (libcuda cannot be loaded)");
    }
    let mut version = 0;
    // SAFETY: writes one number.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(failed("cuDriverGetVersion"))?;
    if version < OLDEST_DRIVER {
        let (major, minor) = (version / 1000, version % 1000 / 10);
        fail!(Unsupported, "device = {device}: the driver supports CUDA {major}.{minor}, but 12.0 or newer is required");
    }
    result::init().map_err(|error| {
        Error::new(ErrorKind::Unsupported, format!("device = {device}: CUDA cannot be initialised: error {}", describe(error)))
    })
}

fn ask(device: sys::CUdevice, attribute: sys::CUdevice_attribute) -> Result<i32> {
    // SAFETY: the device exists.
    unsafe { result::device::get_attribute(device, attribute) }.map_err(failed("cuDeviceGetAttribute"))
}

/// The device `name`, and the module and image that `path` selects for it.
fn find(name: DeviceName, path: Path) -> Result<(sys::CUdevice, Kernels)> {
    use sys::CUdevice_attribute_enum as Attribute;
    start(name)?;
    let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
    if !(0..count).contains(&name.id) {
        fail!(InvalidDevice, "device_id = {} is outside [0, {count}), the available CUDA devices", name.id);
    }
    let device = result::device::get(name.id).map_err(failed("cuDeviceGet"))?;
    let (major, minor) = (
        ask(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        ask(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    if (major, minor) < OLDEST_CAPABILITY {
        let (least, of_least) = OLDEST_CAPABILITY;
        fail!(Unsupported, "device = {name} has compute capability {major}.{minor}, but {least}.{of_least} or newer is required");
    }
    let Some(module) = path.module((major, minor) >= HOPPER_CAPABILITY) else {
        let (least, of_least) = HOPPER_CAPABILITY;
        fail!(
            Unsupported,
            "device = {name} has compute capability {major}.{minor}, but OLS_CUDA_PATH = hopper requires {least}.{of_least} or newer"
        );
    };
    // On newer devices, with less shared memory, they have not been measured.
    let copies = module == Module::Hopper && major == HOPPER_CAPABILITY.0;
    Ok((device, Kernels { module, copies, image: images::image(module, (major, minor)) }))
}
