//! What can be changed and asked while a criterion lives: mode, epoch, alpha.

use super::args::check_pointer;
use super::boundary::boundary;
use super::criterion::{lock, ols_criterion_t};
use super::options::{mode_from_number, number_of_mode};
use super::status::ols_status_t;

/// Sets the mode, an `ols_mode_t`, which determines whether forward passes update the statistics.
///
/// No ownership is transferred. Safe to call from any thread. On failure (not an `ols_mode_t`) the
/// mode is unchanged.
///
/// # Safety
/// `criterion` is NULL or a live criterion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_set_mode(criterion: *mut ols_criterion_t, mode: i32) -> ols_status_t {
    boundary("ols_set_mode", || {
        // SAFETY: the caller's promise.
        let mut criterion = unsafe { lock(criterion)? };
        criterion.set_mode(mode_from_number(mode)?);
        Ok(())
    })
}

/// Retrieves the mode, an `ols_mode_t`.
///
/// No ownership is transferred. Safe to call from any thread. On failure `*out` is unchanged.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `out` is NULL or points to a writable
/// `int32_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_mode(criterion: *const ols_criterion_t, out: *mut i32) -> ols_status_t {
    boundary("ols_mode", || {
        // SAFETY: the caller's promise.
        let criterion = unsafe { lock(criterion)? };
        check_pointer("out", out)?;
        // SAFETY: neither NULL nor misaligned; the rest is the caller's promise.
        unsafe { out.write(number_of_mode(criterion.mode())) };
        Ok(())
    })
}

/// Sets alpha, the weight of the hard label, in [0, 1], for example to follow a schedule.
///
/// No ownership is transferred. Safe to call from any thread; takes effect with the next call. On
/// failure (NaN, or outside [0, 1]) alpha is unchanged.
///
/// # Safety
/// `criterion` is NULL or a live criterion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_set_alpha(criterion: *mut ols_criterion_t, alpha: f64) -> ols_status_t {
    boundary("ols_set_alpha", || {
        // SAFETY: the caller's promise.
        let mut criterion = unsafe { lock(criterion)? };
        criterion.set_alpha(alpha)
    })
}

/// Retrieves the number of completed epochs; initially 0.
///
/// No ownership is transferred. Safe to call from any thread. On failure `*out` is unchanged.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `out` is NULL or points to a writable
/// `int64_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_epoch(criterion: *const ols_criterion_t, out: *mut i64) -> ols_status_t {
    boundary("ols_epoch", || {
        // SAFETY: the caller's promise.
        let criterion = unsafe { lock(criterion)? };
        check_pointer("out", out)?;
        // SAFETY: neither NULL nor misaligned; the rest is the caller's promise.
        unsafe { out.write(criterion.epoch()) };
        Ok(())
    })
}

/// Sets the number of completed epochs, for callers that save and restore the state themselves.
///
/// No ownership is transferred. Safe to call from any thread. On failure (negative, or INT64_MAX)
/// the number is unchanged.
///
/// # Safety
/// `criterion` is NULL or a live criterion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_set_epoch(criterion: *mut ols_criterion_t, epoch: i64) -> ols_status_t {
    boundary("ols_set_epoch", || {
        // SAFETY: the caller's promise.
        let mut criterion = unsafe { lock(criterion)? };
        criterion.set_epoch(epoch)
    })
}
