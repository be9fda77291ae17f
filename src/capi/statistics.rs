//! A, c and the counters in place, the end of an epoch, and its report.

use std::ffi::c_void;
use std::mem::offset_of;

use safer_ffi::prelude::*;

use super::args::{Growing, OutputStruct};
use super::boundary::boundary;
use super::criterion::{lock, ols_criterion_t};
use super::status::ols_status_t;
use super::tensor::ols_tensor_t;
use crate::statistics::{COUNTERS, Counter, FRACTION_BITS, Report};
use crate::stream::CudaStream;

/// Number of fraction bits of the sums A: they are integers in units of 2^-30.
pub const OLS_FRACTION_BITS: i32 = 30;
/// Number of counters; those without a name are 0.
pub const OLS_COUNTERS: i32 = 4;
/// Index of the counter of rows that were skipped because they contain NaN or +inf, or are -inf
/// throughout.
pub const OLS_COUNTER_SKIPPED_NON_FINITE: i32 = 0;
/// Index of the counter of targets that are neither a class nor the ignore index. Used on CUDA; on
/// the CPU such a target is an error, and nothing is counted.
pub const OLS_COUNTER_TARGETS_OUT_OF_RANGE: i32 = 1;
/// Index of the counter of rows that could not be taken back. Used on CUDA; on the CPU this is an
/// error, and nothing is counted.
pub const OLS_COUNTER_TAKE_BACKS_REFUSED: i32 = 2;

// The header needs plain numbers; these are the core's.
const _: () = assert!(
    OLS_FRACTION_BITS == FRACTION_BITS as i32
        && OLS_COUNTERS == COUNTERS as i32
        && OLS_COUNTER_SKIPPED_NON_FINITE == Counter::SkippedNonFinite as i32
        && OLS_COUNTER_TARGETS_OUT_OF_RANGE == Counter::TargetsOutOfRange as i32
        && OLS_COUNTER_TAKE_BACKS_REFUSED == Counter::TakeBacksRefused as i32
);

/// Views of the statistics of the current epoch, as returned by `ols_statistics`.
///
/// All values are integers, so that sums over threads, batches and ranks are exact in any order: a
/// sum all-reduce of the three tensors before `ols_next_epoch` gives every rank bitwise identical
/// soft labels.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ols_statistics_t {
    /// Size of this struct in bytes: `sizeof(ols_statistics_t)`.
    pub struct_size: usize,
    /// Sums A: i64 of shape (K, K), one row per class; summed probabilities in units of 2^-30.
    pub sums: ols_tensor_t,
    /// Counts c: i64 of shape (K); number of samples in each row of A. A class with 2^32 samples is
    /// full and accepts no more.
    pub counts: ols_tensor_t,
    /// Counters: i64 of shape (`OLS_COUNTERS`), indexed by the `OLS_COUNTER_` constants.
    pub counters: ols_tensor_t,
}

// SAFETY: `repr(C)`, begins with a `usize`, and is followed by tensors, which have no padding.
unsafe impl Growing for ols_statistics_t {
    const NAME: &str = "ols_statistics_t";
    const FIRST_SIZE: usize = offset_of!(Self, counters) + size_of::<ols_tensor_t>();
    const DEFAULT: Self = Self { struct_size: 0, sums: ols_tensor_t::ABSENT, counts: ols_tensor_t::ABSENT, counters: ols_tensor_t::ABSENT };
}

/// A summary of the last completed epoch and of the current one, as returned by `ols_report`.
/// `rows_measured` and the other `rows_` members add up to K.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ols_report_t {
    /// Size of this struct in bytes: `sizeof(ols_report_t)`.
    pub struct_size: usize,
    /// Number of the last completed epoch, counted from 1. It is 0, like all other members for the
    /// completed epoch, if no epoch has ended since the criterion was created or a state was loaded.
    pub epoch: i64,
    /// Number of classes whose new soft label was measured.
    pub rows_measured: i64,
    /// Number of classes that kept their row: by `OLS_EMPTY_CLASS_KEEP`, or because nothing at all
    /// was accumulated.
    pub rows_kept: i64,
    /// Number of classes that got a uniform row by `OLS_EMPTY_CLASS_UNIFORM`.
    pub rows_uniform: i64,
    /// Number of classes that got their initial row back by `OLS_EMPTY_CLASS_INITIAL`.
    pub rows_initial: i64,
    /// Number of classes that got a one-hot row by `OLS_EMPTY_CLASS_ONE_HOT`.
    pub rows_one_hot: i64,
    /// Number of classes that got a row of zeros by `OLS_EMPTY_CLASS_ZERO`.
    pub rows_zero: i64,
    /// Number of classes that kept their row because of `freeze_above`.
    pub rows_frozen: i64,
    /// Number of samples that were accumulated, that is, classified correctly.
    pub samples_accumulated: i64,
    /// Number of samples that were skipped because their logits contain NaN or +inf, or are -inf
    /// throughout.
    pub samples_skipped: i64,
    /// Number of classes that were full and accepted no more samples.
    pub classes_full: i64,
    /// Number of targets that were neither a class nor the ignore index (CUDA only; an error on the
    /// CPU).
    pub targets_out_of_range: i64,
    /// Number of the current epoch, counted from 1.
    pub running_epoch: i64,
    /// Number of samples accumulated so far in the current epoch.
    pub running_samples_accumulated: i64,
    /// Number of samples skipped so far in the current epoch.
    pub running_samples_skipped: i64,
    /// Number of classes that are full.
    pub running_classes_full: i64,
    /// Number of targets so far that were neither a class nor the ignore index (CUDA only).
    pub running_targets_out_of_range: i64,
}

