//! Entry points for the tests of the ABI, in builds with `--cfg ols_test_hooks` alone: no release has them, and no header names them.

use super::boundary::boundary;
use super::criterion::{lock, ols_criterion_t};
use super::status::ols_status_t;

/// Panics in the midst of a call on `criterion`.
///
/// # Safety
/// As for every function that takes a criterion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_test_panic(criterion: *mut ols_criterion_t) -> ols_status_t {
    boundary("ols_test_panic", || {
        // SAFETY: the caller's promise.
        let _locked = unsafe { lock(criterion)? };
        panic!("asked for by a test");
    })
}
