//! Device memory: attributes of a pointer, allocation, and copies.

use std::ffi::c_void;

use cudarc::driver::{DriverError, result, sys};

use super::{Stream, failed, start};
use crate::error::{Result, fail};
use crate::tensor::{Device as DeviceName, RawTensor};

/// Where memory resides, according to the driver.
pub(in crate::cuda) enum Memory {
    Device(i32),
    /// Host memory, including memory unknown to the driver.
    Host,
}

/// Returns where the memory at `pointer` resides; `name` is used in messages.
///
/// # Errors
/// An earlier asynchronous error, which the driver may report from any call.
pub(in crate::cuda) fn memory_at(name: &str, pointer: *const u8) -> Result<Memory> {
    use sys::CUpointer_attribute_enum as Attribute;
    let (mut kind, mut device) = (0u32, -1i32);
    let mut attributes = [Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL];
    let mut to = [(&raw mut kind).cast::<c_void>(), (&raw mut device).cast()];
    // SAFETY: two attributes, and an output of matching size for each. The driver looks the address up without
    // dereferencing it.
    let answer = unsafe { sys::cuPointerGetAttributes(2, attributes.as_mut_ptr(), to.as_mut_ptr(), pointer as u64) };
    match answer.result() {
        // The type is 0 for memory unknown to the driver.
        Ok(()) if kind == sys::CUmemorytype_enum::CU_MEMORYTYPE_DEVICE as u32 => Ok(Memory::Device(device)),
        Ok(()) | Err(DriverError(sys::CUresult::CUDA_ERROR_INVALID_VALUE)) => Ok(Memory::Host),
        Err(error) => Err(failed(&format!("{name}.data = {pointer:p}: cuPointerGetAttributes"))(error)),
    }
}

/// Checks that `tensor`, which the host is going to read, is not device memory. `device` is one that is going to be
/// used anyway; it names the device in messages.
pub(crate) fn check_host_memory(device: DeviceName, name: &str, tensor: &RawTensor) -> Result<()> {
    start(device)?;
    // An error is no reason to reject host memory: the calling thread may have no context yet, and errors of earlier work
    // are reported by the calls that follow.
    match memory_at(name, tensor.data) {
        Ok(Memory::Device(id)) if !tensor.is_empty() => {
            fail!(InvalidDevice, "{name}.data = {:p} is memory of cuda:{id}, but host memory is required", tensor.data)
        }
        _ => Ok(()),
    }
}

/// Memory that the library has allocated on a device. To be freed with the context current.
#[derive(Debug)]
pub(in crate::cuda) struct DeviceMemory {
    pub address: u64,
}

impl DeviceMemory {
    /// Allocates uninitialised memory; the context must be current.
    pub fn new(name: &str, bytes: Option<usize>) -> Result<Self> {
        let Some(bytes) = bytes.filter(|&bytes| bytes <= isize::MAX as usize) else {
            fail!(OutOfMemory, "{name}: the size exceeds the address space");
        };
        // SAFETY: allocates; never 0 bytes, since there are at least 2 classes.
        let address = unsafe { result::malloc_sync(bytes) }.map_err(failed(&format!("{name}: {bytes} bytes of device memory")))?;
        Ok(Self { address })
    }

    /// Frees the memory; the context must be current. `cuMemFree` waits for all work on the device (CUDA Driver API).
    pub fn free(self) {
        // SAFETY: allocated by `new`. An error here stems from earlier work, or from a driver that is shutting down.
        let _ = unsafe { result::free_sync(self.address) };
    }
}

/// Enqueues a copy to the device; synchronise the stream before `from` is changed or freed. (The driver usually
/// stages pageable memory, but a device that can access pageable memory need not.)
///
/// # Safety
/// `to` has room for `from`.
pub(in crate::cuda) unsafe fn upload<T>(to: u64, from: &[T], stream: Stream) -> Result<()> {
    // SAFETY: guaranteed by the caller.
    unsafe { result::memcpy_htod_async(to, from, stream.0) }.map_err(failed("copying to the device"))
}

/// Enqueues a copy from the device; synchronise the stream before `to` is read or freed.
///
/// # Safety
/// `from` has at least as many bytes as `to`.
pub(in crate::cuda) unsafe fn download<T>(to: &mut [T], from: u64, stream: Stream) -> Result<()> {
    // SAFETY: guaranteed by the caller.
    unsafe { result::memcpy_dtoh_async(to, from, stream.0) }.map_err(failed("copying from the device"))
}

/// Enqueues zeroing of `bytes` bytes.
///
/// # Safety
/// There are that many bytes at `at`.
pub(in crate::cuda) unsafe fn clear(at: u64, bytes: usize, stream: Stream) -> Result<()> {
    // SAFETY: guaranteed by the caller.
    unsafe { result::memset_d8_async(at, 0, bytes, stream.0) }.map_err(failed("clearing device memory"))
}
