//! Blocks of samples, at any level, by the kernel that suits them.
#![allow(unsafe_code, reason = "kernels read and write the caller's memory, after all checks")]

use std::marker::PhantomData;

use half::{bf16, f16};

use super::adder::Adder;
use super::columns::{self, Columns};
use super::few::Few;
use super::labels::{LANES, Labels};
use super::lanes::{Real, Vectorized, Vectors, dispatch};
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

/// Consecutive blocks of a pass, for one thread to compute.
pub(super) struct Blocks<'a, 'b> {
    pass: &'a Pass<'a>,
    /// The number of the first block.
    first: usize,
    /// One for each block: becomes the sum of its losses.
    partials: &'a mut [f64],
    worker: &'a mut Worker,
    adder: &'a mut Adder<'b>,
}

impl<'a, 'b> Blocks<'a, 'b> {
    /// The blocks from number `first` on, one for each of `partials`.
    ///
    /// # Safety
    /// As `pass::run`, and no other thread has any of these blocks. The worker was prepared for the pass.
    pub unsafe fn new(pass: &'a Pass<'a>, first: usize, partials: &'a mut [f64], worker: &'a mut Worker, adder: &'a mut Adder<'b>) -> Self {
        Self { pass, first, partials, worker, adder }
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
            self.run_kernel::<R, Any<R, Few<true>>>();
        } else if classes > R::LANES {
            self.run_kernel::<R, Any<R, Few<false>>>();
        } else {
            self.run_kernel::<R, Any<R, Single>>();
        }
    }

    /// Many classes, stored as `L` unless they are copied.
    fn run_many<L: Storage<Real: HasScratch>>(self) {
        if self.is_general() {
            self.run_kernel::<L::Real, Any<L, Rows<true>>>();
        } else {
            self.run_kernel::<L::Real, Any<L, Rows<false>>>();
        }
    }

    /// Whether any sample may have a q of more than one soft and one hard label.
    fn is_general(&self) -> bool {
        self.pass.samples.has_second_targets() || self.pass.class_weights.is_some()
    }

    fn run_kernel<R: HasScratch, K: Kernel<R>>(self) {
        dispatch(self.pass.level, WithKernel::<R, K> { blocks: self, kernel: PhantomData });
    }
}

/// Blocks, and the kernel that computes them.
struct WithKernel<'a, 'b, R, K> {
    blocks: Blocks<'a, 'b>,
    kernel: PhantomData<(R, K)>,
}

impl<R: HasScratch, K: Kernel<R>> Vectorized for WithKernel<'_, '_, R, K> {
    #[inline(always)]
    fn run<V: Vectors>(self) {
        let Blocks { pass, first, partials, worker, adder } = self.blocks;
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
            // SAFETY: `Blocks::new` was promised tensors that were checked, so these samples have entries in both.
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
            // SAFETY: `Blocks::new` was promised a pass as for `pass::run`, and that no other thread has these samples.
            unsafe { K::run::<V>(task, adder, losses) };
            if pass.each
                && let Some(to) = samples.loss
            {
                for (lane, &loss) in losses.iter().enumerate() {
                    // SAFETY: as above: the losses of these samples can be written, by this thread alone.
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
