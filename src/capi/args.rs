//! The one place where a C caller's arguments are taken apart: pointers, structs that grow, regions that must not overlap.

use std::ffi::{CStr, c_char};
use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::path::Path;

use crate::error::{Result, fail};
use crate::tensor::RawTensor;

/// Refuses a pointer that is NULL or misaligned.
pub(super) fn check_pointer<T>(name: &str, pointer: *const T) -> Result<()> {
    if pointer.is_null() {
        fail!(InvalidArgument, "{name} is NULL");
    }
    if !pointer.is_aligned() {
        fail!(InvalidArgument, "{name} = {pointer:p} is not aligned to {} bytes", align_of::<T>());
    }
    Ok(())
}

/// A path of the caller's.
///
/// # Safety
/// `path` is NULL or points to a string that ends with 0 and stays as it is during `'a`.
pub(super) unsafe fn path<'a>(path: *const c_char) -> Result<&'a Path> {
    check_pointer("path", path)?;
    // SAFETY: not NULL; the rest is the caller's promise.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
    if bytes.is_empty() {
        fail!(InvalidArgument, "path is empty");
    }
    #[cfg(unix)]
    let path = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes);
    #[cfg(not(unix))]
    let Ok(path) = std::str::from_utf8(bytes) else { fail!(InvalidArgument, "path is not UTF-8") };
    Ok(Path::new(path))
}

/// A struct that begins with `struct_size` and may grow at its end.
///
/// # Safety
/// The type is `repr(C)`, has no padding, begins with a `usize`, and any bytes are a value of it.
pub(super) unsafe trait Growing: Copy {
    /// Its name in C.
    const NAME: &str;
    /// Its size in the first release that had it.
    const FIRST_SIZE: usize;
    /// The values of the fields that a caller's older struct does not have.
    const DEFAULT: Self;
}

/// More bytes than any struct will ever have: a larger `struct_size` was never set.
const LARGEST_STRUCT: usize = 1 << 16;

/// Refuses a size that no release of this struct can have.
pub(super) fn check_struct_size<T: Growing>(of: impl fmt::Display, struct_size: usize) -> Result<()> {
    if struct_size < T::FIRST_SIZE {
        fail!(InvalidArgument, "{of}struct_size = {struct_size} is less than {}, the smallest size of {}", T::FIRST_SIZE, T::NAME);
    }
    if struct_size > LARGEST_STRUCT {
        fail!(InvalidArgument, "{of}struct_size = {struct_size} is greater than {LARGEST_STRUCT}; it was probably never set");
    }
    Ok(())
}

/// Checks a struct of the caller's; its size.
///
/// # Safety
/// `pointer` is NULL or points to memory of as many bytes as its first field says.
unsafe fn check_struct<T: Growing>(name: &str, pointer: *const T) -> Result<usize> {
    check_pointer(name, pointer)?;
    // SAFETY: neither NULL nor misaligned, and its first field is a `usize`.
    let struct_size = unsafe { pointer.cast::<usize>().read() };
    check_struct_size::<T>(format_args!("{name}."), struct_size)?;
    let known = size_of::<T>();
    // SAFETY: the caller promises `struct_size` bytes.
    let tail_is_zero = (known..struct_size).all(|at| unsafe { pointer.cast::<u8>().add(at).read() } == 0);
    if !tail_is_zero {
        fail!(InvalidArgument, "{name}.struct_size = {struct_size}, but the bytes after the {known} known to this library are not all 0");
    }
    Ok(struct_size)
}

/// A copy of an input struct: fields that it does not have take their defaults, bytes that the library does not know must be 0.
///
/// # Safety
/// `from` is NULL or points to a struct whose first field is its size.
pub(super) unsafe fn read_struct<T: Growing>(name: &str, from: *const T) -> Result<T> {
    // SAFETY: the caller's promise.
    let struct_size = unsafe { check_struct(name, from)? };
    let mut value = MaybeUninit::new(T::DEFAULT);
    // SAFETY: both sides have that many bytes, and any bytes are a value (`Growing`).
    unsafe {
        from.cast::<u8>().copy_to_nonoverlapping(value.as_mut_ptr().cast(), struct_size.min(size_of::<T>()));
        Ok(value.assume_init())
    }
}

/// An output struct of the caller's that has been checked and can be written.
pub(super) struct OutputStruct<T> {
    to: *mut T,
    struct_size: usize,
}

impl<T: Growing> OutputStruct<T> {
    /// Checks the struct.
    ///
    /// # Safety
    /// `to` is NULL or points to a writable struct whose first field is its size, for as long as the result is used.
    pub unsafe fn new(name: &str, to: *mut T) -> Result<Self> {
        // SAFETY: the caller's promise.
        let struct_size = unsafe { check_struct(name, to)? };
        Ok(Self { to, struct_size })
    }

