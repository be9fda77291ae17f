//! Which kernel passes over a batch: one table by the number of classes, the layout and the dtype. The reasons are in docs/cuda.md.

use super::arguments::{DIVISOR_BLOCKS, LOSS_SLOTS};
use crate::samples::Samples;
use crate::tensor::DType;

/// A kernel that passes over a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    Rows8,
    Samples,
    Rows32,
    Rows128,
    Rows512,
}

struct Row {
    variant: Variant,
    name: &'static str,
    /// The most classes.
    most: usize,
    threads: u32,
    /// Samples that a block works on at once.
    samples: usize,
    /// Slots for partial losses that a block fills.
    slots: usize,
}

const fn row(variant: Variant, name: &'static str, most: usize, threads: u32, samples: usize, slots: usize) -> Row {
    Row { variant, name, most, threads, samples, slots }
}

/// In the order of the numbers of classes. `Samples` is for layouts alone; the bits of a row depend on the number of classes, so no other
/// property of a batch may choose between the others.
const TABLE: [Row; 5] = [
    row(Variant::Samples, "samples", 32, 256, 256, 8),
    row(Variant::Rows8, "rows8", 32, 256, 32, 1),
    row(Variant::Rows32, "rows32", 256, 256, 8, 1),
    row(Variant::Rows128, "rows128", 2048, 128, 1, 1),
    row(Variant::Rows512, "rows512", usize::MAX, 512, 1, 1),
];

/// The dtypes in the kernels' names.
const DTYPES: [(DType, &str); 4] = [(DType::F32, "f32"), (DType::F64, "f64"), (DType::F16, "f16"), (DType::Bf16, "bf16")];

/// Kernels beside the passes.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(super) enum Other {
    Divisor,
    EpochBegin,
    EpochRows,
    CheckSoftLabels,
    FillSoftLabels,
}
const OTHERS: [&str; 5] = ["ols_divisor", "ols_epoch_begin", "ols_epoch_rows", "ols_check_soft_labels", "ols_fill_soft_labels"];

/// Threads of a block of the `Other` kernels, and of `accumulate`.
pub(super) const OTHER_THREADS: u32 = 256;
pub(super) const ACCUMULATE_THREADS: u32 = 128;

/// A kernel, as its place in the list of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KernelId(pub usize);

/// The names of all kernels in the order of their ids: per dtype the passes and `accumulate`, then the others.
pub(super) fn names() -> impl Iterator<Item = String> {
    let of_dtype = |(_, dtype): &(DType, &str)| {
        let dtype = (*dtype).to_owned();
        let names = TABLE.iter().map(|row| row.name).chain(["accumulate"]);
        names.map(move |name| format!("ols_{name}_{dtype}")).collect::<Vec<_>>()
    };
    DTYPES.iter().flat_map(of_dtype).chain(OTHERS.iter().map(|&name| name.to_owned()))
}

fn of_dtype(dtype: DType, kernel: usize) -> KernelId {
    let at = DTYPES.iter().position(|(known, _)| *known == dtype).unwrap_or_else(|| unreachable!("logits have a floating dtype"));
    KernelId(at * (TABLE.len() + 1) + kernel)
}

pub(super) fn accumulate(dtype: DType) -> KernelId {
    of_dtype(dtype, TABLE.len())
}

pub(super) fn other(kernel: Other) -> KernelId {
    KernelId(DTYPES.len() * (TABLE.len() + 1) + kernel as usize)
}

/// The kernels whose rows may lie in shared memory.
pub(super) fn long_rows() -> impl Iterator<Item = KernelId> {
    DTYPES.iter().map(|(dtype, _)| of_dtype(*dtype, TABLE.len() - 1))
}

/// How a pass is launched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Launch {
    pub variant: Variant,
    pub kernel: KernelId,
    pub blocks: u32,
    pub threads: u32,
}

/// The pass over a batch.
pub(super) fn choose(samples: &Samples) -> Launch {
    // Classes apart and neighbouring samples side by side: the pixels of (N, K, inner).
    let samples_side_by_side = samples.logits.inner == 1 && samples.logits.class != 1 && samples.inner > 1;
    let fits = |row: &&Row| samples.classes <= row.most && (row.variant != Variant::Samples || samples_side_by_side);
    let at = TABLE.iter().position(|row| fits(&row)).unwrap_or(TABLE.len() - 1);
    let row = &TABLE[at];
    // More blocks would have no slot for their losses; they take further samples instead.
    let blocks = samples.count.div_ceil(row.samples).clamp(1, LOSS_SLOTS / row.slots) as u32;
    Launch { variant: row.variant, kernel: of_dtype(samples.logits.dtype, at), blocks, threads: row.threads }
}

/// Blocks of the kernel over the targets: four targets per thread, then more.
pub(super) fn divisor_blocks(count: usize) -> u32 {
    count.div_ceil(4 * OTHER_THREADS as usize).clamp(1, DIVISOR_BLOCKS) as u32
}