// SAFETY: `repr(C)`, begins with a `usize`, and is followed by 64-bit integers.
unsafe impl Growing for ols_report_t {
    const NAME: &str = "ols_report_t";
    const FIRST_SIZE: usize = offset_of!(Self, running_targets_out_of_range) + size_of::<i64>();
    const DEFAULT: Self = Self {
        struct_size: 0,
        epoch: 0,
        rows_measured: 0,
        rows_kept: 0,
        rows_uniform: 0,
        rows_initial: 0,
        rows_one_hot: 0,
        rows_zero: 0,
        rows_frozen: 0,
        samples_accumulated: 0,
        samples_skipped: 0,
        classes_full: 0,
        targets_out_of_range: 0,
        running_epoch: 0,
        running_samples_accumulated: 0,
        running_samples_skipped: 0,
        running_classes_full: 0,
        running_targets_out_of_range: 0,
    };
}

impl ols_report_t {
    fn new(finished: &Report, running: &Report) -> Self {
        Self {
            struct_size: 0,
            epoch: finished.epoch,
            rows_measured: finished.rows_measured,
            rows_kept: finished.rows_kept,
            rows_uniform: finished.rows_uniform,
            rows_initial: finished.rows_initial,
            rows_one_hot: finished.rows_one_hot,
            rows_zero: finished.rows_zero,
            rows_frozen: finished.rows_frozen,
            samples_accumulated: finished.samples_accumulated,
            samples_skipped: finished.samples_skipped,
            classes_full: finished.classes_full,
            targets_out_of_range: finished.targets_out_of_range,
            running_epoch: running.epoch,
            running_samples_accumulated: running.samples_accumulated,
            running_samples_skipped: running.samples_skipped,
            running_classes_full: running.classes_full,
            running_targets_out_of_range: running.targets_out_of_range,
        }
    }
}

/// Retrieves views of the statistics of the current epoch, in place, for an all-reduce by NCCL, Gloo
/// or MPI.
///
/// The memory belongs to the criterion, or to the caller if it was given to `ols_create`; the views
/// are valid until `ols_destroy`. It may be read and written while no call on the criterion is in
/// progress. Safe to call from any thread. On failure `*out` is unchanged. Set `out->struct_size`
/// before the call.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `out` is NULL or points to a writable
/// `ols_statistics_t` whose `struct_size` is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_statistics(criterion: *mut ols_criterion_t, out: *mut ols_statistics_t) -> ols_status_t {
    boundary("ols_statistics", || {
        // SAFETY: the caller's promise.
        let (mut criterion, out) = unsafe { (lock(criterion)?, OutputStruct::new("out", out)?) };
        let [_, sums, counts, counters] = criterion.state_views().map(|view| ols_tensor_t::from_raw(&view));
        out.write(ols_statistics_t { struct_size: 0, sums, counts, counters });
        Ok(())
    })
}

/// Ends the epoch: computes the soft labels of the next epoch from the statistics, then resets the
/// statistics (Zhang et al. 2021, equations 4 and 5).
///
/// A class with at least `min_count` samples gets the mean of their predictions; the others are
/// handled according to `empty_class`. `momentum` and `freeze_above` apply. If nothing at all was
/// accumulated, S is unchanged, whatever the policy; the epoch number advances in any case.
/// `ols_report` returns a summary. Works in both modes.
///
/// S is updated in place, so that views of it remain valid. `stream` is the `cudaStream_t` on which
/// the work is enqueued; ignored on the CPU. Safe to call from any thread. On failure the state is
/// unchanged.
///
/// # Safety
/// `criterion` is NULL or a live criterion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_next_epoch(criterion: *mut ols_criterion_t, stream: *mut c_void) -> ols_status_t {
    boundary("ols_next_epoch", || {
        // SAFETY: the caller's promise.
        unsafe { lock(criterion)?.next_epoch_on(CudaStream::from_raw(stream)) }
    })
}

/// Retrieves a summary of the last completed epoch, and of the current epoch so far.
///
/// `*out` refers to no other memory. `stream` is a `cudaStream_t`; ignored on the CPU. On CUDA this
/// is the only call of a training loop that may wait for the device. Safe to call from any thread.
/// On failure `*out` is unchanged. Set `out->struct_size` before the call.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `out` is NULL or points to a writable
/// `ols_report_t` whose `struct_size` is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_report(criterion: *const ols_criterion_t, stream: *mut c_void, out: *mut ols_report_t) -> ols_status_t {
    boundary("ols_report", || {
        // SAFETY: the caller's promise.
        let (criterion, out, stream) = unsafe { (lock(criterion)?, OutputStruct::new("out", out)?, CudaStream::from_raw(stream)) };
        let (finished, running) = criterion.reports_on(stream)?;
        out.write(ols_report_t::new(&finished, &running));
        Ok(())
    })
}