    /// Memory that holds nothing yet, of `struct_size` bytes.
    ///
    /// # Safety
    /// `to` is NULL or points to `struct_size` writable bytes, for as long as the result is used.
    pub unsafe fn uninitialised(name: &str, to: *mut T, struct_size: usize) -> Result<Self> {
        check_pointer(name, to)?;
        check_struct_size::<T>("", struct_size)?;
        Ok(Self { to, struct_size })
    }

    /// Writes the fields that the caller's struct has, its size, and 0 behind them.
    pub fn write(self, value: T) {
        let known = self.struct_size.min(size_of::<T>());
        // SAFETY: `new` was promised `struct_size` writable bytes, and `value` has no padding (`Growing`).
        unsafe {
            self.to.cast::<u8>().copy_from_nonoverlapping(std::ptr::from_ref(&value).cast(), known);
            self.to.cast::<u8>().add(known).write_bytes(0, self.struct_size - known);
            self.to.cast::<usize>().write(self.struct_size);
        }
    }
}

/// Memory with a name, to find overlaps.
pub(super) struct Region<'a> {
    name: &'a str,
    bytes: Range<usize>,
}

impl<'a> Region<'a> {
    /// The memory of one value; empty for NULL.
    pub fn of<T>(name: &'a str, pointer: *const T) -> Self {
        Self::bytes(name, pointer.cast(), if pointer.is_null() { 0 } else { size_of::<T>() })
    }

    /// `length` bytes.
    pub fn bytes(name: &'a str, pointer: *const u8, length: usize) -> Self {
        let start = pointer as usize;
        Self { name, bytes: start..start.saturating_add(length) }
    }

    /// The memory of a tensor's elements; empty for one beyond the address space, which its own check refuses.
    pub fn tensor(name: &'a str, tensor: &RawTensor) -> Self {
        Self { name, bytes: tensor.byte_range().unwrap_or(0..0) }
    }

    /// Refuses an output that shares bytes with one of `others`.
    pub fn check_apart(&self, others: &[Self]) -> Result<()> {
        for other in others {
            let shared = self.bytes.start.max(other.bytes.start)..self.bytes.end.min(other.bytes.end);
            if !shared.is_empty() {
                fail!(InvalidArgument, "{} and {} overlap by {} bytes", self.name, other.name, shared.len());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(C)]
    struct Grown {
        struct_size: usize,
        old: u64,
        new: u64,
    }
    // SAFETY: `repr(C)`, three integers of 8 bytes.
    unsafe impl Growing for Grown {
        const NAME: &str = "grown_t";
        const FIRST_SIZE: usize = 16;
        const DEFAULT: Self = Self { struct_size: 0, old: 1, new: 2 };
    }

    fn read(words: &[u64]) -> Result<Grown> {
        // SAFETY: the first word says how many bytes there are.
        unsafe { read_struct("x", words.as_ptr().cast()) }
    }

    #[test]
    fn older_and_newer_structs_are_read() {
        assert_eq!(read(&[16, 7]).unwrap(), Grown { struct_size: 16, old: 7, new: 2 });
        assert_eq!(read(&[24, 7, 8]).unwrap(), Grown { struct_size: 24, old: 7, new: 8 });
        assert_eq!(read(&[32, 7, 8, 0]).unwrap(), Grown { struct_size: 32, old: 7, new: 8 });
        assert!(read(&[32, 7, 8, 1]).unwrap_err().message().contains("x.struct_size = 32"));
        assert!(read(&[15, 7, 8]).unwrap_err().message().contains("less than 16"));
        assert!(read(&[u64::MAX]).unwrap_err().message().contains("never set"));
    }

    #[test]
    fn outputs_fill_what_the_caller_has_and_no_more() {
        let written = |words: &mut [u64]| {
            // SAFETY: the first word says how many bytes there are.
            unsafe { OutputStruct::new("x", words.as_mut_ptr().cast()) }.unwrap().write(Grown { struct_size: 0, old: 7, new: 8 });
        };
        let mut older = [16, 0, 99];
        written(&mut older);
        assert_eq!(older, [16, 7, 99]);
        let mut newer = [32, 5, 5, 0, 99];
        written(&mut newer);
        assert_eq!(newer, [32, 7, 8, 0, 99]);
    }

    #[test]
    fn empty_regions_overlap_nothing() {
        let inside = Region { name: "a", bytes: 5..5 };
        assert!(inside.check_apart(&[Region { name: "b", bytes: 0..10 }]).is_ok());
        let message = Region { name: "a", bytes: 0..6 }.check_apart(&[Region { name: "b", bytes: 5..10 }]).unwrap_err();
        assert_eq!(message.message(), "a and b overlap by 1 bytes");
    }
}
