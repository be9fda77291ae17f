//! Selects the kernel for a batch and its number of blocks, from one table by number of classes, layout, dtype and
//! device. See docs/cuda.md for the reasons.

use super::arguments::DIVISOR_BLOCKS;
use crate::error::{Result, fail};
use crate::samples::Samples;
use crate::tensor::DType;

/// How a kernel distributes a batch over threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A thread per sample, where neighbouring samples are adjacent in memory.
    Samples,
    /// A thread per row, for contiguous rows; usual form only.
    Staged,
    /// A warp per row of few classes, for few rows; usual form only.
    Few,
    /// `lanes` threads per row.
    Rows,
    /// As `Rows`, but with fewer threads and more work for each, for many rows; usual form only.
    Wide,
    /// As `Wide`, with the row in shared memory, brought there by the copy engine.
    Shared,
    /// As `Rows`, with rows that stream through shared memory, brought there by the copy engine; usual form only.
    Stream,
}

impl Way {
    /// Whether it needs the copy engine of compute capability 9.0, and so has kernels in [`Module::Hopper`] only.
    fn copies(self) -> bool {
        matches!(self, Self::Shared | Self::Stream)
    }
}

/// A set of compiled kernels. Each device loads one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Module {
    /// For all devices.
    Ols,
    /// The same kernels compiled for compute capability 9.0 and newer, and kernels that use its copy engine.
    Hopper,
}

/// Which module a criterion uses. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// The module that is expected to be the fastest on the device.
    Default,
    /// The module for all devices.
    Plain,
    /// The module for compute capability 9.0 and newer.
    Hopper,
}

impl Path {
    /// What the environment variable `OLS_CUDA_PATH` selects.
    pub fn wanted() -> Result<Self> {
        let Some(name) = std::env::var_os("OLS_CUDA_PATH") else { return Ok(Self::Default) };
        Ok(match name.to_str() {
            Some("") => Self::Default,
            Some("plain") => Self::Plain,
            Some("hopper") => Self::Hopper,
            _ => fail!(InvalidArgument, "the environment variable OLS_CUDA_PATH = {name:?} is neither plain nor hopper"),
        })
    }

    /// The module to load; `newer`: whether the device can run [`Module::Hopper`]. `None` if it cannot but would have
    /// to.
    pub fn module(self, newer: bool) -> Option<Module> {
        match self {
            Self::Plain => Some(Module::Ols),
            _ if newer => Some(Module::Hopper),
            Self::Default => Some(Module::Ols),
            Self::Hopper => None,
        }
    }
}

struct Row {
    way: Way,
    name: &'static str,
    /// Takes more than `above` and at most `most` classes.
    above: usize,
    most: usize,
    threads: u32,
    /// Threads per row.
    lanes: u32,
}

impl Row {
    /// Samples per block at a time.
    fn samples(&self) -> usize {
        (self.threads / self.lanes) as usize
    }

    /// The bytes of dynamic shared memory that every block takes.
    fn shared(&self, dtype: DType) -> usize {
        if self.way == Way::Shared { self.samples() * slots::row_in_shared(dtype) } else { 0 }
    }
}

/// No limit on the number of classes.
const ANY: usize = usize::MAX;

/// The first entry that fits is used. The bits of a row may depend on the number of classes and the dtype only, so
/// other properties of a batch may only choose between variants that give the same bits: rows8, samples, staged and
/// few32; rows128, wide32 and shared32; rows512 and stream512.
const TABLE: [Row; 11] = [
    Row { way: Way::Samples, name: "samples", above: 0, most: 32, threads: 256, lanes: 1 },
    Row { way: Way::Few, name: "few32", above: 0, most: 32, threads: 128, lanes: 32 },
    Row { way: Way::Staged, name: "staged", above: 0, most: 32, threads: 256, lanes: 1 },
    Row { way: Way::Rows, name: "rows8", above: 0, most: 32, threads: 256, lanes: 8 },
    Row { way: Way::Rows, name: "rows32", above: 32, most: 256, threads: 128, lanes: 32 },
    Row { way: Way::Shared, name: "shared32", above: 256, most: 1024, threads: 128, lanes: 32 },
    Row { way: Way::Wide, name: "wide32", above: 256, most: 1024, threads: 128, lanes: 32 },
    Row { way: Way::Rows, name: "rows128", above: 256, most: 1024, threads: 128, lanes: 128 },
    Row { way: Way::Rows, name: "rows256", above: 1024, most: 2048, threads: 256, lanes: 256 },
    Row { way: Way::Stream, name: "stream512", above: 6144, most: ANY, threads: 512 + 64, lanes: 512 },
    Row { way: Way::Rows, name: "rows512", above: 2048, most: ANY, threads: 512, lanes: 512 },
];

/// From this many rows on, a warp per row beats a block per row: there are enough rows to occupy every
/// multiprocessor.
const WIDE_PAYS: usize = 1024;

/// Up to this many classes, rows of 32-bit logits are faster in shared memory than in registers; those of 16-bit logits
/// always are.
const SHARED_PAYS: usize = 512;

