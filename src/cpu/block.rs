//! Blocks of samples, at any level, by the kernel that suits them.
#![allow(unsafe_code, reason = "functions compiled for a level are called on processors that have it; rows are the caller's memory")]

use super::adder::Adder;
use super::columns::{self, Columns};
use super::few::Few;
use super::labels::{LANES, Labels};
#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512};
use super::lanes::{Portable, Real, Vectors};
use super::level::Level;
use super::memory::{Group, Layout, Lines};
use super::pass::Pass;
use super::rows::Rows;
use super::scratch::{RealScratch, Worker};
use super::single::Single;
use super::softmax::Softmaxes;
use super::storage::Storage;
use super::sums::CHAIN;
use crate::samples::{BLOCK, Place};

/// What the kernels have of a group of samples.
pub(super) struct Task<'a, 'b, L: Storage> {
    pub pass: &'a Pass<'b>,
    /// The first sample.
    pub first: Place,
    pub logits: Group<L>,
    pub grad: Option<Group<L>>,
    pub labels: &'a mut Labels,
    /// What is found of each sample.
    pub found: &'a mut Softmaxes,
    pub scratch: &'a mut RealScratch<L::Real>,
    pub gathered: &'a mut [u64],
}

/// A kernel: loss, gradient and statistics of a group of samples.
pub(super) trait Kernel<L: Storage> {
    /// How many samples it takes at the most.
    const MOST: usize;

    /// Computes samples that share an outer index or have none but it: losses, times the sample weights, to `losses`; the gradient where it is wanted; p
    /// to the statistics.
    ///
    /// # Safety
    /// As `pass::run`; the group's logits can be read, and its gradients written, by nobody else.
    unsafe fn run<V: Vectors>(task: Task<'_, '_, L>, adder: &mut Adder<'_>, losses: &mut [f64]);
}

/// A kernel for rows whose classes lie side by side.
pub(super) trait LineKernel<L: Storage> {
    /// As [`Kernel::run`], for the samples of `labels`.
    ///
    /// # Safety
    /// `logits` can be read and `grad` written, by nobody else; they have rows for `losses.len()` samples of the pass.
    #[expect(clippy::too_many_arguments, reason = "views in, views out")]
    unsafe fn run_lines<V: Vectors>(
        pass: &Pass<'_>,
        logits: &Lines<L>,
        grad: Option<&Lines<L>>,
        labels: &Labels,
        found: &mut Softmaxes,
        scratch: &mut RealScratch<L::Real>,
        adder: &mut Adder<'_>,
        losses: &mut [f64],
    );
}

/// Kernels of lines for rows that lie in any way.
struct Any<K>(K);

impl<L: Storage, K: LineKernel<L>> Kernel<L> for Any<K> {
    const MOST: usize = LANES;

