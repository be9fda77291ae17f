//! S, to read in place and to replace.

use std::ffi::c_void;

use super::args::check_pointer;
use super::boundary::boundary;
use super::criterion::{lock, ols_criterion_t};
use super::passes::read_tensor;
use super::status::ols_status_t;
use super::tensor::ols_tensor_t;
use crate::stream::CudaStream;

/// Writes a view of the soft labels S to `*out`: f32 (K, K), a row per class, in place.
///
/// The memory is the criterion's, or the caller's own if `ols_create` was given some; the view holds until `ols_destroy`, and always shows S as
/// it is. It may be read, and written, while no call on the criterion runs (values: finite and >= 0). Safe from any thread. On failure `*out` is
/// as before.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `out` is NULL or points to a writable `ols_tensor_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_soft_labels(criterion: *mut ols_criterion_t, out: *mut ols_tensor_t) -> ols_status_t {
    boundary("ols_soft_labels", || {
        // SAFETY: the caller's promise.
        let mut criterion = unsafe { lock(criterion)? };
        check_pointer("out", out)?;
        let [soft_labels, ..] = criterion.state_views();
        // SAFETY: neither NULL nor misaligned; the rest is the caller's promise.
        unsafe { out.write(ols_tensor_t::from_raw(&soft_labels)) };
        Ok(())
    })
}

/// Replaces the soft labels S by `soft_labels`: f32 or f64 (K, K), finite and >= 0 as f32; rows need not sum to 1.
///
/// The values are copied; the tensor stays the caller's and must not overlap S itself. `stream`: a `cudaStream_t` to enqueue on; the CPU does not
/// look at it. Safe from any thread; holds from the next call on. On failure S is as before.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `soft_labels` is NULL or points to a tensor whose memory can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_set_soft_labels(
    criterion: *mut ols_criterion_t,
    soft_labels: *const ols_tensor_t,
    stream: *mut c_void,
) -> ols_status_t {
    boundary("ols_set_soft_labels", || {
        // SAFETY: the caller's promise.
        unsafe { lock(criterion)?.set_soft_labels_raw(read_tensor("soft_labels", soft_labels)?, CudaStream::from_raw(stream)) }
    })
}
