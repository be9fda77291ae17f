//! What a call works on: a context, a stream, and the rules of stream capture.

use cudarc::driver::{DriverError, result, sys};

use super::failed;
use crate::error::{Result, fail};
use crate::stream::CudaStream;

/// A stream of the caller's.
#[derive(Clone, Copy, Debug)]
pub(in crate::cuda) struct Stream(pub sys::CUstream);

impl Stream {
    pub fn new(stream: CudaStream) -> Self {
        Self(stream.as_raw().cast())
    }

    /// The calling thread's default stream (`CU_STREAM_PER_THREAD`). Unlike the legacy stream it can be used while another stream is captured.
    pub fn per_thread() -> Self {
        Self(std::ptr::without_provenance_mut(2))
    }

    /// Checks that nothing keeps work on this stream from running and from being waited for.
    ///
    /// # Errors
    /// It is being captured; the legacy stream where another one is.
    pub fn check_not_captured(self) -> Result<()> {
        let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        // SAFETY: writes one number; the driver knows its streams, and refuses others.
        unsafe { sys::cuStreamIsCapturing(self.0, &raw mut status) }.result().map_err(failed("the stream cannot be waited for"))?;
        if status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE {
            fail!(InvalidState, "stream = {:p} is being captured, but this call waits for it", self.0);
        }
        Ok(())
    }

    /// Waits for all that was enqueued.
    pub fn wait(self) -> Result<()> {
        // SAFETY: the driver knows its streams, and refuses others.
        unsafe { result::stream::synchronize(self.0) }.map_err(failed("waiting for the stream"))
    }
}

/// Our context is current on this thread; [`leave`](Self::leave), or dropping it, brings the caller's back.
pub(in crate::cuda) struct Current {
    callers: Option<sys::CUcontext>,
    changed: bool,
}

impl Current {
    pub fn enter(context: sys::CUcontext) -> Result<Self> {
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

/// While it lives, this thread may allocate, free and load modules although a stream is captured somewhere: none of that becomes part of a graph. The
/// context is current.
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
        // SAFETY: as above. It was this thread's mode before, so it is one.
        let _ = unsafe { sys::cuThreadExchangeStreamCaptureMode(&raw mut self.callers) };
    }
}

/// Waits for everything on the device; the context is current.
pub(in crate::cuda) fn wait_for_device() -> Result<()> {
    result::ctx::synchronize().map_err(failed("waiting for the device"))
}
