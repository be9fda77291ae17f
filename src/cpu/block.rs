//! Computing blocks of samples: the choice of a kernel, and the walk over the groups of samples that it takes at a time.
#![allow(unsafe_code, reason = "kernels read and write the caller's memory, after all checks")]

use std::marker::PhantomData;

use half::{bf16, f16};

use super::accumulator::Accumulator;
use super::columns::{self, Columns};
use super::labels::{LANES, Labels};
use super::lanes::{Real, Vectorized, Vectors, dispatch};
use super::long_rows::LongRows;
use super::memory::{ContiguousRows, Group};
use super::pass::Pass;
use super::scratch::{RealScratch, Worker};
use super::short_rows::ShortRows;
use super::single_vector::SingleVector;
use super::softmax::Softmaxes;
use super::storage::{Arithmetic, Storage};
use super::sums::CHAIN;
use crate::samples::{BLOCK, Place, Samples};
use crate::tensor::DType;

/// The arguments of a kernel: a group of samples, and memory to work in.
pub(super) struct Task<'a, 'b, R> {
    pub pass: &'a Pass<'b>,
    /// The first sample.
    pub first: Place,
    pub logits: Group<R>,
    pub grad: Option<Group<R>>,
    pub labels: &'a mut Labels,
    /// Receives what is computed of each sample.
    pub softmaxes: &'a mut Softmaxes,
    pub scratch: &'a mut RealScratch<R>,
}

/// A kernel: loss, gradient and statistics of a group of samples.
pub(super) trait Kernel<R: Real> {
    /// The most samples that one call takes.
    const MAX_SAMPLES: usize;

    /// Computes `losses.len()` samples that follow each other along one index: writes the losses, times the sample weights, and the gradient
    /// where it is wanted; adds p to the statistics.
    ///
    /// # Safety
    /// The batch of the pass was validated, can be read, and has these samples. Nothing else writes the group's logits or accesses its gradients.
    unsafe fn run<V: Vectors>(task: Task<'_, '_, R>, accumulator: &mut Accumulator<'_>, losses: &mut [f64]);
}

/// The arguments of a kernel for rows.
pub(super) struct RowTask<'a, 'b, L: Storage> {
    pub pass: &'a Pass<'b>,
    pub logits: ContiguousRows<L>,
    pub grad: Option<ContiguousRows<L>>,
    pub labels: &'a Labels,
    pub softmaxes: &'a mut Softmaxes,
    pub scratch: &'a mut RealScratch<L::Real>,
}

/// A kernel for rows whose classes lie side by side.
pub(super) trait RowKernel<L: Storage> {
    /// As [`Kernel::run`], for the samples of the task's labels.
    ///
    /// # Safety
    /// Logits and gradients have rows for `losses.len()` samples, stored as `L`. The logits can be read and the gradients written, and nothing else
    /// writes those or accesses these. They may be the same memory: a row's gradient is written after the last use of its logits.
    unsafe fn run_rows<V: Vectors>(task: RowTask<'_, '_, L>, accumulator: &mut Accumulator<'_>, losses: &mut [f64]);
}

/// Whether rows are copied for their kernel, 16 at a time: those whose classes do not lie side by side, and 16-bit ones of few classes, which are
/// widened once instead of in each sweep.
pub(super) fn copies_rows(samples: &Samples) -> bool {
    let strided = samples.logits.class != 1 || samples.grad.is_some_and(|grad| grad.class != 1);
    strided || (samples.logits.dtype.size() == 2 && samples.classes <= CHAIN * f32::LANES)
}

/// The row kernel `K`, on rows stored as `L` where they lie, or on copies of rows that are not stored so.
struct RowAdapter<L, K>(PhantomData<L>, K);

impl<L: Storage, K: RowKernel<L>> Kernel<L::Real> for RowAdapter<L, K> {
    const MAX_SAMPLES: usize = LANES;

    #[inline(always)]
    unsafe fn run<V: Vectors>(task: Task<'_, '_, L::Real>, accumulator: &mut Accumulator<'_>, losses: &mut [f64]) {
        let Task { pass, first, logits, grad, labels, softmaxes, scratch } = task;
        // SAFETY: the caller promises a validated batch with these samples.
        unsafe { labels.read(pass, first, losses.len()) };
        // `Blocks::run` has chosen `L = L::Real` for rows that are copied.
        let copied = copies_rows(pass.samples);
        let mut copies = std::mem::take(&mut scratch.copies);
        if copied {
            // SAFETY: the caller promises that nothing writes the logits.
            unsafe { logits.gather::<V>(&mut copies) };
        }
        // Gradients are written in place of the copies, so that both have one address.
        let address = copies.as_mut_ptr();
        let rows_of = |group: &Group<L::Real>| if copied { group.copied_rows::<L>(address) } else { group.rows::<L>() };
        let (rows, grad_rows) = (rows_of(&logits), grad.as_ref().map(rows_of));
        // SAFETY: these are the group's own rows, of which the caller promises that nothing writes the logits and accesses the gradients, or
        // copies of them, which are this function's.
        unsafe { K::run_rows::<V>(RowTask { pass, logits: rows, grad: grad_rows, labels, softmaxes, scratch }, accumulator, losses) };
        if copied && let Some(grad) = grad {
            // SAFETY: the caller promises exclusive access to the gradients.
            unsafe { grad.scatter::<V>(&copies) };
        }
        scratch.copies = copies;
    }
}

/// An arithmetic type and its working memory.
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

/// Consecutive blocks of a pass, for one thread to compute.
pub(super) struct Blocks<'a, 'b> {
    pass: &'a Pass<'a>,
    /// The number of the first block.
    first: usize,
    /// One for each block: becomes the sum of its losses.
    partials: &'a mut [f64],
    worker: &'a mut Worker,
    accumulator: &'a mut Accumulator<'b>,
}

impl<'a, 'b> Blocks<'a, 'b> {
    /// The blocks from number `first` on, one for each of `partials`.
    ///
    /// # Safety
    /// As [`pass::run`](super::pass::run), and no other thread computes any of these blocks.
    pub unsafe fn new(
        pass: &'a Pass<'a>,
        first: usize,
        partials: &'a mut [f64],
        worker: &'a mut Worker,
        accumulator: &'a mut Accumulator<'b>,
    ) -> Self {
        Self { pass, first, partials, worker, accumulator }
    }

