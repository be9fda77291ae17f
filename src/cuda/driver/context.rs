//! Contexts and streams, and what may be done while a stream is being captured.

use cudarc::driver::{DriverError, result, sys};

use super::failed;
use crate::error::{Result, fail};
use crate::stream::CudaStream;

/// A stream passed by the caller.
#[derive(Clone, Copy, Debug)]
pub(in crate::cuda) struct Stream(pub sys::CUstream);

impl Stream {
    pub fn new(stream: CudaStream) -> Self {
        Self(stream.as_raw().cast())
    }

    /// The calling thread's default stream (`CU_STREAM_PER_THREAD`). Unlike the legacy default stream, it can be used
    /// while another stream is being captured.
    pub fn per_thread() -> Self {
        Self(std::ptr::without_provenance_mut(2))
    }

    /// Checks that the stream can be synchronised.
    ///
    /// # Errors
    /// The stream is being captured, or it is the legacy default stream and another stream is being captured.
    pub fn check_not_captured(self) -> Result<()> {
        let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        // SAFETY: writes one number; the driver validates stream handles.
        unsafe { sys::cuStreamIsCapturing(self.0, &raw mut status) }.result().map_err(failed("cannot wait for the stream"))?;
        if status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE {
            fail!(InvalidState, "stream = {:p} is being captured, but this call waits for it", self.0);
        }
        Ok(())
    }

    /// Waits for all work enqueued so far.
    pub fn wait(self) -> Result<()> {
        // SAFETY: the driver validates stream handles.
        unsafe { result::stream::synchronize(self.0) }.map_err(failed("waiting for the stream"))
    }
}

/// Guard that makes our context current on this thread; [`leave`](Self::leave), or dropping it, restores the
/// caller's.
pub(in crate::cuda) struct Current {
    callers: Option<sys::CUcontext>,
    changed: bool,
}

impl Current {
    pub fn enter(context: sys::CUcontext) -> Result<Self> {
        let callers = result::ctx::get_current().map_err(failed("cuCtxGetCurrent"))?;
        let changed = callers != Some(context);
        if changed {
            // SAFETY: a primary context that we have retained.
            unsafe { result::ctx::set_current(context) }.map_err(failed("cuCtxSetCurrent"))?;
        }
        Ok(Self { callers, changed })
    }

    /// Restores the caller's context.
    pub fn leave(mut self) -> Result<()> {
        self.restore().map_err(failed("cuCtxSetCurrent"))
    }

    fn restore(&mut self) -> std::result::Result<(), DriverError> {
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        // SAFETY: this context was current before.
        unsafe { result::ctx::set_current(self.callers.unwrap_or(std::ptr::null_mut())) }
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        // Dropped without `leave` only while returning another error, which takes precedence.
        let _ = self.restore();
    }
}

/// Guard that puts this thread into relaxed capture mode: allocating, freeing and loading modules is permitted
/// although some stream is being captured, since none of it becomes part of a graph. The context must be current.
pub(in crate::cuda) struct RelaxedCapture {
    callers: sys::CUstreamCaptureMode,
}

impl RelaxedCapture {
    pub fn enter() -> Result<Self> {
        let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: reads and writes one number.
        unsafe { sys::cuThreadExchangeStreamCaptureMode(&raw mut mode) }.result().map_err(failed("cuThreadExchangeStreamCaptureMode"))?;
        Ok(Self { callers: mode })
    }
}

impl Drop for RelaxedCapture {
    fn drop(&mut self) {
        // SAFETY: as above. The value was this thread's mode before, so it is valid.
        let _ = unsafe { sys::cuThreadExchangeStreamCaptureMode(&raw mut self.callers) };
    }
}

/// Waits for all work on the device; the context must be current.
pub(in crate::cuda) fn wait_for_device() -> Result<()> {
    result::ctx::synchronize().map_err(failed("waiting for the device"))
}
