//! Rows of many classes, one after the other; of very many, three at a time, each in another sweep.
//!
//! The sweeps load different units of the processor (loads, arithmetic, stores). Where rows are so long that they wait for memory, the first sweep
//! over a row, the second over the row before it and the third over the one before that advance chain by chain in turn. The bits are the same.
#![allow(unsafe_code, reason = "rows are read and written through the caller's addresses")]
// Vectors are made in `#[inline(always)]` functions, never in a closure that is called twice: that would not be inlined, and be compiled for the
// target's baseline.

use super::accumulator::Accumulator;
use super::block::{RowKernel, RowTask};
use super::exp::Exp;
use super::finish::finish_rows;
use super::labels::Labels;
use super::lanes::{Real, Vectors};
use super::memory::ContiguousRows;
use super::pass::Pass;
use super::scratch::{ClassWeights, RealScratch};
use super::soft_label::{SoftLabel, masked_soft_loss, soft_scale};
use super::softmax::Softmaxes;
use super::storage::Storage;
use super::sweeps::{ExpSweep, GradientScales, GradientSweep, MaxSweep, Prefetch, chain};

/// The number of classes from which on sweeps are interleaved: one such row fits the first-level cache, but not three.
const MIN_INTERLEAVED_CLASSES: usize = 2048;

/// The kernel, for any number of classes. With `GENERAL` samples may have second targets, and classes weights.
pub(super) struct LongRows<const GENERAL: bool>;

impl<L: Storage, const GENERAL: bool> RowKernel<L> for LongRows<GENERAL> {
    #[inline(always)]
    unsafe fn run_rows<V: Vectors>(task: RowTask<'_, '_, L>, accumulator: &mut Accumulator<'_>, losses: &mut [f64]) {
        let RowTask { pass, logits, grad, labels, softmaxes, scratch } = task;
        let RealScratch { exponentials, class_weights, .. } = scratch;
        let group = RowGroup {
            pass,
            logits,
            grad,
            labels,
            class_weights,
            constants: Exp::<L::Real>::constants(),
            unit: accumulator.unit::<L::Real>(),
            sums_addresses: accumulator.addresses(),
            count: losses.len(),
        };
        // SAFETY: the caller promises that the rows of all `losses.len()` samples can be read, and exclusive access to the gradients'.
        let finite = unsafe {
            if logits.classes < MIN_INTERLEAVED_CLASSES {
                group.run_in_sequence::<V, GENERAL>(exponentials, softmaxes, accumulator)
            } else {
                group.run_interleaved::<V, GENERAL>(exponentials, softmaxes, accumulator)
            }
        };
        // SAFETY: the caller promises exclusive access to the gradients' rows, none of which is borrowed any more.
        unsafe { finish_rows(pass, grad.as_ref(), labels, accumulator, softmaxes, finite, losses) };
    }
}

/// The rows of a group of samples, and what all their sweeps need.
struct RowGroup<'a, 'b, L: Storage> {
    pass: &'a Pass<'b>,
    logits: ContiguousRows<L>,
    grad: Option<ContiguousRows<L>>,
    labels: &'a Labels,
    class_weights: &'a ClassWeights<L::Real>,
    constants: Exp<L::Real>,
    /// A probability of 1 in the units of the statistics.
    unit: f64,
    /// [`Accumulator::addresses`].
    sums_addresses: (*const i64, usize),
    /// Samples.
    count: usize,
}

/// A row after its first sweep.
#[derive(Clone, Copy)]
struct WithMax<R> {
    lane: usize,
    max: R,
    /// Whether the sample is classified correctly.
    correct: bool,
}

/// A row after its second sweep.
#[derive(Clone, Copy)]
struct WithSums {
    lane: usize,
    correct: bool,
}

