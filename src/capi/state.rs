//! Saving and loading, to and from files and memory.

use std::ffi::{c_char, c_void};

use super::args::{Region, check_pointer, path};
use super::boundary::boundary;
use super::criterion::{lock, ols_criterion_t};
use super::status::ols_status_t;
use crate::error::fail;
use crate::stream::CudaStream;

/// Saves a criterion to the file `path`: the state (S, statistics, counters, epoch) and the options
/// that affect the results.
///
/// The file is in the safetensors format, with a checksum. Saving is atomic: at any moment, even
/// after a crash, `path` names either the old file or the complete new one.
///
/// `path` is a null-terminated string in the encoding of the operating system (UTF-8 on Windows); it
/// is not used after the call returns. `stream` is the `cudaStream_t` to synchronise with; ignored
/// on the CPU. Safe to call from any thread. On failure an existing file is unchanged:
/// `OLS_STATUS_IO`; `OLS_STATUS_OUT_OF_MEMORY`; `OLS_STATUS_INVALID_STATE` if the file could not be
/// loaded, for example because of negative sums after a batch was taken back that had not been
/// added. Exceeding the file size limit (`RLIMIT_FSIZE`) is such a failure only if the program
/// ignores `SIGXFSZ`; otherwise that signal terminates the program.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `path` is NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_save(criterion: *const ols_criterion_t, path: *const c_char, stream: *mut c_void) -> ols_status_t {
    boundary("ols_save", || {
        // SAFETY: the caller's promise.
        unsafe { lock(criterion)?.save_on(self::path(path)?, CudaStream::from_raw(stream)) }
    })
}

/// Restores a criterion from the file `path`, written by `ols_save`. A criterion that is saved and
/// loaded continues bitwise identically to one that was never interrupted.
///
/// Replaces the state, the epoch, and the options that affect the results: alpha, class weights,
/// ignore index, policies, momentum, min_count, freeze_above and initial soft labels. Mode,
/// reduction, device and number of threads are not changed.
///
/// State memory given by the caller is written in place. Views of S and of the statistics remain
/// valid; those obtained from `ols_get_options` do not. `stream` is a `cudaStream_t`: the call waits
/// for the work on it and for the load itself; ignored on the CPU. Safe to call from any thread. On
/// failure the criterion is unchanged: `OLS_STATUS_IO`; `OLS_STATUS_INVALID_FILE` if the file is
/// truncated, corrupted, or not a saved state; `OLS_STATUS_INVALID_ARGUMENT` if the number of
/// classes differs; `OLS_STATUS_OUT_OF_MEMORY`.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `path` is NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_load(criterion: *mut ols_criterion_t, path: *const c_char, stream: *mut c_void) -> ols_status_t {
    boundary("ols_load", || {
        // SAFETY: the caller's promise.
        unsafe { lock(criterion)?.load_on(self::path(path)?, CudaStream::from_raw(stream)) }
    })
}

/// Saves a criterion to memory: writes the contents of the file that `ols_save` would write to
/// `buffer`, and their size in bytes to `*size`.
///
/// Call it first with a NULL `buffer` and a `capacity` of 0 to obtain the size, then with a buffer
/// of that capacity; no other call on the criterion may come between the two. The buffer remains the
/// property of the caller. `stream` is the `cudaStream_t` to synchronise with; ignored on the CPU.
/// Safe to call from any thread. On failure neither `*size` nor the buffer is written. If `capacity`
/// is too small the status is `OLS_STATUS_INVALID_ARGUMENT`, and the message contains the required
/// size. A state that `ols_save` refuses is refused here as well.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `buffer` is NULL or points to `capacity`
/// writable bytes; `size` is NULL or points to a writable `size_t`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_save_memory(
    criterion: *const ols_criterion_t,
    buffer: *mut c_void,
    capacity: usize,
    stream: *mut c_void,
    size: *mut usize,
) -> ols_status_t {
    boundary("ols_save_memory", || {
        // SAFETY: the caller's promise.
        let (criterion, stream) = unsafe { (lock(criterion)?, CudaStream::from_raw(stream)) };
        check_pointer("size", size)?;
        if buffer.is_null() && capacity != 0 {
            fail!(InvalidArgument, "buffer is NULL, but capacity = {capacity} is not 0");
        }
        Region::of("size", size).check_apart(&[Region::bytes("buffer", buffer.cast(), capacity)])?;
        criterion.check_apart_from_state("size", size.cast(), size_of::<usize>())?;
        let needed = criterion.saved_size()?;
        if !buffer.is_null() {
            if capacity < needed {
                fail!(InvalidArgument, "capacity = {capacity} is less than the {needed} bytes of the state");
            }
            criterion.check_apart_from_state("buffer", buffer.cast(), needed)?;
            let bytes = criterion.to_bytes_on(stream)?;
            // SAFETY: the caller promises `capacity` writable bytes, and there are no more than that.
            unsafe { buffer.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
        // SAFETY: neither NULL nor misaligned; the rest is the caller's promise.
        unsafe { size.write(needed) };
        Ok(())
    })
}

/// Restores a criterion from `size` bytes at `buffer`, written by `ols_save_memory` or `ols_save`.
///
/// The buffer remains the property of the caller, is read only until the call returns, and need not
/// be aligned. In all other respects as `ols_load`.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `buffer` is NULL or points to `size`
/// readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_load_memory(
    criterion: *mut ols_criterion_t,
    buffer: *const c_void,
    size: usize,
    stream: *mut c_void,
) -> ols_status_t {
    boundary("ols_load_memory", || {
        // SAFETY: the caller's promise.
        let (mut criterion, stream) = unsafe { (lock(criterion)?, CudaStream::from_raw(stream)) };
        check_pointer("buffer", buffer)?;
        if size > isize::MAX as usize {
            fail!(InvalidArgument, "size = {size} exceeds the address space");
        }
        criterion.check_apart_from_state("buffer", buffer.cast(), size)?;
        // SAFETY: not NULL; the caller promises `size` readable bytes.
        criterion.load_bytes_on(unsafe { std::slice::from_raw_parts(buffer.cast(), size) }, stream)
    })
}
