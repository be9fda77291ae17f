//! Which kernel passes over a batch: one table by the number of classes, the layout, the dtype and the device. The reasons are in docs/cuda.md.

use super::arguments::{DIVISOR_BLOCKS, LOSS_SLOTS};
use crate::error::{Result, fail};
use crate::samples::Samples;
use crate::tensor::DType;

/// A kernel that passes over a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Samples,
    Rows8,
    Rows32,
    Cluster,
    Bulk128,
    Bulk512,
    Rows128,
    Rows512,
}

/// Source files of kernels, each compiled to a module of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Module {
    /// For every device.
    Ols,
    /// For compute capability 9.0 on.
    Hopper,
}

/// Which variants a criterion may use. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Those of every device: what is used unless something else is asked for, since no GPU has run the others yet.
    Plain,
    /// Those of compute capability 9.0 too, where the table thinks that they pay.
    Hopper,
    /// Statistics by bulk additions wherever that can be done; to check and to measure.
    Bulk,
    /// Clusters wherever there can be some, else bulk additions; to check and to measure.
    Cluster,
}

impl Path {
    /// What the environment variable `OLS_CUDA_PATH` asks for.
    pub fn wanted() -> Result<Self> {
        let Some(name) = std::env::var_os("OLS_CUDA_PATH") else { return Ok(Self::Plain) };
        Ok(match name.to_str() {
            Some("" | "plain") => Self::Plain,
            Some("hopper") => Self::Hopper,
            Some("bulk") => Self::Bulk,
            Some("cluster") => Self::Cluster,
            _ => fail!(InvalidArgument, "the environment variable OLS_CUDA_PATH = {name:?} is not plain, hopper, bulk or cluster"),
        })
    }
}

struct Row {
    variant: Variant,
    name: &'static str,
    module: Module,
    /// More classes than this, and at most so many.
    above: usize,
    most: usize,
    threads: u32,
    /// Samples that a block works on at once.
    samples: usize,
    /// Slots for partial losses that a block fills.
    slots: usize,
}

/// No limit to the number of classes.
const ANY: usize = usize::MAX;

/// The first row that fits is taken. `Samples` is for layouts alone; the bits of a row depend on the number of classes, so no other property of a
/// batch may choose between variants but where they give the same bits: rows8 and samples; rows128 and bulk128; rows512, bulk512 and cluster.
const TABLE: [Row; 8] = [
    Row { variant: Variant::Samples, name: "samples", module: Module::Ols, above: 0, most: 32, threads: 256, samples: 256, slots: 8 },
    Row { variant: Variant::Rows8, name: "rows8", module: Module::Ols, above: 0, most: 32, threads: 256, samples: 32, slots: 1 },
    Row { variant: Variant::Rows32, name: "rows32", module: Module::Ols, above: 32, most: 256, threads: 256, samples: 8, slots: 1 },
    Row { variant: Variant::Cluster, name: "cluster", module: Module::Hopper, above: 2048, most: ANY, threads: 512, samples: 1, slots: 1 },
    Row { variant: Variant::Bulk128, name: "bulk128", module: Module::Hopper, above: 256, most: 2048, threads: 128, samples: 1, slots: 1 },
    Row { variant: Variant::Bulk512, name: "bulk512", module: Module::Hopper, above: 2048, most: ANY, threads: 512, samples: 1, slots: 1 },
    Row { variant: Variant::Rows128, name: "rows128", module: Module::Ols, above: 256, most: 2048, threads: 128, samples: 1, slots: 1 },
    Row { variant: Variant::Rows512, name: "rows512", module: Module::Ols, above: 2048, most: ANY, threads: 512, samples: 1, slots: 1 },
];

/// Blocks of a cluster, as `CLUSTER_BLOCKS`.
pub(super) const CLUSTER_BLOCKS: u32 = 8;
/// From so many classes on one bulk addition is thought to beat a row's atomics.
const BULK_PAYS: usize = 512;
/// From so many bytes of a row on a cluster is thought to pay: a block would have the multiprocessor's shared memory to itself, and long to go.
const CLUSTER_PAYS: usize = 128 * 1024;
/// As above, where there are so few rows that each can have a cluster at once.
const CLUSTER_PAYS_FOR_FEW_ROWS: usize = 32 * 1024;

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

