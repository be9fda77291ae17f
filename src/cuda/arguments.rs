//! What a kernel is handed: the structs of `cuda/kernels/arguments.h`, field by field. Tests compare sizes and offsets.

use crate::samples;
use crate::state::State;
use crate::statistics::{COUNTERS, Counter, FRACTION_BITS};
use crate::tensor::DType;

/// Blocks of the kernel over the targets, as `OLS_DIVISOR_BLOCKS`.
pub(super) const DIVISOR_BLOCKS: usize = 512;
/// As `OLS_DIVISOR_IN_BLOCK`.
pub(super) const DIVISOR_IN_BLOCK: usize = 1024;
/// Pieces of large losses, as `OLS_FAR_PIECES`.
const FAR_PIECES: usize = 68;
/// As `OLS_LOSSES_IN_ONE`.
const LOSSES_IN_ONE: usize = 16384;
/// Bits of a sum of losses: of so many, as `OLS_SUM_BITS`, and of more.
const SUM_BITS: [i32; 2] = [52, 63];
/// A loss of 1 has so many bits, as `OLS_LOSS_ONE`.
const LOSS_BITS: i32 = 30;

/// Slices of so many targets: their length, one or two per lane of a warp where it may be, and how many there are.
pub(super) fn slices(count: usize) -> [u32; 2] {
    const LEAST: usize = 64;
    const MOST_SLICES: usize = 4096;
    let slice = count.div_ceil(MOST_SLICES).max(LEAST);
    [slice as u32, count.div_ceil(slice) as u32]
}

/// The largest loss that so many samples may have each for their sum to fit its bits; a power of two.
pub(super) fn near_loss(count: usize) -> f64 {
    let bits = SUM_BITS[usize::from(count > LOSSES_IN_ONE)] - LOSS_BITS;
    2f64.powi(bits - count.max(1).next_power_of_two().ilog2() as i32 - 1)
}

// The kernels spell these numbers out.
const _: () = assert!(
    FRACTION_BITS == 30
        && COUNTERS == 4
        && Counter::SkippedNonFinite as usize == 0
        && Counter::TargetsOutOfRange as usize == 1
        && Counter::TakeBacksRefused as usize == 2
        && crate::statistics::FULL_CLASS == 1 << 32
);

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

/// Where the row of a class comes from that was not measured.
pub(super) const POLICY_KEEP: i32 = 0;
pub(super) const POLICY_CONSTANT: i32 = 1;
pub(super) const POLICY_MATRIX: i32 = 2;

/// Places in `Scratch.report`.
pub(super) const REPORT_KEPT: i32 = 2;
pub(super) const REPORT_UNIFORM: i32 = 3;
pub(super) const REPORT_INITIAL: i32 = 4;
pub(super) const REPORT_ONE_HOT: i32 = 5;
pub(super) const REPORT_ZERO: i32 = 6;
pub(super) const REPORT_REFUSED: usize = 12;
pub(super) const REPORT_BAD_SOFT_LABELS: usize = 14;
pub(super) const REPORT_LENGTH: usize = 16;

fn number(dtype: DType) -> i32 {
    match dtype {
        DType::I64 => 0,
        DType::I32 => 1,
        DType::U8 => 2,
        DType::F64 => 4,
        _ => 3,
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

/// Only its size and places are needed here.
#[repr(C)]
pub(super) struct Scratch {
    divisors: [f64; DIVISOR_BLOCKS],
    divisor: f64,
    losses: [u64; 3],
    far_losses: [u64; FAR_PIECES],
    far_from_finite: [u32; 2],
    has_far_losses: u32,
    tickets: [u32; 3],
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
    /// Targets of a slice, and slices, where all blocks count them.
    pub slices: [u32; 2],
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

impl Fill {
    pub fn number(dtype: DType) -> i32 {
        number(dtype)
    }
}

/// What a kernel may be handed: a struct by value.
pub(super) trait Argument: Copy {}
impl Argument for Pass {}
impl Argument for Epoch {}
impl Argument for Fill {}

/// Sizes and offsets by name, and the numbers that both sides have, for the test that compares them with the kernels'.
#[doc(hidden)]
pub fn layout() -> [(&'static str, usize); 20] {
    use std::mem::offset_of;
    [
        ("Pass", size_of::<Pass>()),
        ("Pass.state", offset_of!(Pass, state)),
        ("Pass.alpha", offset_of!(Pass, alpha)),
        ("Pass.near_loss", offset_of!(Pass, near_loss)),
        ("Pass.cached", offset_of!(Pass, cached)),
        ("Pass.slice", offset_of!(Pass, slices)),
        ("Pass.targets2", offset_of!(Pass, targets2)),
        ("Pass.tally", offset_of!(Pass, tally)),
        ("Epoch", size_of::<Epoch>()),
        ("Epoch.policy", offset_of!(Epoch, policy)),
        ("Fill", size_of::<Fill>()),
        ("Fill.checked", offset_of!(Fill, checked)),
        ("Scratch", size_of::<Scratch>()),
        ("Scratch.counted", offset_of!(Scratch, counted)),
        ("Scratch.report", offset_of!(Scratch, report)),
        ("OLS_DIVISOR_BLOCKS", DIVISOR_BLOCKS),
        ("OLS_DIVISOR_IN_BLOCK", DIVISOR_IN_BLOCK),
        ("OLS_LOSSES_IN_ONE", LOSSES_IN_ONE),
        ("OLS_SUM_BITS", SUM_BITS[0] as usize),
        ("OLS_LOSS_ONE", 1 << LOSS_BITS),
    ]
}
