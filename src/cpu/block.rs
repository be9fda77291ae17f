//! Blocks of samples, at any level, by the kernel that suits them.
#![allow(unsafe_code, reason = "functions compiled for a level are called on processors that have it; rows are the caller's memory")]

use std::marker::PhantomData;

use half::{bf16, f16};

use super::adder::Adder;
use super::columns::{self, Columns};
use super::few::Few;
use super::labels::{LANES, Labels};
#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512};
use super::lanes::{Portable, Real, Vectors};
use super::level::Level;
use super::memory::{Group, Lines};
use super::pass::Pass;
use super::rows::Rows;
use super::scratch::{RealScratch, Worker};
use super::single::Single;
use super::softmax::Softmaxes;
use super::storage::{Arithmetic, Storage};
use super::sums::CHAIN;
use crate::samples::{BLOCK, Place, Samples};
use crate::tensor::DType;

/// What a kernel has of a group of samples.
pub(super) struct Task<'a, 'b, R> {
    pub pass: &'a Pass<'b>,
    /// The first sample.
    pub first: Place,
    pub logits: Group<R>,
    pub grad: Option<Group<R>>,
    pub labels: &'a mut Labels,
    /// What is found of each sample.
    pub found: &'a mut Softmaxes,
    pub scratch: &'a mut RealScratch<R>,
}

/// A kernel: loss, gradient and statistics of a group of samples.
pub(super) trait Kernel<R: Real> {
    /// How many samples it takes at the most.
    const MOST: usize;

    /// Computes samples that share an outer index or have none but it: losses, times the sample weights, to `losses`; the gradient where it is wanted; p
    /// to the statistics.
    ///
    /// # Safety
    /// As `pass::run`; the group's logits can be read, and its gradients written, by nobody else.
    unsafe fn run<V: Vectors>(task: Task<'_, '_, R>, adder: &mut Adder<'_>, losses: &mut [f64]);
}

/// What a kernel for rows has of a group of samples.
pub(super) struct LineTask<'a, 'b, L: Storage> {
    pub pass: &'a Pass<'b>,
    pub logits: Lines<L>,
    pub grad: Option<Lines<L>>,
    pub labels: &'a Labels,
    pub found: &'a mut Softmaxes,
    pub scratch: &'a mut RealScratch<L::Real>,
}

/// A kernel for rows whose classes lie side by side.
pub(super) trait LineKernel<L: Storage> {
    /// As [`Kernel::run`], for the samples of the task's labels.
    ///
    /// # Safety
    /// The logits can be read and the gradients written, by nobody else; they have rows for `losses.len()` samples of the pass.
    unsafe fn run_lines<V: Vectors>(task: LineTask<'_, '_, L>, adder: &mut Adder<'_>, losses: &mut [f64]);
}

/// Whether rows are copied before their kernel comes, 16 at a time: those whose classes do not lie side by side, and 16-bit ones of few classes.
pub(super) fn copies_rows(samples: &Samples) -> bool {
    let strided = samples.logits.class != 1 || samples.grad.is_some_and(|grad| grad.class != 1);
    strided || (samples.logits.dtype.size() == 2 && samples.classes <= CHAIN * f32::LANES)
}

/// Kernels of lines for rows stored as `L`, or for copies of rows that are not as the kernel needs them.
struct Any<L, K>(PhantomData<L>, K);

impl<L: Storage, K: LineKernel<L>> Kernel<L::Real> for Any<L, K> {
    const MOST: usize = LANES;