    #[inline(always)]
    unsafe fn run<V: Vectors>(task: Task<'_, '_, L>, adder: &mut Adder<'_>, losses: &mut [f64]) {
        let Task { pass, first, logits, grad, labels, found, scratch, gathered } = task;
        // SAFETY: the caller's promise, for all that follows.
        unsafe { labels.read(pass, first, losses.len()) };
        // Rows that do not lie as the kernel needs them are copied, and their gradients take their places.
        let copied = logits.layout != Layout::Rows || grad.as_ref().is_some_and(|grad| grad.layout != Layout::Rows);
        let copy: Option<&mut [L]> = copied.then(|| bytemuck::cast_slice_mut(gathered));
        let copy = copy.map(|copy| {
            logits.gather(copy, logits.classes);
            copy.as_mut_ptr()
        });
        let (lines, grad_lines) = (logits.lines(copy), grad.as_ref().map(|grad| grad.lines(copy)));
        // SAFETY: as above.
        unsafe {
            K::run_lines::<V>(pass, &lines, grad_lines.as_ref(), labels, found, scratch, adder, losses);
            if let (Some(copy), Some(grad)) = (copy, grad) {
                grad.scatter(std::slice::from_raw_parts(copy, losses.len() * logits.classes), logits.classes);
            }
        }
    }
}

/// Picks the scratch of an arithmetic type.
pub(super) trait HasScratch: Real {
    fn of(worker: &mut Worker) -> (&mut RealScratch<Self>, &mut Vec<u64>);
}

impl HasScratch for f32 {
    fn of(worker: &mut Worker) -> (&mut RealScratch<f32>, &mut Vec<u64>) {
        (&mut worker.f32, &mut worker.gathered)
    }
}

impl HasScratch for f64 {
    fn of(worker: &mut Worker) -> (&mut RealScratch<f64>, &mut Vec<u64>) {
        (&mut worker.f64, &mut worker.gathered)
    }
}

/// The blocks from number `first` on, one for each of `partials`, which become the sums of their losses.
///
/// # Safety
/// As `pass::run`; the processor has the pass's level, and the worker was prepared.
pub(super) unsafe fn run<L: Storage<Real: HasScratch>>(
    pass: &Pass<'_>,
    first: usize,
    partials: &mut [f64],
    worker: &mut Worker,
    adder: &mut Adder<'_>,
) {
    let (classes, lanes) = (pass.samples.classes, L::Real::LANES);
    let general = pass.samples.has_second_targets() || pass.class_weights.is_some();
    // SAFETY: the caller's promise.
    unsafe {
        match general {
            _ if columns::suits(pass.samples) => run_at::<L, Columns>(pass, first, partials, worker, adder),
            false if classes <= lanes => run_at::<L, Any<Single>>(pass, first, partials, worker, adder),
            false if classes <= CHAIN * lanes => run_at::<L, Any<Few<false>>>(pass, first, partials, worker, adder),
            true if classes <= CHAIN * lanes => run_at::<L, Any<Few<true>>>(pass, first, partials, worker, adder),
            false => run_at::<L, Any<Rows<false>>>(pass, first, partials, worker, adder),
            true => run_at::<L, Any<Rows<true>>>(pass, first, partials, worker, adder),
        }
    }
}

/// # Safety
/// As [`run`].
unsafe fn run_at<L: Storage<Real: HasScratch>, K: Kernel<L>>(
    pass: &Pass<'_>,
    first: usize,
    partials: &mut [f64],
    worker: &mut Worker,
    adder: &mut Adder<'_>,
) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn avx512<L: Storage<Real: HasScratch>, K: Kernel<L>>(
        pass: &Pass<'_>,
        first: usize,
        partials: &mut [f64],
        worker: &mut Worker,
        adder: &mut Adder<'_>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { run_kernel::<L, K, Avx512>(pass, first, partials, worker, adder) }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2<L: Storage<Real: HasScratch>, K: Kernel<L>>(
        pass: &Pass<'_>,
        first: usize,
        partials: &mut [f64],
        worker: &mut Worker,
        adder: &mut Adder<'_>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { run_kernel::<L, K, Avx2>(pass, first, partials, worker, adder) }
    }
    // SAFETY: the caller's promise; `Level::detect` names only levels that the processor has.
    unsafe {
        match pass.level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::<L, K>(pass, first, partials, worker, adder),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::<L, K>(pass, first, partials, worker, adder),
            Level::Portable => run_kernel::<L, K, Portable>(pass, first, partials, worker, adder),
        }
    }
}

/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn run_kernel<L: Storage<Real: HasScratch>, K: Kernel<L>, V: Vectors>(
    pass: &Pass<'_>,
    first: usize,
    partials: &mut [f64],
    worker: &mut Worker,
    adder: &mut Adder<'_>,
) {
    let samples = pass.samples;
    let (scratch, gathered) = L::Real::of(worker);
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
        let group = |rows| unsafe { Group::<L>::new(rows, samples.classes, place, count, along_inner) };
        let task = Task {
            pass,
            first: place,
            logits: group(&samples.logits),
            grad: samples.grad.as_ref().map(group),
            labels: &mut labels,
            found: &mut found,
            scratch: &mut *scratch,
            gathered: &mut *gathered,
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