impl<L: Storage> RowGroup<'_, '_, L> {
    /// Takes one row after the other through all sweeps, and gives a bit for each that takes part and is finite.
    ///
    /// # Safety
    /// The logits of the group's samples can be read, and its gradients written, by nobody else.
    #[inline(always)]
    unsafe fn run_in_sequence<V: Vectors, const GENERAL: bool>(
        &self,
        exponentials: &mut [L::Real],
        softmaxes: &mut Softmaxes,
        accumulator: &mut Accumulator<'_>,
    ) -> u32 {
        let labels = self.labels;
        let (chains, rest) = self.chains::<V>();
        let mut finite = 0u32;
        for lane in (0..self.count).filter(|lane| labels.is_active(*lane)) {
            // SAFETY: the caller promises that the row can be read; its gradient is written after the last use of this borrow.
            let z = unsafe { self.row(lane) };
            let mut first = MaxSweep::<L, V>::new(z, labels.dominant[lane]);
            for index in 0..chains {
                first.chain(index);
            }
            first.rest(rest);
            let Some((max, correct)) = first.finish() else {
                softmaxes.loss[lane] = f64::NAN;
                continue;
            };
            let prefetch = self.prefetch(lane, lane + 1, correct);
            let mut second = ExpSweep::<L, V, GENERAL>::new(z, self.soft_label(lane), max, exponentials, self.constants);
            for index in 0..chains {
                second.chain(index, &prefetch);
            }
            second.rest(rest);
            if !self.compute_loss(softmaxes, z, WithMax { lane, max, correct }, second.finish()) {
                continue;
            }
            finite |= 1 << lane;
            let mut class_row = if correct { accumulator.row(labels.dominant[lane]) } else { None };
            let sums = class_row.as_mut().map(|row| &mut *row.sums);
            // SAFETY: the caller promises exclusive access to the row's gradient; its logits are not used any more.
            let grad = unsafe { self.grad_row(lane) };
            let scales = self.gradient_scales(softmaxes, lane);
            let mut last = GradientSweep::<L, V, GENERAL>::new(exponentials, self.soft_label(lane), grad, sums, scales);
            for index in 0..chains {
                last.gradient_chain(index);
            }
            for index in 0..chains {
                last.sums_chain(index);
            }
            last.rest(rest);
            self.finish_targets(&mut last, lane);
        }
        finite
    }

    /// As [`run_in_sequence`](Self::run_in_sequence), with the sweeps of three rows interleaved.
    ///
    /// # Safety
    /// As [`run_in_sequence`](Self::run_in_sequence).
    #[inline(always)]
    unsafe fn run_interleaved<V: Vectors, const GENERAL: bool>(
        &self,
        exponentials: &mut [L::Real],
        softmaxes: &mut Softmaxes,
        accumulator: &mut Accumulator<'_>,
    ) -> u32 {
        let labels = self.labels;
        let (chains, rest) = self.chains::<V>();
        let mut finite = 0u32;
        // The exponentials of the row in its second sweep, and those of the row in its third.
        let half = exponentials.len() / 2;
        let (mut current, mut done) = exponentials.split_at_mut(half);
        let mut with_max: Option<WithMax<L::Real>> = None;
        let mut with_sums: Option<WithSums> = None;
        for step in 0..self.count + 2 {
            let mut class_row =
                with_sums.and_then(|WithSums { lane, correct }| if correct { accumulator.row(labels.dominant[lane]) } else { None });
            let mut last = with_sums.map(|WithSums { lane, .. }| {
                let sums = class_row.as_mut().map(|row| &mut *row.sums);
                // SAFETY: the caller promises exclusive access to the row's gradient; the other two sweeps read other rows.
                let grad = unsafe { self.grad_row(lane) };
                let scales = self.gradient_scales(softmaxes, lane);
                GradientSweep::<L, V, GENERAL>::new(done, self.soft_label(lane), grad, sums, scales)
            });
            let mut second = with_max.map(|WithMax { lane, max, correct }| {
                // SAFETY: the caller promises that the row can be read; its gradient is written in the next step.
                let z = unsafe { self.row(lane) };
                let sweep = ExpSweep::<L, V, GENERAL>::new(z, self.soft_label(lane), max, current, self.constants);
                (sweep, z, self.prefetch(lane, lane + 2, correct))
            });
            let starting = (step < self.count && labels.is_active(step)).then_some(step);
            // SAFETY: as above; the gradient of this row is written two steps later.
            let mut first = starting.map(|lane| MaxSweep::<L, V>::new(unsafe { self.row(lane) }, labels.dominant[lane]));
            for index in 0..chains {
                if let Some(last) = &mut last {
                    last.chain(index);
                }
                if let Some((second, _, prefetch)) = &mut second {
                    second.chain(index, prefetch);
                }
                if let Some(first) = &mut first {
                    first.chain(index);
                }
            }
            if let (Some(last), Some(WithSums { lane, .. })) = (&mut last, with_sums) {
                last.rest(rest);
                self.finish_targets(last, lane);
            }
            drop(class_row);
            with_sums = None;
            if let (Some((second, z, _)), Some(row)) = (&mut second, with_max) {
                second.rest(rest);
                if self.compute_loss(softmaxes, z, row, second.finish()) {
                    finite |= 1 << row.lane;
                    with_sums = Some(WithSums { lane: row.lane, correct: row.correct });
                }
            }
            std::mem::swap(&mut current, &mut done);
            with_max = None;
            if let (Some(first), Some(lane)) = (&mut first, starting) {
                first.rest(rest);
                match first.finish() {
                    Some((max, correct)) => with_max = Some(WithMax { lane, max, correct }),
                    None => softmaxes.loss[lane] = f64::NAN,
                }
            }
        }
        finite
    }

