//! Kernel arguments: the structs and constants of `cuda/kernels/arguments.h`. A test compares every offset and every
//! constant with those of the kernels.

use super::variants::slots;
use crate::options::Reduction;
use crate::samples;
use crate::state::State;
use crate::statistics::{COUNTERS, Counter, FRACTION_BITS, FULL_CLASS};
use crate::tensor::DType;

/// The most blocks of the divisor kernel; `OLS_DIVISOR_BLOCKS`.
pub(super) const DIVISOR_BLOCKS: usize = 512;
/// `OLS_DIVISOR_IN_BLOCK`.
pub(super) const DIVISOR_IN_BLOCK: usize = 1024;
/// Pieces of the sum of large losses; `OLS_FAR_PIECES`.
const FAR_PIECES: usize = 68;
/// `OLS_LOSSES_IN_ONE`.
const LOSSES_IN_ONE: usize = 16384;
/// Bits available to a sum of losses: up to [`LOSSES_IN_ONE`] samples (`OLS_SUM_BITS`), and beyond.
const SUM_BITS: [i32; 2] = [52, 63];
/// Fraction bits of a loss, the logarithm of `OLS_LOSS_ONE`.
const LOSS_BITS: i32 = 30;

/// Splits `count` targets into slices: (targets per slice, number of slices). A slice has two targets per lane of a
/// warp, or more if there would otherwise be too many slices.
pub(super) fn slices(count: usize) -> (u32, u32) {
    const LEAST: usize = 64;
    const MOST_SLICES: usize = 4096;
    let slice = count.div_ceil(MOST_SLICES).max(LEAST);
    (slice as u32, count.div_ceil(slice) as u32)
}

/// The largest loss, a power of two, that each of `count` samples may have without their sum overflowing its bits.
pub(super) fn near_loss(count: usize) -> f64 {
    let bits = SUM_BITS[usize::from(count > LOSSES_IN_ONE)] - LOSS_BITS;
    2f64.powi(bits - count.max(1).next_power_of_two().ilog2() as i32 - 1)
}

pub(super) const DIVISOR_ONE: i32 = 0;
pub(super) const DIVISOR_BY_EACH_BLOCK: i32 = 1;
pub(super) const DIVISOR_FROM_KERNEL: i32 = 2;
pub(super) const DIVISOR_BY_ALL_BLOCKS: i32 = 3;

/// What a pass does to the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Statistics {
    Leave = 0,
    Add = 1,
    Tally = 2,
    TakeBack = 3,
}

/// Where the soft label of a class that was not measured comes from.
pub(super) const POLICY_KEEP: i32 = 0;
pub(super) const POLICY_CONSTANT: i32 = 1;
pub(super) const POLICY_MATRIX: i32 = 2;

/// Indices into `Scratch.report`.
pub(super) const REPORT_KEPT: i32 = 2;
pub(super) const REPORT_UNIFORM: i32 = 3;
pub(super) const REPORT_INITIAL: i32 = 4;
pub(super) const REPORT_ONE_HOT: i32 = 5;
pub(super) const REPORT_ZERO: i32 = 6;
pub(super) const REPORT_REFUSED: usize = 12;
pub(super) const REPORT_BAD_SOFT_LABELS: usize = 14;
pub(super) const REPORT_LENGTH: usize = 16;

/// The number by which kernels know the type of a per-sample value or of soft labels.
pub(super) fn number(dtype: DType) -> i32 {
    match dtype {
        DType::I64 => 0,
        DType::I32 => 1,
        DType::U8 => 2,
        DType::F64 => 4,
        _ => 3,
    }
}

