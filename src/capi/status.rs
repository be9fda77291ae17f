//! Status numbers, their names, and the text of the latest error.

use std::ffi::{CStr, c_char};

use safer_ffi::prelude::*;

use super::boundary;
use crate::error::ErrorKind;

/// What a call came to. The numbers are permanent; a retired one is never used again, and new ones may come: treat an unknown one as a failure.
#[derive_ReprC]
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ols_status_t {
    /// The call succeeded, and every output is written.
    OLS_STATUS_OK = 0,
    /// An argument is NULL, misaligned, not finite, outside its range, or inconsistent with another one.
    OLS_STATUS_INVALID_ARGUMENT = 1,
    /// A tensor has a dtype that this argument does not take.
    OLS_STATUS_INVALID_DTYPE = 2,
    /// A tensor has the wrong number of dimensions, a wrong size, or strides that cannot be read or written.
    OLS_STATUS_INVALID_SHAPE = 3,
    /// A tensor lives on another device than the criterion.
    OLS_STATUS_INVALID_DEVICE = 4,
    /// A target is neither a class nor the ignore index.
    OLS_STATUS_TARGET_OUT_OF_RANGE = 5,
    /// The state of the criterion does not permit the call; also every call on a criterion in which a call has panicked.
    OLS_STATUS_INVALID_STATE = 6,
    /// This build or this machine cannot do what is asked.
    OLS_STATUS_UNSUPPORTED = 7,
    /// Memory could not be allocated.
    OLS_STATUS_OUT_OF_MEMORY = 8,
    /// The operating system refused to read or write a file.
    OLS_STATUS_IO = 9,
    /// The bytes are not a saved state, or a truncated or damaged one.
    OLS_STATUS_INVALID_FILE = 10,
    /// CUDA reported an error.
    OLS_STATUS_CUDA = 11,
    /// A bug in libols. Nothing has left the library; the criterion refuses all further calls but `ols_destroy`.
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

/// Names a status: "INVALID_SHAPE" for `OLS_STATUS_INVALID_SHAPE`, "UNKNOWN" for a number that this library does not know.
///
/// The string is constant and lives as long as the library is loaded; never NULL. Safe from any thread; cannot fail, and leaves the text of
/// `ols_last_error` as it is.
#[unsafe(no_mangle)]
pub extern "C" fn ols_status_string(status: i32) -> *const c_char {
    NAMES.iter().find(|(known, _)| *known as i32 == status).map_or(c"UNKNOWN", |(_, name)| name).as_ptr()
}

/// Says what went wrong in this thread's latest call that returns a status: the function, the argument, the rule and the value, in English, as in
/// `ols_forward: target[17] = 1003 is outside [0, 1000) and is not ignore_index (-100)`. Empty if that call succeeded.
///
/// The text belongs to the library and stays until this thread's next call that returns a status, or the thread's end: copy it to keep it. Never
/// NULL; UTF-8, at most 1023 bytes. Each thread has a text of its own. Cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn ols_last_error() -> *const c_char {
    boundary::message()
}