    /// The whole chains of a row, and the class that follows them.
    #[inline(always)]
    fn chains<V: Vectors>(&self) -> (usize, usize) {
        let chains = self.logits.classes / chain::<L, V>();
        (chains, chains * chain::<L, V>())
    }

    /// The logits of a sample.
    ///
    /// # Safety
    /// The group has this lane, the caller of the kernel promised that its logits can be read, and its gradient is not written while the slice
    /// is used.
    #[inline(always)]
    unsafe fn row<'r>(&self, lane: usize) -> &'r [L] {
        // SAFETY: the caller promises that the row can be read and that its gradient, which may take its place, is not written.
        unsafe { self.logits.row(lane) }
    }

    /// The gradient of a sample, where one is wanted.
    ///
    /// # Safety
    /// The group has this lane, the caller of the kernel promised exclusive access to its gradient, and its logits are not read while the slice
    /// is used.
    #[inline(always)]
    unsafe fn grad_row<'r>(&self, lane: usize) -> Option<&'r mut [L]> {
        // SAFETY: the caller promises exclusive access to the gradient, and that the logits, whose place it may take, are not read.
        self.grad.map(|grad| unsafe { grad.row_mut(lane) })
    }

    /// The soft part of q of a sample.
    #[inline(always)]
    fn soft_label(&self, lane: usize) -> SoftLabel<'_, L::Real> {
        SoftLabel::new(self.pass, self.labels, self.class_weights, lane)
    }

    /// What to prefetch during the second sweep over the row of `lane`; `next` is the row that is read next.
    #[inline(always)]
    fn prefetch(&self, lane: usize, next: usize, correct: bool) -> Prefetch<L> {
        let (sums, sums_stride) = self.sums_addresses;
        let (z, adds) = (self.logits.start(lane).cast_const(), correct && !sums.is_null());
        let next = next.min(self.labels.count - 1);
        Prefetch {
            grad: self.grad.map_or(z, |grad| grad.start(lane)),
            // Otherwise this row's logits and what follows them, mostly the next row's.
            sums: if adds { sums.wrapping_add(self.labels.dominant[lane] * sums_stride) } else { z.cast() },
            next_logits: self.logits.start(next),
            next_soft: self.pass.soft_labels.row(self.labels.classes[0][next]).as_ptr(),
        }
    }

    /// The loss of a row from its maximum and its sums, and the scales of its gradient, to `softmaxes`. False for a row that is not finite.
    #[inline(always)]
    fn compute_loss(&self, softmaxes: &mut Softmaxes, z: &[L], row: WithMax<L::Real>, sums: [f64; 3]) -> bool {
        let (lane, labels) = (row.lane, self.labels);
        [softmaxes.exp_sum[lane], softmaxes.soft_sum[lane], softmaxes.soft_dot[lane]] = sums;
        softmaxes.max[lane] = row.max.to_f64();
        for target in 0..2 {
            softmaxes.target_logits[target][lane] = z[labels.classes[target][lane]].widen().to_f64();
        }
        let masked = |lane: usize, max: f64| masked_soft_loss(&self.soft_label(lane), max, |class| z[class].widen().to_f64());
        softmaxes.finish::<L::Real>(lane..lane + 1, labels, soft_scale(self.pass, self.class_weights), masked) != 0
    }

    /// The scales of a row's third sweep.
    #[inline(always)]
    fn gradient_scales(&self, softmaxes: &Softmaxes, lane: usize) -> GradientScales {
        let (p_scale, inverse_sum) = (softmaxes.p_scale[lane], softmaxes.inverse_sum[lane]);
        GradientScales { p_scale, inverse_sum, grad_scale: self.labels.grad_scales[lane], unit: self.unit }
    }

    /// The gradient of a row's targets.
    #[inline(always)]
    fn finish_targets<V: Vectors, const GENERAL: bool>(&self, last: &mut GradientSweep<'_, L, V, GENERAL>, lane: usize) {
        let labels = self.labels;
        for target in 0..1 + usize::from(labels.mixed) {
            if labels.hard[target][lane] != 0.0 {
                last.target(labels.classes[target][lane], labels.hard[target][lane]);
            }
        }
    }
}
