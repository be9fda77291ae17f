//! Which library this is.

use std::ffi::{CStr, c_char};

/// The version of the ABI, see `ols_abi_version`.
pub const OLS_ABI_VERSION: u32 = 0;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("a version has no 0 inside"),
};

/// The version of the library that is loaded, such as "0.1.0"; compare with `OLS_VERSION`, that of this header.
///
/// The string is constant and lives as long as the library is loaded; never NULL. Safe from any thread; cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn ols_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The version of the ABI of the library that is loaded; compare with `OLS_ABI_VERSION`, that of this header: a program may use any library whose
/// number is its own. 0 stands for the releases below 1.0, whose ABI may change with each minor version: there compare `ols_version` too.
///
/// The SONAME has the number, and below 1.0 the minor version behind it. From 1.0 on, within a number functions, constants and fields at the end of structs may be added, and nothing is
/// changed or taken away. Safe from any thread; cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn ols_abi_version() -> u32 {
    OLS_ABI_VERSION
}
