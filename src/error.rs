//! The one error of the library: what kind it is, and a message that names the argument, the rule and the value.

use std::fmt;

/// What went wrong, coarsely: what a program can act on. The C ABI gives each kind a permanent number (`ols_status_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is null, not finite, outside its range, or inconsistent with another one.
    InvalidArgument,
    /// A tensor has a dtype that this argument does not take.
    InvalidDtype,
    /// A tensor has the wrong number of dimensions, a wrong size, or strides that cannot be read or written.
    InvalidShape,
    /// A tensor lives on another device than the criterion.
    InvalidDevice,
    /// A target is neither a class nor the ignore index.
    TargetOutOfRange,
    /// The criterion's state does not permit the call.
    InvalidState,
    /// This build or machine cannot do what is asked.
    Unsupported,
    /// Memory could not be allocated.
    OutOfMemory,
    /// The operating system refused to read or write a file.
    Io,
    /// The bytes are not a saved state, or a truncated or damaged one.
    InvalidFile,
    /// CUDA reported an error.
    Cuda,
}

/// An error of the library. Its text names the argument, the rule that it breaks, and the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// The library's results.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind` that reads `message`.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What went wrong, coarsely.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What went wrong, in words.
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
