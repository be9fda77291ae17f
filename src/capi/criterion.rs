//! The handle: a criterion behind a lock, and its life.

use std::sync::{Mutex, MutexGuard};

use safer_ffi::prelude::*;

use super::args::{Region, check_pointer, read_struct};
use super::boundary::{boundary, silent_boundary};
use super::options::{CreationOptions, ols_options_t};
use super::status::ols_status_t;
use crate::cpu::DefaultFloatEnvironment;
use crate::criterion::Criterion;
use crate::error::{Result, fail};

/// A criterion: the loss function together with the soft labels that it learns. Opaque; created by
/// `ols_create` and destroyed by `ols_destroy`.
///
/// A criterion may be used from any thread. Calls on the same criterion are serialised; different
/// criteria share no state.
#[derive_ReprC]
#[repr(opaque)]
pub struct ols_criterion_t {
    criterion: Mutex<Criterion>,
}

// Handles go from thread to thread as bare pointers, where the compiler cannot ask.
const _: () = {
    const fn crosses_threads<T: Send + Sync>() {}
    crosses_threads::<ols_criterion_t>();
};

/// Locks the criterion that `pointer` names.
///
/// # Safety
/// `pointer` is NULL or came from `ols_create` and is not destroyed during `'a`.
pub(super) unsafe fn lock<'a>(pointer: *const ols_criterion_t) -> Result<MutexGuard<'a, Criterion>> {
    check_pointer("criterion", pointer)?;
    // SAFETY: neither NULL nor misaligned; the rest is the caller's promise.
    match unsafe { &*pointer }.criterion.lock() {
        Ok(criterion) => Ok(criterion),
        Err(_) => fail!(InvalidState, "an earlier call on this criterion panicked, so its state cannot be trusted; destroy it"),
    }
}

/// Creates a criterion and stores its handle in `*out`.
///
/// The options are copied, including the class weights and the initial soft labels. Memory given as
/// `soft_labels`, `sums`, `counts` or `counters` remains the property of the caller and is used
/// until `ols_destroy`; it is initialised to the state of a new criterion unless
/// `OLS_OPTIONS_ADOPT_STATE` is set. Destroy the criterion with `ols_destroy`. Safe to call from any
/// thread. On failure `*out` and the caller's memory are unchanged.
///
/// Fails if an option is out of range or if memory overlaps; with `OLS_STATUS_UNSUPPORTED` if the
/// device is not available on this machine; and with `OLS_STATUS_OUT_OF_MEMORY`: a criterion that
/// owns its state needs 12 K^2 bytes.
///
/// # Safety
/// `options` is NULL or points to an initialised `ols_options_t` whose tensors refer
/// to readable memory, and to writable memory for the state; `out` is NULL or points to a writable
/// pointer, which need not be initialised.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_create(options: *const ols_options_t, out: *mut Option<repr_c::Box<ols_criterion_t>>) -> ols_status_t {
    boundary("ols_create", || {
        // SAFETY: the caller's promise.
        let given = unsafe { read_struct("options", options)? };
        check_pointer("out", out)?;
        let out_region = Region::of("out", out);
        out_region.check_apart(&[Region::bytes("options", options.cast(), given.struct_size)])?;
        // A matrix of f64 is rounded here.
        let _environment = DefaultFloatEnvironment::enter();
        // SAFETY: the caller's promise, for the arguments and for the memory of the state.
        let criterion = unsafe {
            let CreationOptions { options, memory } = given.to_core(options, &out_region)?;
            Mutex::new(Criterion::with_memory(&options, &memory)?)
        };
        let handle = Box::new(ols_criterion_t { criterion }).into();
        // SAFETY: neither NULL nor misaligned. `write`, not `=`: the caller's pointer need not be initialised and must not be dropped.
        unsafe { out.write(Some(handle)) };
        Ok(())
    })
}

/// Destroys a criterion. Passing NULL is a no-op.
///
/// Waits for outstanding work on the criterion's device, then frees everything that the library
/// allocated for it. The handle and all views of its state become invalid; state memory given by the
/// caller is not freed and is no longer used. No other call on the criterion may be in progress or
/// follow. May be called from any thread, not only the one that created the criterion. Cannot fail,
/// and does not change the text of `ols_last_error`.
///
/// # Safety
/// `criterion` is NULL or came from `ols_create` and has not been destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_destroy(criterion: Option<repr_c::Box<ols_criterion_t>>) {
    silent_boundary(|| drop(criterion));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capi::{ols_destroy, ols_last_error, ols_mode, ols_next_epoch};
    use crate::options::Options;

    #[test]
    fn a_criterion_in_which_a_call_panicked_refuses_all_others() {
        let criterion = Mutex::new(Criterion::new(&Options::new(3)).unwrap());
        let mut handle = ols_criterion_t { criterion };
        let pointer = &raw mut handle;
        let status = boundary("f", || {
            // SAFETY: the handle lives until the end of the test.
            let _locked = unsafe { lock(pointer)? };
            panic!("in the midst of a call")
        });
        assert_eq!(status, ols_status_t::OLS_STATUS_PANIC);
        let mut mode = 77;
        // SAFETY: as above, and the output is an `i32`.
        unsafe {
            assert_eq!(ols_next_epoch(pointer, std::ptr::null_mut()), ols_status_t::OLS_STATUS_INVALID_STATE);
            assert!(std::ffi::CStr::from_ptr(ols_last_error()).to_str().unwrap().contains("panicked"));
            assert_eq!(ols_mode(pointer, &raw mut mode), ols_status_t::OLS_STATUS_INVALID_STATE);
        }
        assert_eq!(mode, 77);
        // SAFETY: NULL.
        unsafe { ols_destroy(None) };
    }
}