/// A kernel, as its place among [`KERNELS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KernelId(pub usize);

/// As many ids as there are: per dtype the passes and `accumulate`, then the others.
pub(super) const KERNELS: usize = DTYPES.len() * (TABLE.len() + 1) + OTHERS.len();

/// Whether there is such a kernel: f64 in a cluster would need more registers than a block of 512 threads has.
fn exists(row: &Row, dtype: DType) -> bool {
    row.variant != Variant::Cluster || dtype != DType::F64
}

/// The kernels of a module.
pub(super) fn names(module: Module) -> impl Iterator<Item = (KernelId, String)> {
    let passes = DTYPES.iter().flat_map(move |&(dtype, name)| {
        let rows = TABLE.iter().enumerate().filter(move |(_, row)| row.module == module && exists(row, dtype));
        rows.map(move |(at, row)| (of_dtype(dtype, at), format!("ols_{}_{name}", row.name)))
    });
    let accumulating = DTYPES.iter().map(|&(dtype, name)| (accumulate(dtype), format!("ols_accumulate_{name}")));
    let others = OTHERS.iter().enumerate().map(|(at, &name)| (KernelId(KERNELS - OTHERS.len() + at), name.to_owned()));
    passes.chain(accumulating.chain(others).filter(move |_| module == Module::Ols))
}

fn of_dtype(dtype: DType, kernel: usize) -> KernelId {
    let at = DTYPES.iter().position(|(known, _)| *known == dtype).unwrap_or_else(|| unreachable!("logits have a floating dtype"));
    KernelId(at * (TABLE.len() + 1) + kernel)
}

pub(super) fn accumulate(dtype: DType) -> KernelId {
    of_dtype(dtype, TABLE.len())
}

pub(super) fn other(kernel: Other) -> KernelId {
    KernelId(KERNELS - OTHERS.len() + kernel as usize)
}

/// The kernels that run in clusters, and the threads of their blocks.
pub(super) fn cluster_kernels() -> impl Iterator<Item = (KernelId, u32)> {
    let rows = TABLE.iter().enumerate().filter(|(_, row)| row.variant == Variant::Cluster);
    rows.flat_map(|(at, row)| {
        let dtypes = DTYPES.iter().filter(|(dtype, _)| exists(row, *dtype));
        dtypes.map(move |(dtype, _)| (of_dtype(*dtype, at), row.threads))
    })
}

/// Whether rows of a kernel may lie in shared memory.
pub(super) fn is_for_long_rows(kernel: KernelId) -> bool {
    TABLE.get(kernel.0 % (TABLE.len() + 1)).is_some_and(|row| row.most == ANY) && kernel.0 < KERNELS - OTHERS.len()
}

/// How a pass is launched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Launch {
    pub kernel: KernelId,
    pub blocks: u32,
    pub threads: u32,
    /// Blocks of a cluster.
    pub cluster: u32,
    /// Bytes of a row's share that a block would keep in shared memory.
    pub row_bytes: Option<usize>,
}

/// What of a batch chooses between the variants.
#[derive(Clone, Copy, Debug)]
struct Kind {
    classes: usize,
    dtype: DType,
    samples: usize,
    /// Classes apart and neighbouring samples side by side: the pixels of (N, K, inner).
    side_by_side: bool,
}

/// The row of the table for a batch, on a device on which so many clusters are at work at once.
fn find(kind: Kind, path: Path, clusters: usize) -> usize {
    let fits = |row: &Row| {
        (row.above < kind.classes && kind.classes <= row.most)
            && exists(row, kind.dtype)
            && match row.variant {
                Variant::Samples => kind.side_by_side,
                Variant::Bulk128 | Variant::Bulk512 => path != Path::Plain && (path != Path::Hopper || kind.classes >= BULK_PAYS),
                Variant::Cluster => {
                    let least = if kind.samples <= clusters { CLUSTER_PAYS_FOR_FEW_ROWS } else { CLUSTER_PAYS };
                    path == Path::Cluster || (path == Path::Hopper && kind.classes * kind.dtype.size() >= least)
                }
                _ => true,
            }
    };
    TABLE.iter().position(fits).unwrap_or(TABLE.len() - 1)
}