/// Up to this many rows of few classes, a warp per row beats a thread per row: it occupies more of the device.
const FEW_ROWS: usize = 2048;

/// Logits dtypes, and their names in those of the kernels.
const DTYPES: [(DType, &str); 4] = [(DType::F32, "f32"), (DType::F64, "f64"), (DType::F16, "f16"), (DType::Bf16, "bf16")];

/// Kernels other than passes.
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

/// Threads per block of the `Other` kernels, and of `accumulate`.
pub(super) const OTHER_THREADS: u32 = 256;
pub(super) const ACCUMULATE_THREADS: u32 = 128;

/// A kernel, as an index into the kernels of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KernelId(pub usize);

/// Ids per dtype: the usual and the general form of each variant, and `accumulate`.
const OF_DTYPE: usize = 2 * TABLE.len() + 1;
/// The number of ids. The `Other` kernels come last. Some ids have no kernel.
pub(super) const KERNELS: usize = DTYPES.len() * OF_DTYPE + OTHERS.len();

/// The two forms of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// What most training needs, without the cost of anything else: no weights, second targets or gradients of the
    /// loss, no batch to be taken back, fewer than 2^31 samples, a target offset below 2^31 in magnitude, and (except
    /// for `samples`) one sample index per row with adjacent classes.
    Usual,
    /// Everything.
    General,
}

/// Whether the table's variant has a kernel of this form and dtype.
fn exists(row: &Row, form: Form, dtype: DType) -> bool {
    match form {
        // rows8 has no usual form: rows of few classes that are not contiguous are rare.
        Form::Usual => dtype != DType::F64 && row.lanes != 8,
        Form::General => matches!(row.way, Way::Samples | Way::Rows),
    }
}

/// A kernel to load.
pub(super) struct Listed {
    pub id: KernelId,
    pub name: String,
    /// For passes: threads per block.
    pub threads: Option<u32>,
    /// Whether the kernel may use as much shared memory as a block can have.
    pub long_rows: bool,
    /// The dynamic shared memory, in bytes, that it takes otherwise.
    pub shared: usize,
}

/// All kernels of a module.
pub(super) fn kernels(module: Module) -> impl Iterator<Item = Listed> {
    let has = move |row: &Row| module == Module::Hopper || !row.way.copies();
    let passes = TABLE.iter().enumerate().filter(move |(_, row)| has(row)).flat_map(|(at, row)| {
        [(Form::Usual, ""), (Form::General, "any_")].into_iter().flat_map(move |(form, infix)| {
            let dtypes = DTYPES.iter().filter(move |(dtype, _)| exists(row, form, *dtype));
            dtypes.map(move |&(dtype, name)| Listed {
                id: pass(dtype, at, form),
                name: format!("ols_{}_{infix}{name}", row.name),
                threads: Some(row.threads),
                long_rows: row.most == ANY,
                shared: row.shared(dtype),
            })
        })
    });
    let beside = |id, name| Listed { id, name, threads: None, long_rows: false, shared: 0 };
    let accumulating = DTYPES.iter().map(move |&(dtype, name)| beside(accumulate(dtype), format!("ols_accumulate_{name}")));
    let others = OTHERS.iter().enumerate().map(move |(at, &name)| beside(KernelId(KERNELS - OTHERS.len() + at), name.to_owned()));
    passes.chain(accumulating).chain(others)
}

fn of_dtype(dtype: DType, kernel: usize) -> KernelId {
    let at = DTYPES.iter().position(|(known, _)| *known == dtype).unwrap_or_else(|| unreachable!("logits have a floating dtype"));
    KernelId(at * OF_DTYPE + kernel)
}

fn pass(dtype: DType, row: usize, form: Form) -> KernelId {
    of_dtype(dtype, 2 * row + usize::from(form == Form::General))
}

pub(super) fn accumulate(dtype: DType) -> KernelId {
    of_dtype(dtype, OF_DTYPE - 1)
}

pub(super) fn other(kernel: Other) -> KernelId {
    KernelId(KERNELS - OTHERS.len() + kernel as usize)
}

/// The dynamic shared memory of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    None,
    /// A row of this many bytes, if there is room for it.
    Row(usize),
    /// This many bytes; and what [`Pass::cached`](super::arguments::Pass::cached) says of them.
    Slots(usize, i32),
}

/// How to launch a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    pub kernel: KernelId,
    /// The usual form, whose blocks can count the targets of a large batch together.
    pub usual: bool,
    pub threads: u32,
    pub memory: Memory,
    /// Samples per block at a time.
    samples: usize,
}

impl Launch {
    /// The number of blocks for `samples` samples. Blocks are persistent: each loops until no sample is left, so
    /// there are never more than are resident at once, which `at_once` returns. The bits do not depend on the number
    /// of blocks.
    pub fn blocks(&self, samples: usize, at_once: impl FnOnce() -> Result<usize>) -> Result<u32> {
        let wanted = samples.div_ceil(self.samples).max(1);
        Ok(if wanted == 1 { 1 } else { wanted.min(at_once()?).clamp(1, i32::MAX as usize) as u32 })
    }
}

