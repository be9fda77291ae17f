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

/// The summed probabilities are integers in units of 2^-30.
pub const OLS_FRACTION_BITS: i32 = 30;
/// Number of counters; those without a name are 0.
pub const OLS_COUNTERS: i32 = 4;
/// Which counter: rows that were kept out because they hold NaN, +inf, or nothing but -inf.
pub const OLS_COUNTER_SKIPPED_NON_FINITE: i32 = 0;
/// Which counter: targets that are neither a class nor the ignore index (on CUDA; on the CPU they are an error before anything is counted).
pub const OLS_COUNTER_TARGETS_OUT_OF_RANGE: i32 = 1;
/// Which counter: rows that could not be taken back (on CUDA; on the CPU that is an error before anything is touched).
pub const OLS_COUNTER_TAKE_BACKS_REFUSED: i32 = 2;

// The header needs plain numbers; these are the core's.
const _: () = assert!(
    OLS_FRACTION_BITS == FRACTION_BITS as i32
        && OLS_COUNTERS == COUNTERS as i32
        && OLS_COUNTER_SKIPPED_NON_FINITE == Counter::SkippedNonFinite as i32
        && OLS_COUNTER_TARGETS_OUT_OF_RANGE == Counter::TargetsOutOfRange as i32
        && OLS_COUNTER_TAKE_BACKS_REFUSED == Counter::TakeBacksRefused as i32
);

/// Views of the statistics of the running epoch, in place, from `ols_statistics`. All are integers, so that sums over threads, batches and ranks are
/// exact in any order: an all-reduce (sum) of the three, before `ols_next_epoch`, gives every rank the same soft labels, bit for bit.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ols_statistics_t {
    /// Bytes of this struct: `sizeof(ols_statistics_t)`.
    pub struct_size: usize,
    /// A: i64 (K, K), a row per class; summed probabilities in units of 2^-30.
    pub sums: ols_tensor_t,
    /// c: i64 (K); samples that were summed. A class that has 2^32 is full and takes no more.
    pub counts: ols_tensor_t,
    /// i64 (`OLS_COUNTERS`).
    pub counters: ols_tensor_t,
}

// SAFETY: `repr(C)`, begins with a `usize`, and is followed by tensors, which have no padding.
unsafe impl Growing for ols_statistics_t {
    const NAME: &str = "ols_statistics_t";
    const FIRST_SIZE: usize = offset_of!(Self, counters) + size_of::<ols_tensor_t>();
    const DEFAULT: Self = Self { struct_size: 0, sums: ols_tensor_t::ABSENT, counts: ols_tensor_t::ABSENT, counters: ols_tensor_t::ABSENT };
}

/// What happened, from `ols_report`: in the epoch that ended last, and so far in the running one. `rows_measured` and all other `rows_` add up to K.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ols_report_t {
    /// Bytes of this struct: `sizeof(ols_report_t)`.
    pub struct_size: usize,
    /// Number of the epoch that ended last, counted from 1; 0 where none has ended yet (or since a load), and then all of it is 0.
    pub epoch: i64,
    /// Classes whose new soft label was measured.
    pub rows_measured: i64,
    /// Classes that kept their row by `OLS_EMPTY_CLASS_KEEP`, or because nothing at all was accumulated.
    pub rows_kept: i64,
    /// Classes with a uniform row by `OLS_EMPTY_CLASS_UNIFORM`.
    pub rows_uniform: i64,
    /// Classes back at their first row by `OLS_EMPTY_CLASS_INITIAL`.
    pub rows_initial: i64,
    /// Classes with a one-hot row by `OLS_EMPTY_CLASS_ONE_HOT`.
    pub rows_one_hot: i64,
    /// Classes with a row of zeros by `OLS_EMPTY_CLASS_ZERO`.
    pub rows_zero: i64,
    /// Classes that stay as they are because of `freeze_above`.
    pub rows_frozen: i64,
    /// Samples that were accumulated: those classified right.
    pub samples_accumulated: i64,
    /// Samples that were kept out because their logits hold NaN, +inf, or nothing but -inf.
    pub samples_skipped: i64,
    /// Classes that were full and took no more samples.
    pub classes_full: i64,
    /// Targets that were neither a class nor the ignore index (on CUDA; an error on the CPU).
    pub targets_out_of_range: i64,
    /// Number of the running epoch.
    pub running_epoch: i64,
    /// Samples that the running epoch has accumulated.
    pub running_samples_accumulated: i64,
    /// Samples that it has kept out.
    pub running_samples_skipped: i64,
    /// Classes that are full.
    pub running_classes_full: i64,
    /// Targets that were neither a class nor the ignore index (on CUDA).
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

/// Writes views of the statistics of the running epoch to `*out`, in place: for an all-reduce by NCCL, Gloo or MPI.
///
/// The memory is the criterion's, or the caller's own if `ols_create` was given some; the views hold until `ols_destroy`. It may be read and written
/// while no call on the criterion runs. Safe from any thread. On failure `*out` is as before. Set `out->struct_size` before.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `out` is NULL or points to a writable `ols_statistics_t` whose `struct_size` is set.
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

/// Ends the epoch: makes the soft labels of the next one from the statistics, and clears these (Zhang et al. 2021, equations 4 and 5).
///
/// A class with `min_count` samples or more gets the mean of their distributions; the others what `empty_class` says; `momentum` and `freeze_above` are
/// obeyed. If nothing at all was accumulated, S stays as it is, whatever the policy; the epoch's number advances all the same. What happened is
/// told by `ols_report`. S is written in place: views stay valid. `stream`: a `cudaStream_t` to enqueue on; the CPU does not look at it. Safe from
/// any thread. Works in both modes. On failure the state is as before.
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

/// Writes to `*out` what happened in the epoch that ended last, and so far in the running one.
///
/// Owns nothing. `stream`: a `cudaStream_t`; on CUDA this is the one call of a training loop that may wait for a device. Safe from any thread. On failure `*out` is as
/// before. Set `out->struct_size` before.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `out` is NULL or points to a writable `ols_report_t` whose `struct_size` is set.
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