/// The pass over a batch, on a device on which so many clusters are at work at once.
pub(super) fn choose(samples: &Samples, path: Path, clusters: usize) -> Launch {
    let (classes, dtype) = (samples.classes, samples.logits.dtype);
    let side_by_side = samples.logits.inner == 1 && samples.logits.class != 1 && samples.inner > 1;
    let at = find(Kind { classes, dtype, samples: samples.count, side_by_side }, path, clusters);
    let row = &TABLE[at];
    // More blocks would have no slot for their losses; they take further samples instead.
    let blocks = samples.count.div_ceil(row.samples).clamp(1, LOSS_SLOTS / row.slots);
    let (blocks, cluster) = if row.variant == Variant::Cluster {
        // Each goes on to further rows.
        (blocks.min(clusters.max(1)) as u32 * CLUSTER_BLOCKS, CLUSTER_BLOCKS)
    } else {
        (blocks as u32, 1)
    };
    let share = if cluster > 1 { part_of_row(classes) } else { classes };
    let row_bytes = (row.most == ANY).then_some(share * dtype.size());
    Launch { kernel: of_dtype(dtype, at), blocks, threads: row.threads, cluster, row_bytes }
}

/// The classes of a part of a long row, of which a cluster's blocks have one each: whole tiles of 2048, as in pass_rows.h.
fn part_of_row(classes: usize) -> usize {
    const TILE: usize = 2048;
    classes.div_ceil(TILE).div_ceil(CLUSTER_BLOCKS as usize) * TILE
}

/// Blocks of the kernel over the targets: four targets per thread, then more.
pub(super) fn divisor_blocks(count: usize) -> u32 {
    count.div_ceil(4 * OTHER_THREADS as usize).clamp(1, DIVISOR_BLOCKS) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both sides of every limit, for each way to ask.
    #[test]
    fn cuda_table_at_its_limits() {
        let name = |path, classes, dtype, samples, side_by_side| TABLE[find(Kind { classes, dtype, samples, side_by_side }, path, 16)].name;
        let every = [Path::Plain, Path::Hopper, Path::Bulk, Path::Cluster];
        for (dtype, _) in DTYPES {
            for path in every {
                for (classes, expected) in [(2, "rows8"), (31, "rows8"), (32, "rows8"), (33, "rows32"), (255, "rows32"), (256, "rows32")] {
                    assert_eq!(name(path, classes, dtype, 1000, false), expected, "{path:?} {classes}");
                }
                for (classes, expected) in [(2, "samples"), (31, "samples"), (32, "samples"), (33, "rows32")] {
                    assert_eq!(name(path, classes, dtype, 1000, true), expected, "{path:?} {classes}");
                }
            }
            for classes in [257, 511, 512, 513, 2047, 2048] {
                assert_eq!(name(Path::Plain, classes, dtype, 1000, false), "rows128", "{classes}");
                assert_eq!(name(Path::Bulk, classes, dtype, 1000, false), "bulk128", "{classes}");
                assert_eq!(name(Path::Cluster, classes, dtype, 1000, false), "bulk128", "{classes}");
                assert_eq!(name(Path::Hopper, classes, dtype, 1000, false), if classes < 512 { "rows128" } else { "bulk128" }, "{classes}");
            }
            let forced = if dtype == DType::F64 { "bulk512" } else { "cluster" };
            for classes in [2049, 8191, 8192, 16_383, 16_384, 32_767, 32_768, 65_535, 65_536, 1 << 30] {
                assert_eq!(name(Path::Plain, classes, dtype, 1000, false), "rows512", "{classes}");
                assert_eq!(name(Path::Bulk, classes, dtype, 1000, false), "bulk512", "{classes}");
                assert_eq!(name(Path::Cluster, classes, dtype, 1000, false), forced, "{classes}");
                let bytes = classes * dtype.size();
                for (samples, least) in [(1, 32 << 10), (16, 32 << 10), (17, 128 << 10), (1000, 128 << 10)] {
                    let expected = if bytes >= least { forced } else { "bulk512" };
                    assert_eq!(name(Path::Hopper, classes, dtype, samples, false), expected, "{classes} {samples}");
                }
            }
        }
    }
}
