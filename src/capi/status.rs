//! Status numbers, their names, and the text of the latest error.

use std::ffi::{CStr, c_char};

use safer_ffi::prelude::*;

use super::boundary;
use crate::error::ErrorKind;

/// The result of a call. The numbers are permanent and never reused. New ones may be added: treat an
/// unknown status as a failure.
#[derive_ReprC]
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ols_status_t {
    /// The call succeeded and all outputs have been written.
    OLS_STATUS_OK = 0,
    /// An argument is NULL, misaligned, not finite, out of range, or inconsistent with another
    /// one.
    OLS_STATUS_INVALID_ARGUMENT = 1,
    /// A tensor has a dtype that is not supported for this argument.
    OLS_STATUS_INVALID_DTYPE = 2,
    /// A tensor has the wrong number of dimensions, a wrong size, or unusable strides.
    OLS_STATUS_INVALID_SHAPE = 3,
    /// A tensor is on a different device from the criterion, or there is no such device.
    OLS_STATUS_INVALID_DEVICE = 4,
    /// A target is neither a class nor the ignore index.
    OLS_STATUS_TARGET_OUT_OF_RANGE = 5,
    /// The call is not valid in the criterion's current state. After a panic, every call on the
    /// criterion returns this status.
    OLS_STATUS_INVALID_STATE = 6,
    /// This build or this machine does not support the request.
    OLS_STATUS_UNSUPPORTED = 7,
    /// Memory could not be allocated.
    OLS_STATUS_OUT_OF_MEMORY = 8,
    /// The operating system could not read or write a file.
    OLS_STATUS_IO = 9,
    /// The data is not a saved state, or is truncated or corrupted.
    OLS_STATUS_INVALID_FILE = 10,
    /// CUDA reported an error.
    OLS_STATUS_CUDA = 11,
    /// An internal error (a bug in libols). The criterion then rejects every call except
    /// `ols_destroy`.
    OLS_STATUS_PANIC = 255,
}

impl From<ErrorKind> for ols_status_t {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidArgument => Self::OLS_STATUS_INVALID_ARGUMENT,
            ErrorKind::InvalidDtype => Self::OLS_STATUS_INVALID_DTYPE,
            ErrorKind::InvalidShape => Self::OLS_STATUS_INVALID_SHAPE,
            ErrorKind::InvalidDevice => Self::OLS_STATUS_INVALID_DEVICE,
            ErrorKind::TargetOutOfRange => Self::OLS_STATUS_TARGET_OUT_OF_RANGE,
            ErrorKind::InvalidState => Self::OLS_STATUS_INVALID_STATE,
            ErrorKind::Unsupported => Self::OLS_STATUS_UNSUPPORTED,
            ErrorKind::OutOfMemory => Self::OLS_STATUS_OUT_OF_MEMORY,
            ErrorKind::Io => Self::OLS_STATUS_IO,
            ErrorKind::InvalidFile => Self::OLS_STATUS_INVALID_FILE,
            ErrorKind::Cuda => Self::OLS_STATUS_CUDA,
        }
    }
}

/// Every status with its name, for `ols_status_string`.
const NAMES: [(ols_status_t, &CStr); 13] = [
    (ols_status_t::OLS_STATUS_OK, c"OK"),
    (ols_status_t::OLS_STATUS_INVALID_ARGUMENT, c"INVALID_ARGUMENT"),
    (ols_status_t::OLS_STATUS_INVALID_DTYPE, c"INVALID_DTYPE"),
    (ols_status_t::OLS_STATUS_INVALID_SHAPE, c"INVALID_SHAPE"),
    (ols_status_t::OLS_STATUS_INVALID_DEVICE, c"INVALID_DEVICE"),
    (ols_status_t::OLS_STATUS_TARGET_OUT_OF_RANGE, c"TARGET_OUT_OF_RANGE"),
    (ols_status_t::OLS_STATUS_INVALID_STATE, c"INVALID_STATE"),
    (ols_status_t::OLS_STATUS_UNSUPPORTED, c"UNSUPPORTED"),
    (ols_status_t::OLS_STATUS_OUT_OF_MEMORY, c"OUT_OF_MEMORY"),
    (ols_status_t::OLS_STATUS_IO, c"IO"),
    (ols_status_t::OLS_STATUS_INVALID_FILE, c"INVALID_FILE"),
    (ols_status_t::OLS_STATUS_CUDA, c"CUDA"),
    (ols_status_t::OLS_STATUS_PANIC, c"PANIC"),
];

/// Returns the name of a status: "INVALID_SHAPE" for `OLS_STATUS_INVALID_SHAPE`, or "UNKNOWN" for a
/// number that this library does not define.
///
/// The string is constant, never NULL, and valid for as long as the library is loaded. Safe to call
/// from any thread. Cannot fail, and does not change the text of `ols_last_error`.
#[unsafe(no_mangle)]
pub extern "C" fn ols_status_string(status: i32) -> *const c_char {
    NAMES.iter().find(|(known, _)| *known as i32 == status).map_or(c"UNKNOWN", |(_, name)| name).as_ptr()
}

/// Returns the error message of the calling thread's most recent call that returns a status, or an
/// empty string if that call succeeded.
///
/// The message is in English and names the function, the argument, the rule and the value, for
/// example `ols_forward: target[17] = 1003 is outside [0, 1000) and is not ignore_index (-100)`.
///
/// The string is owned by the library, is never NULL, and holds at most 1023 bytes of UTF-8. It is
/// valid until the same thread makes another call that returns a status, or exits: copy it to keep
/// it. Each thread has its own message. Cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn ols_last_error() -> *const c_char {
    boundary::message()
}
