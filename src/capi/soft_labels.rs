//! S, to read in place and to replace.

use std::ffi::c_void;

use super::args::check_pointer;
use super::boundary::boundary;
use super::criterion::{lock, ols_criterion_t};
use super::passes::read_tensor;
use super::status::ols_status_t;
use super::tensor::ols_tensor_t;
use crate::stream::CudaStream;

/// Retrieves a view of the soft labels S, in place: f32 of shape (K, K), one row per class.
///
/// The memory belongs to the criterion, or to the caller if it was given to `ols_create`; the view
/// is valid until `ols_destroy` and always shows the current S. It may be read and written while no
/// call on the criterion is in progress; values must be finite and >= 0. Safe to call from any
/// thread. On failure `*out` is unchanged.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `out` is NULL or points to a writable
/// `ols_tensor_t`.
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

/// Replaces the soft labels S by `soft_labels`: f32 or f64 of shape (K, K), finite and >= 0 as f32.
/// Rows need not sum to 1.
///
/// The values are copied. The tensor remains the property of the caller and must not overlap S
/// itself. `stream` is the `cudaStream_t` on which the work is enqueued; ignored on the CPU. Safe to
/// call from any thread; takes effect with the next call. On failure S is unchanged.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `soft_labels` is NULL or points to a
/// tensor whose memory can be read.
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