    #[inline(always)]
    unsafe fn run<V: Vectors>(task: Task<'_, '_, L::Real>, adder: &mut Adder<'_>, losses: &mut [f64]) {
        let Task { pass, first, logits, grad, labels, found, scratch } = task;
        // SAFETY: the caller's promise, for all that follows.
        unsafe {
            labels.read(pass, first, losses.len());
            // Gradients take the places of the copies, which `run` has read as what they are computed in.
            let copied = copies_rows(pass.samples);
            let mut copies = std::mem::take(&mut scratch.copies);
            if copied {
                logits.gather::<V>(&mut copies);
            }
            // One address for both: the kernel reads logits and writes gradients there.
            let address = copies.as_mut_ptr();
            let lines_of = |group: &Group<L::Real>| if copied { group.copied_lines::<L>(address) } else { group.lines::<L>() };
            let (lines, grad_lines) = (lines_of(&logits), grad.as_ref().map(lines_of));
            K::run_lines::<V>(LineTask { pass, logits: lines, grad: grad_lines, labels, found, scratch }, adder, losses);
            if copied && let Some(grad) = grad {
                grad.scatter::<V>(&copies);
            }
            scratch.copies = copies;
        }
    }
}

/// Picks the scratch of an arithmetic type.
pub(super) trait HasScratch: Arithmetic {
    fn of(worker: &mut Worker) -> &mut RealScratch<Self>;
}

impl HasScratch for f32 {
    fn of(worker: &mut Worker) -> &mut RealScratch<f32> {
        &mut worker.f32
    }
}

impl HasScratch for f64 {
    fn of(worker: &mut Worker) -> &mut RealScratch<f64> {
        &mut worker.f64
    }
}

/// The blocks from number `first` on, one for each of `partials`, which become the sums of their losses.
///
/// # Safety
/// As `pass::run`; the processor has the pass's level, and the worker was prepared.
pub(super) unsafe fn run(pass: &Pass<'_>, first: usize, partials: &mut [f64], worker: &mut Worker, adder: &mut Adder<'_>) {
    let as_stored = !columns::suits(pass.samples) && !copies_rows(pass.samples);
    // SAFETY: the caller's promise.
    unsafe {
        match pass.samples.logits.dtype {
            DType::F64 => run_as::<f64>(pass, first, partials, worker, adder),
            DType::Bf16 if as_stored => run_many::<bf16>(pass, first, partials, worker, adder),
            DType::F16 if as_stored => run_many::<f16>(pass, first, partials, worker, adder),
            _ => run_as::<f32>(pass, first, partials, worker, adder),
        }
    }
}

/// Any number of classes, computed in `R` and stored so unless columns or copies are made of them.
///
/// # Safety
/// As [`run`].
unsafe fn run_as<R: HasScratch>(pass: &Pass<'_>, first: usize, partials: &mut [f64], worker: &mut Worker, adder: &mut Adder<'_>) {
    let classes = pass.samples.classes;
    // SAFETY: the caller's promise.
    unsafe {
        if columns::suits(pass.samples) {
            run_at::<R, Columns>(pass, first, partials, worker, adder);
        } else if classes > CHAIN * R::LANES {
            run_many::<R>(pass, first, partials, worker, adder);
        } else if is_general(pass) {
            run_at::<R, Any<R, Few<true>>>(pass, first, partials, worker, adder);
        } else if classes > R::LANES {
            run_at::<R, Any<R, Few<false>>>(pass, first, partials, worker, adder);
        } else {
            run_at::<R, Any<R, Single>>(pass, first, partials, worker, adder);
        }
    }
}

/// Many classes, stored as `L` unless copies are made of them.
///
/// # Safety
/// As [`run`].
unsafe fn run_many<L: Storage<Real: HasScratch>>(
    pass: &Pass<'_>,
    first: usize,
    partials: &mut [f64],
    worker: &mut Worker,
    adder: &mut Adder<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if is_general(pass) {
            run_at::<L::Real, Any<L, Rows<true>>>(pass, first, partials, worker, adder);
        } else {
            run_at::<L::Real, Any<L, Rows<false>>>(pass, first, partials, worker, adder);
        }
    }
}

/// Whether any sample may have more to its q than one soft label and one hard one.
fn is_general(pass: &Pass<'_>) -> bool {
    pass.samples.has_second_targets() || pass.class_weights.is_some()
}

/// # Safety
/// As [`run`].
unsafe fn run_at<R: HasScratch, K: Kernel<R>>(
    pass: &Pass<'_>,
    first: usize,
    partials: &mut [f64],
    worker: &mut Worker,
    adder: &mut Adder<'_>,
) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn avx512<R: HasScratch, K: Kernel<R>>(
        pass: &Pass<'_>,
        first: usize,
        partials: &mut [f64],
        worker: &mut Worker,
        adder: &mut Adder<'_>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { run_kernel::<R, K, Avx512>(pass, first, partials, worker, adder) }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2<R: HasScratch, K: Kernel<R>>(
        pass: &Pass<'_>,
        first: usize,
        partials: &mut [f64],
        worker: &mut Worker,
        adder: &mut Adder<'_>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { run_kernel::<R, K, Avx2>(pass, first, partials, worker, adder) }
    }
    // SAFETY: the caller's promise; `Level::detect` names only levels that the processor has.
    unsafe {
        match pass.level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::<R, K>(pass, first, partials, worker, adder),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::<R, K>(pass, first, partials, worker, adder),
            Level::Portable => run_kernel::<R, K, Portable>(pass, first, partials, worker, adder),
        }
    }
}

/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn run_kernel<R: HasScratch, K: Kernel<R>, V: Vectors>(
    pass: &Pass<'_>,
    first: usize,
    partials: &mut [f64],
    worker: &mut Worker,
    adder: &mut Adder<'_>,
) {
    let samples = pass.samples;
    let scratch = R::of(worker);
    // Too many for the stack, whose zeros would be written anew for each call.
    let mut many_losses = std::mem::take(&mut scratch.columns.losses);
    let mut few_losses = [0.0; LANES];
    let all_losses: &mut [f64] = if K::MOST > LANES { &mut many_losses } else { &mut few_losses };
    let (mut labels, mut found) = (Labels::new(pass), Softmaxes::new());
    let along_inner = samples.inner != 1;
    let (mut index, end) = (first * BLOCK, samples.count.min((first + partials.len()) * BLOCK));
    partials.fill(0.0);
    while index < end {
        let place = samples.place(index);
        // Samples that are taken together share the outer index, or have none but it.
        let neighbours = if along_inner { samples.inner - place.inner } else { usize::MAX };
        let count = K::MOST.min(end - index).min(neighbours);
        let losses = &mut all_losses[..count];
        // SAFETY: the caller's promise, for all that follows: these samples are the batch's, their rows can be read, and gradients written.
        let group = |rows| unsafe { Group::<R>::new(rows, samples.classes, place, count, along_inner) };
        let task = Task {
            pass,
            first: place,
            logits: group(&samples.logits),
            grad: samples.grad.as_ref().map(group),
            labels: &mut labels,
            found: &mut found,
            scratch: &mut *scratch,
        };
        // SAFETY: as above; nobody else uses the rows.
        unsafe { K::run::<V>(task, adder, losses) };
        if pass.each
            && let Some(to) = samples.loss
        {
            for (lane, &loss) in losses.iter().enumerate() {
                // SAFETY: as above.
                unsafe { to.write(samples.after(place, lane), loss) };
            }
        }
        let mut left = &*losses;
        while !left.is_empty() {
            let at = index + count - left.len();
            let (of_block, rest) = left.split_at(left.len().min(BLOCK - at % BLOCK));
            let partial = &mut partials[at / BLOCK - first];
            *partial = of_block.iter().fold(*partial, |sum, loss| sum + loss);
            left = rest;
        }
        index += count;
    }
    scratch.columns.losses = many_losses;
}