/// The number by which kernels know a reduction.
pub(super) fn reduction(reduction: Reduction) -> i32 {
    match reduction {
        Reduction::None => 0,
        Reduction::Mean => 1,
        Reduction::Sum => 2,
    }
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct PerSample {
    data: u64,
    outer: i64,
    inner: i64,
    dtype: i32,
    unused: i32,
}

impl PerSample {
    /// `None`: not given.
    pub fn new(from: Option<samples::PerSample>) -> Self {
        from.map_or(Self::default(), |from| Self {
            data: from.data as u64,
            outer: from.strides[0],
            inner: from.strides[1],
            dtype: number(from.dtype),
            unused: 0,
        })
    }
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Rows {
    data: u64,
    outer: i64,
    step: i64,
    inner: i64,
}

impl Rows {
    /// `None`: not wanted.
    pub fn new(from: Option<samples::Rows>) -> Self {
        from.map_or(Self::default(), |from| Self { data: from.data as u64, outer: from.outer, step: from.class, inner: from.inner })
    }
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct StateArguments {
    pub soft_labels: u64,
    pub soft_labels_stride: i64,
    sums: u64,
    sums_stride: i64,
    counts: u64,
    counters: u64,
}

impl StateArguments {
    pub fn new(state: &State) -> Self {
        let (soft_labels, sums) = (state.soft_labels.as_raw(), state.sums.as_raw());
        Self {
            soft_labels: soft_labels.data as u64,
            soft_labels_stride: soft_labels.strides[0],
            sums: sums.data as u64,
            sums_stride: sums.strides[0],
            counts: state.counts.as_raw().data as u64,
            counters: state.counters.as_raw().data as u64,
        }
    }
}

/// Lives on the device; only its size and some offsets are needed here.
#[repr(C)]
pub(super) struct Scratch {
    divisors: [f64; DIVISOR_BLOCKS],
    divisor: f64,
    losses: u64,
    near_losses: u64,
    rest_of_losses: u64,
    far_losses: [u64; FAR_PIECES],
    far_from_finite: [u32; 2],
    has_far_losses: u32,
    loss_ticket: u32,
    divisor_ticket: u32,
    tally_ticket: u32,
    refused: u32,
    pub bad_soft_labels: u32,
    next_slice: u32,
    unused: u32,
    counted: u64,
    pub report: [i64; REPORT_LENGTH],
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Pass {
    pub logits: Rows,
    pub grad: Rows,
    pub targets: PerSample,
    pub loss: PerSample,
    pub count: i64,
    pub inner: i64,
    pub target_offset: i64,
    pub ignore_index: i64,
    pub state: StateArguments,
    pub alpha: f64,
    pub near_loss: f64,
    pub scratch: u64,
    pub classes: i32,
    pub reduction: i32,
    pub statistics: i32,
    pub divisor: i32,
    pub count_targets: i32,
    pub cached: i32,
    /// With `DIVISOR_BY_ALL_BLOCKS`: targets per slice, and number of slices.
    pub slice: u32,
    pub slices: u32,
    pub targets2: PerSample,
    pub weights: PerSample,
    pub lam: PerSample,
    pub grad_loss: PerSample,
    pub class_weights: u64,
    pub scaled_weights: u64,
    pub scaled_weights32: u64,
    pub weight_scale: f64,
    pub tally: u64,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Epoch {
    pub state: StateArguments,
    pub scratch: u64,
    pub initial: u64,
    pub own: f64,
    pub other: f64,
    pub momentum: f64,
    pub freeze_above: f64,
    pub min_count: i64,
    pub epoch: i64,
    pub classes: i32,
    pub policy: i32,
    pub policy_report: i32,
    pub unused: i32,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Fill {
    pub to: u64,
    pub to_stride: i64,
    pub from: u64,
    pub from_row: i64,
    pub from_column: i64,
    pub own: f64,
    pub other: f64,
    pub scratch: u64,
    pub classes: i32,
    pub from_dtype: i32,
    pub checked: i32,
    pub unused: i32,
}

/// A kernel argument: a struct passed by value.
pub(super) trait Argument: Copy {}
impl Argument for Pass {}
impl Argument for Epoch {}
impl Argument for Fill {}

/// Sizes and offsets by name, and the constants that both sides share, for the test that compares them with those of
/// the kernels.
#[doc(hidden)]
pub fn layout() -> Vec<(String, usize)> {
    let mut all = Vec::new();
    macro_rules! fields {
        ($rust:ident = $name:literal: $($field:ident)+) => {{
            // Exhaustive pattern: a field that is not listed is a compile error.
            let _ = |$rust { $($field: _),+ }: $rust| {};
            all.push(($name.to_owned(), size_of::<$rust>()));
            all.extend([$((concat!($name, ".", stringify!($field)).to_owned(), std::mem::offset_of!($rust, $field))),+]);
        }};
    }
    macro_rules! numbers {
        ($($name:literal = $value:expr),+ $(,)?) => { all.extend([$(($name.to_owned(), $value as usize)),+]) };
    }
    fields!(PerSample = "PerSample": data outer inner dtype unused);
    fields!(Rows = "Rows": data outer step inner);
    fields!(StateArguments = "State": soft_labels soft_labels_stride sums sums_stride counts counters);
    fields!(Scratch = "Scratch": divisors divisor losses near_losses rest_of_losses far_losses far_from_finite has_far_losses loss_ticket
        divisor_ticket tally_ticket refused bad_soft_labels next_slice unused counted report);
    fields!(Pass = "Pass": logits grad targets loss count inner target_offset ignore_index state alpha near_loss scratch classes reduction
        statistics divisor count_targets cached slice slices targets2 weights lam grad_loss class_weights scaled_weights scaled_weights32
        weight_scale tally);
    fields!(Epoch = "Epoch": state scratch initial own other momentum freeze_above min_count epoch classes policy policy_report unused);
    fields!(Fill = "Fill": to to_stride from from_row from_column own other scratch classes from_dtype checked unused);
    numbers!(
        "OLS_DIVISOR_BLOCKS" = DIVISOR_BLOCKS,
        "OLS_DIVISOR_IN_BLOCK" = DIVISOR_IN_BLOCK,
        "OLS_FAR_PIECES" = FAR_PIECES,
        "OLS_LOSSES_IN_ONE" = LOSSES_IN_ONE,
        "OLS_SUM_BITS" = SUM_BITS[0],
        "OLS_LOSS_ONE" = 1 << LOSS_BITS,
        "OLS_STREAM_CHUNK" = slots::STREAM_CHUNK,
        "OLS_STREAM_SLOTS" = slots::STREAM_SLOTS,
        "OLS_STREAM_LABEL_SLOTS" = slots::STREAM_LABEL_SLOTS,
        "StreamBarriers" = slots::STREAM_BARRIERS,
        "RowInShared.f32" = slots::row_in_shared(DType::F32),
        "RowInShared.f16" = slots::row_in_shared(DType::F16),
        "RowInShared.bf16" = slots::row_in_shared(DType::Bf16),
        "OLS_FRACTION_ONE" = 1 << FRACTION_BITS,
        "OLS_FULL_CLASS" = FULL_CLASS,
        "COUNTERS" = COUNTERS,
        "COUNTER_SKIPPED" = Counter::SkippedNonFinite,
        "COUNTER_OUT_OF_RANGE" = Counter::TargetsOutOfRange,
        "COUNTER_REFUSED" = Counter::TakeBacksRefused,
        "DTYPE_I64" = number(DType::I64),
        "DTYPE_I32" = number(DType::I32),
        "DTYPE_U8" = number(DType::U8),
        "DTYPE_F32" = number(DType::F32),
        "DTYPE_F64" = number(DType::F64),
        "REDUCTION_NONE" = reduction(Reduction::None),
        "REDUCTION_MEAN" = reduction(Reduction::Mean),
        "REDUCTION_SUM" = reduction(Reduction::Sum),
        "STATISTICS_LEAVE" = Statistics::Leave,
        "STATISTICS_ADD" = Statistics::Add,
        "STATISTICS_TALLY" = Statistics::Tally,
        "STATISTICS_TAKE_BACK" = Statistics::TakeBack,
        "DIVISOR_ONE" = DIVISOR_ONE,
        "DIVISOR_BY_EACH_BLOCK" = DIVISOR_BY_EACH_BLOCK,
        "DIVISOR_FROM_KERNEL" = DIVISOR_FROM_KERNEL,
        "DIVISOR_BY_ALL_BLOCKS" = DIVISOR_BY_ALL_BLOCKS,
        "POLICY_KEEP" = POLICY_KEEP,
        "POLICY_CONSTANT" = POLICY_CONSTANT,
        "POLICY_MATRIX" = POLICY_MATRIX,
        "REPORT_KEPT" = REPORT_KEPT,
        "REPORT_UNIFORM" = REPORT_UNIFORM,
        "REPORT_INITIAL" = REPORT_INITIAL,
        "REPORT_ONE_HOT" = REPORT_ONE_HOT,
        "REPORT_ZERO" = REPORT_ZERO,
        "REPORT_REFUSED" = REPORT_REFUSED,
        "REPORT_BAD_SOFT_LABELS" = REPORT_BAD_SOFT_LABELS,
    );
    all
}