/// The properties of a batch that select a kernel.
#[derive(Clone, Copy, Debug)]
struct Kind {
    classes: usize,
    dtype: DType,
    samples: usize,
    /// Strided classes and adjacent samples: the pixels of (N, K, inner).
    side_by_side: bool,
    /// Whether the batch needs the general form for another reason than its layout.
    rare: bool,
    /// One sample index per row, and adjacent classes in the logits and in the gradient.
    dense: bool,
    /// Rows contiguous as well, in the logits and in the gradient.
    compact: bool,
    /// Logits in ascending rows that do not overlap.
    apart: bool,
    /// The shared memory that a block can have for rows brought by the copy engine, in bytes; `None` if it is not used.
    room: Option<usize>,
}

impl Kind {
    fn form(&self, row: &Row) -> Form {
        let usual = exists(row, Form::Usual, self.dtype) && !self.rare && (self.dense || row.way == Way::Samples);
        if usual { Form::Usual } else { Form::General }
    }

    /// Whether the copy engine may bring the rows: a copy may reach a few bytes beyond its row, where there must be
    /// another row or the space between rows.
    fn copies(&self) -> bool {
        self.room.is_some() && self.apart
    }

    fn stream(&self) -> Option<(usize, i32)> {
        slots::stream(self.classes, self.dtype, self.room?)
    }
}

/// The entry of the table for a batch, and the form of its kernel.
fn find(kind: Kind) -> (usize, Form) {
    let fits = |row: &Row| {
        (row.above < kind.classes && kind.classes <= row.most)
            && match row.way {
                Way::Samples => kind.side_by_side,
                Way::Staged => kind.form(row) == Form::Usual && kind.compact,
                Way::Few => kind.form(row) == Form::Usual && kind.samples <= FEW_ROWS,
                Way::Wide => kind.form(row) == Form::Usual && kind.samples >= WIDE_PAYS,
                Way::Shared => {
                    let pays = kind.samples >= WIDE_PAYS && (kind.dtype.size() == 2 || kind.classes <= SHARED_PAYS);
                    kind.form(row) == Form::Usual && kind.copies() && pays
                }
                Way::Stream => kind.form(row) == Form::Usual && kind.copies() && kind.stream().is_some(),
                Way::Rows => true,
            }
    };
    let at = TABLE.iter().position(fits).unwrap_or(TABLE.len() - 1);
    (at, kind.form(&TABLE[at]))
}

fn launch(kind: Kind) -> Launch {
    let (at, form) = find(kind);
    let row = &TABLE[at];
    let memory = match row.way {
        Way::Shared => Memory::Slots(row.shared(kind.dtype), 0),
        Way::Stream => kind.stream().map_or_else(|| unreachable!("the row fits"), |(bytes, cached)| Memory::Slots(bytes, cached)),
        _ if row.most == ANY => Memory::Row(kind.classes * kind.dtype.size()),
        _ => Memory::None,
    };
    let kernel = pass(kind.dtype, at, form);
    Launch { kernel, usual: form == Form::Usual, threads: row.threads, memory, samples: row.samples() }
}

/// How to launch the pass over a batch. `rare`: it has class weights, or is to be taken back. `copies`: kernels whose rows
/// the copy engine brings to shared memory may be used; `room` returns the shared memory, in bytes, that a block of a
/// kernel can have for them.
pub(super) fn choose(samples: &Samples, rare: bool, copies: bool, room: impl Fn(KernelId) -> usize) -> Launch {
    let (logits, classes) = (&samples.logits, samples.classes as i64);
    let stream = TABLE.iter().position(|row| row.way == Way::Stream).unwrap_or_else(|| unreachable!("the table has it"));
    let kind = Kind {
        classes: samples.classes,
        dtype: logits.dtype,
        samples: samples.count,
        side_by_side: logits.inner == 1 && logits.class != 1 && samples.inner > 1,
        rare: rare
            || samples.targets2.is_some()
            || samples.lam.is_some()
            || samples.weights.is_some()
            || samples.grad_loss.is_some()
            || samples.count > i32::MAX as usize
            || samples.target_offset.unsigned_abs() > i32::MAX as u64,
        dense: samples.inner == 1 && logits.class == 1 && samples.grad.is_none_or(|grad| grad.class == 1),
        compact: (samples.count <= 1 || logits.outer == classes)
            && samples.grad.is_none_or(|grad| samples.count <= 1 || grad.outer == classes),
        apart: samples.count <= 1 || logits.outer >= classes,
        room: copies.then(|| room(pass(logits.dtype, stream, Form::Usual))),
    };
    launch(kind)
}

/// Blocks of the divisor kernel: at four targets per thread, up to [`DIVISOR_BLOCKS`].
pub(super) fn divisor_blocks(count: usize) -> u32 {
    count.div_ceil(4 * OTHER_THREADS as usize).clamp(1, DIVISOR_BLOCKS) as u32
}

pub(super) mod slots;
#[cfg(test)]
mod tests;
