//! The caller's CUDA stream.
#![allow(unsafe_code, reason = "a stream is an address that only its owner can vouch for")]

use std::ffi::c_void;

/// A CUDA stream of the caller's, on which a criterion enqueues its work; ignored on the CPU.
///
/// Default: the legacy default stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaStream(*mut c_void);

// SAFETY: a handle; the driver's streams may be used from any thread.
unsafe impl Send for CudaStream {}
// SAFETY: as above.
unsafe impl Sync for CudaStream {}

impl CudaStream {
    /// The legacy default stream.
    pub const LEGACY: Self = Self(std::ptr::null_mut());

    /// The stream with this handle, a `cudaStream_t` or `CUstream`; NULL is the legacy default stream.
    ///
    /// # Safety
    /// The handle is NULL, one of CUDA's special handles, or a stream of the criterion's device that is not destroyed before the last call that it is
    /// given to returns.
    pub const unsafe fn from_raw(handle: *mut c_void) -> Self {
        Self(handle)
    }

    /// The handle.
    pub const fn as_raw(self) -> *mut c_void {
        self.0
    }
}

impl Default for CudaStream {
    fn default() -> Self {
        Self::LEGACY
    }
}
