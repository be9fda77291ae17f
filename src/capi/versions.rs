//! Which library this is.

use std::ffi::{CStr, c_char};

/// The ABI version of this header; see `ols_abi_version`.
pub const OLS_ABI_VERSION: u32 = 0;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("a version has no 0 inside"),
};

/// Returns the version of the loaded library, such as "0.1.0". Compare it with `OLS_VERSION`, the
/// version of this header.
///
/// The string is constant, never NULL, and valid for as long as the library is loaded. Safe to call
/// from any thread. Cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn ols_version() -> *const c_char {
    VERSION.as_ptr()
}

/// Returns the ABI version of the loaded library. A program may use any library whose ABI version
/// equals its own `OLS_ABI_VERSION`.
///
/// The value 0 denotes the releases before 1.0, whose ABI may change with each minor version; for
/// those, compare `ols_version` as well, and the SONAME has both numbers (`libols.so.0.1`). From 1.0
/// on, the ABI version is the number in the SONAME. Within one ABI version, functions, constants and
/// fields at the end of structs may be added; nothing is changed or removed. Safe to call from any
/// thread. Cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn ols_abi_version() -> u32 {
    OLS_ABI_VERSION
}