    /// Computes them by the kernel that suits the batch.
    pub fn run(self) {
        let samples = self.pass.samples;
        let as_stored = !columns::suits(samples) && !copies_rows(samples);
        match samples.logits.dtype {
            DType::F64 => self.run_as::<f64>(),
            DType::Bf16 if as_stored => self.run_many::<bf16>(),
            DType::F16 if as_stored => self.run_many::<f16>(),
            _ => self.run_as::<f32>(),
        }
    }

    /// Any number of classes, computed in `R` and stored as `R` too, unless a kernel converts them or they are copied.
    fn run_as<R: HasScratch>(self) {
        let classes = self.pass.samples.classes;
        if columns::suits(self.pass.samples) {
            self.run_kernel::<R, Columns>();
        } else if classes > CHAIN * R::LANES {
            self.run_many::<R>();
        } else if self.is_general() {
            self.run_kernel::<R, RowAdapter<R, ShortRows<true>>>();
        } else if classes > R::LANES {
            self.run_kernel::<R, RowAdapter<R, ShortRows<false>>>();
        } else {
            self.run_kernel::<R, RowAdapter<R, SingleVector>>();
        }
    }

    /// Many classes, stored as `L` unless they are copied.
    fn run_many<L: Storage<Real: HasScratch>>(self) {
        if self.is_general() {
            self.run_kernel::<L::Real, RowAdapter<L, LongRows<true>>>();
        } else {
            self.run_kernel::<L::Real, RowAdapter<L, LongRows<false>>>();
        }
    }

    /// Whether any sample may have a q of more than one soft and one hard label.
    fn is_general(&self) -> bool {
        self.pass.samples.has_second_targets() || self.pass.class_weights.is_some()
    }

    fn run_kernel<R: HasScratch, K: Kernel<R>>(self) {
        let Self { pass, first, partials, worker, accumulator } = self;
        // SAFETY: the promises that `Walk` demands are those that `new` was given.
        unsafe { dispatch::<Walk<R, K>, _, _, _, _, _>(pass.level, pass, first, partials, worker, accumulator) };
    }
}

/// The walk over the samples of [`Blocks`], by the kernel `K`.
struct Walk<R, K>(PhantomData<(R, K)>);

impl<R: HasScratch, K: Kernel<R>> Vectorized<&Pass<'_>, usize, &mut [f64], &mut Worker, &mut Accumulator<'_>> for Walk<R, K> {
    /// Computes the blocks from number `first` on, one for each of `partials`.
    ///
    /// # Safety
    /// As [`Blocks::new`].
    #[inline(always)]
    unsafe fn call<V: Vectors>(
        pass: &Pass<'_>,
        first: usize,
        partials: &mut [f64],
        worker: &mut Worker,
        accumulator: &mut Accumulator<'_>,
    ) {
        let samples = pass.samples;
        let scratch = R::of(worker);
        // Those of many samples are not on the stack, where they would be zeroed in each call.
        let mut many_losses = std::mem::take(&mut scratch.columns.losses);
        let mut few_losses = [0.0; LANES];
        let all_losses: &mut [f64] = if K::MAX_SAMPLES > LANES { &mut many_losses } else { &mut few_losses };
        let (mut labels, mut softmaxes) = (Labels::new(pass), Softmaxes::new());
        let along_inner = samples.inner != 1;
        let (mut index, end) = (first * BLOCK, samples.count.min((first + partials.len()) * BLOCK));
        partials.fill(0.0);
        while index < end {
            let place = samples.place(index);
            // The samples of a group follow each other along one index: the inner one, where there is one.
            let neighbours = if along_inner { samples.inner - place.inner } else { usize::MAX };
            let count = K::MAX_SAMPLES.min(end - index).min(neighbours);
            let losses = &mut all_losses[..count];
            // SAFETY: the caller promises tensors that were checked, so these samples have entries in both.
            let group = |rows| unsafe { Group::<R>::new(rows, samples.classes, place, count, along_inner) };
            let task = Task {
                pass,
                first: place,
                logits: group(&samples.logits),
                grad: samples.grad.as_ref().map(group),
                labels: &mut labels,
                softmaxes: &mut softmaxes,
                scratch: &mut *scratch,
            };
            // SAFETY: the caller promises a validated batch, exclusive access to its outputs, and that no other thread has these samples.
            unsafe { K::run::<V>(task, accumulator, losses) };
            if pass.each
                && let Some(to) = samples.loss
            {
                for (lane, &loss) in losses.iter().enumerate() {
                    // SAFETY: the losses have an element for each sample, to which the caller promises exclusive access.
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
}
