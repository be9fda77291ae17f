//! The error type of the library: a kind, and a message that names the argument, the rule and the value.

use std::fmt;

/// The kind of an error, for programs to act on. The C ABI gives each kind a permanent number (`ols_status_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is null, not finite, out of range, or inconsistent with another one.
    InvalidArgument,
    /// A tensor has a dtype that is not supported for this argument.
    InvalidDtype,
    /// A tensor has the wrong number of dimensions, a wrong size, or unusable strides.
    InvalidShape,
    /// A tensor is on a different device from the criterion, or there is no such device.
    InvalidDevice,
    /// A target is neither a class nor the ignore index.
    TargetOutOfRange,
    /// The call is not valid in the criterion's current state.
    InvalidState,
    /// This build or this machine does not support the request.
    Unsupported,
    /// Memory could not be allocated.
    OutOfMemory,
    /// The operating system could not read or write a file.
    Io,
    /// The data is not a saved state, or is truncated or corrupted.
    InvalidFile,
    /// CUDA reported an error.
    Cuda,
}

/// An error of the library. Its message names the argument, the rule that was violated, and the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// The result type of the library.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind` that reads `message`.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Returns from the caller with an error: `fail!(InvalidArgument, "alpha = {alpha} is outside [0, 1]")`.
macro_rules! fail {
    ($kind:ident, $($message:tt)+) => {
        return Err($crate::error::Error::new($crate::error::ErrorKind::$kind, format!($($message)+)))
    };
}
pub(crate) use fail;
