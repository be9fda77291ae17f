//! Memory: whose it is, memory of our own on a device, and copies.

use std::ffi::c_void;

use cudarc::driver::{DriverError, result, sys};

use super::{Stream, failed, start};
use crate::error::{Result, fail};
use crate::tensor::{Device as DeviceName, RawTensor};

/// Memory, as the driver knows it.
pub(in crate::cuda) enum Memory {
    Device(i32),
    /// Of the host; also what the driver does not know at all.
    Host,
}

/// Where the memory at `pointer` is; `name` is what messages call it.
///
/// # Errors
/// What the driver reports of work that ran before.
pub(in crate::cuda) fn memory_at(name: &str, pointer: *const u8) -> Result<Memory> {
    use sys::CUpointer_attribute_enum as Attribute;
    let (mut kind, mut device) = (0u32, -1i32);
    let mut attributes = [Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL];
    let mut to = [(&raw mut kind).cast::<c_void>(), (&raw mut device).cast()];
    // SAFETY: two attributes, and a number to write for each. The driver looks the address up and does not read there.
    let answer = unsafe { sys::cuPointerGetAttributes(2, attributes.as_mut_ptr(), to.as_mut_ptr(), pointer as u64) };
    match answer.result() {
        // The type is 0 for memory that the driver does not know.
        Ok(()) if kind == sys::CUmemorytype_enum::CU_MEMORYTYPE_DEVICE as u32 => Ok(Memory::Device(device)),
        Ok(()) | Err(DriverError(sys::CUresult::CUDA_ERROR_INVALID_VALUE)) => Ok(Memory::Host),
        Err(error) => Err(failed(&format!("{name}.data = {pointer:p}: cuPointerGetAttributes"))(error)),
    }
}

/// Checks that `tensor`, which the host is to read, is not memory of a device. `device`: one on which CUDA is to be used anyway.
pub(crate) fn check_host_memory(device: DeviceName, name: &str, tensor: &RawTensor) -> Result<()> {
    start(device)?;
    match memory_at(name, tensor.data)? {
        Memory::Device(id) if !tensor.is_empty() => {
            fail!(InvalidDevice, "{name}.data = {:p} is memory of cuda:{id}, but it is read by the host", tensor.data)
        }
        _ => Ok(()),
    }
}

/// Memory of the device that is ours. Freed with the context current.
#[derive(Debug)]
pub(in crate::cuda) struct DeviceMemory {
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

    /// Gives the memory back; the context is current. Memory from `cuMemAlloc` is freed once all work on the device has run, which the call waits for
    /// (CUDA Driver API, `cuMemFree`).
    pub fn free(self) {
        // SAFETY: it was allocated by `new`. An error here is one of earlier work, or of a driver that shuts down.
        let _ = unsafe { result::free_sync(self.address) };
    }
}

/// Copies to the device; wait for the stream before `from` changes or goes. (The driver stages pageable memory, mostly: a device that reads such memory
/// itself need not.)
///
/// # Safety
/// `to` has room.
pub(in crate::cuda) unsafe fn upload<T>(to: u64, from: &[T], stream: Stream) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { result::memcpy_htod_async(to, from, stream.0) }.map_err(failed("copying to the device"))
}

/// Enqueues a copy from the device; wait for the stream before `to` is read or goes.
///
/// # Safety
/// `from` has as much.
pub(in crate::cuda) unsafe fn download<T>(to: &mut [T], from: u64, stream: Stream) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { result::memcpy_dtoh_async(to, from, stream.0) }.map_err(failed("copying from the device"))
}

/// Enqueues zeros.
///
/// # Safety
/// There are that many bytes.
pub(in crate::cuda) unsafe fn clear(at: u64, bytes: usize, stream: Stream) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { result::memset_d8_async(at, 0, bytes, stream.0) }.map_err(failed("clearing device memory"))
}
