//! Saving and loading, to and from files and memory.

use std::ffi::{c_char, c_void};

use super::args::{Region, check_pointer, path};
use super::boundary::boundary;
use super::criterion::{lock, ols_criterion_t};
use super::status::ols_status_t;
use crate::error::fail;
use crate::stream::CudaStream;

/// Writes the state (S, statistics, counters, epoch) and the options that shape the result to the file `path`, in the safetensors format with a
/// checksum. Atomic: whatever happens, the name stands for the old file or for the whole new one.
///
/// `path` is copied: bytes as the system takes them (UTF-8 on Windows), ending with 0. `stream`: a `cudaStream_t` whose work is waited for; the CPU
/// does not look at it. Safe from any thread. On failure (`OLS_STATUS_IO`, `OLS_STATUS_OUT_OF_MEMORY`) a file of that name is as before.
/// A limit on file sizes (`RLIMIT_FSIZE`) is such a failure where the program ignores `SIGXFSZ`; else the system ends the program.
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

/// Replaces the state, the epoch, and the options that shape the result (alpha, class weights, ignore index, policies, momentum, min_count,
/// freeze_above, initial soft labels) by what `ols_save` wrote to `path`. Mode, reduction, device and threads stay the criterion's. A criterion that
/// was saved and loaded goes on bit for bit as one that never stopped.
///
/// State memory of the caller's is written in place; views of S and the statistics stay valid, those from `ols_get_options` do not. `stream`: a
/// `cudaStream_t`, whose work and the load's own are waited for; the CPU does not look at it. Safe from any thread. On failure the criterion is as before: `OLS_STATUS_IO`,
/// `OLS_STATUS_INVALID_FILE` for a truncated, damaged or foreign file, `OLS_STATUS_INVALID_ARGUMENT` for another number of classes,
/// `OLS_STATUS_OUT_OF_MEMORY`.
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

/// Writes the bytes that `ols_save` would write to `buffer`, and how many they are to `*size`.
///
/// Call it first with a NULL `buffer` and a `capacity` of 0 for the size alone, then with that much memory; no call on the criterion may lie between
/// the two. The buffer stays the caller's. `stream`: a `cudaStream_t` whose work is waited for; the CPU does not look at it. Safe from any thread. On
/// failure neither `*size` nor the buffer is touched; a `capacity` that is too small is `OLS_STATUS_INVALID_ARGUMENT`, and the message says the size.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `buffer` is NULL or points to `capacity` writable bytes; `size` is NULL or points to a writable `size_t`.
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
        let needed = criterion.saved_size()?;
        if !buffer.is_null() {
            if capacity < needed {
                fail!(InvalidArgument, "capacity = {capacity} is less than the {needed} bytes of the state");
            }
            let bytes = criterion.to_bytes_on(stream)?;
            // SAFETY: the caller promises `capacity` writable bytes, and there are no more than that.
            unsafe { buffer.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
        // SAFETY: neither NULL nor misaligned; the rest is the caller's promise.
        unsafe { size.write(needed) };
        Ok(())
    })
}

/// As `ols_load`, from `size` bytes at `buffer`, which `ols_save_memory` or `ols_save` wrote.
///
/// The buffer stays the caller's, is read until the call returns, and need not be aligned. All else as `ols_load`.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `buffer` is NULL or points to `size` readable bytes.
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
            fail!(InvalidArgument, "size = {size} is more than an address space");
        }
        // SAFETY: not NULL; the caller promises `size` readable bytes.
        criterion.load_bytes_on(unsafe { std::slice::from_raw_parts(buffer.cast(), size) }, stream)
    })
}
