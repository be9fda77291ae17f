//! Samples that lie side by side, class by class, as in images: lanes are samples. Only the soft labels and what is added to the statistics
//! have to be transposed, and nothing is summed across lanes. The order of every sum is still that of [`sums`](super::sums).
#![allow(unsafe_code, reason = "logits and gradients are read and written through the caller's addresses")]

use super::accumulator::{Accumulator, Unshared};
use super::block::{Kernel, Task};
use super::exp::Exp;
use super::finish::{without_gradient, write_losses};
use super::labels::{LANES, Labels, PerLane, equal_lanes, lanes};
use super::lanes::{Lanes, Real, Vectors};
use super::pass::Pass;
use super::scratch::{ClassWeights, RealScratch};
use super::soft_label::{SoftLabel, masked_soft_loss, soft_scale};
use super::softmax::Softmaxes;
use super::storage::{Arithmetic, load_padded_f32};
use super::sums::CHAIN;
use super::sweeps::target_entry;
use crate::samples::{Rows, Samples};
use crate::tensor::DType;

/// A square tile: as many vectors as one has lanes.
type Square<R, V> = <<R as Real>::Lanes<V> as Lanes<R>>::Square;

/// Samples that are computed together: enough of them for the hardware prefetcher to follow the column of each class, few enough for the
/// entries of all classes to stay in the second-level cache.
pub(super) const TILE: usize = 512;

/// Whether this kernel is the one for a batch: no more classes than a chain has, and samples that lie side by side in logits and gradients.
pub(super) fn suits(samples: &Samples) -> bool {
    let lanes = if samples.logits.dtype == DType::F64 { f64::LANES } else { f32::LANES };
    let side_by_side = |rows: &Rows| rows.class != 1 && (if samples.inner == 1 { rows.outer } else { rows.inner }) == 1;
    samples.classes <= CHAIN * lanes && side_by_side(&samples.logits) && samples.grad.as_ref().is_none_or(side_by_side)
}

/// The kernel, for no more classes than a chain has.
pub(super) struct Columns;

impl<R: Arithmetic> Kernel<R> for Columns {
    const MAX_SAMPLES: usize = TILE;

    #[inline(always)]
    unsafe fn run<V: Vectors>(task: Task<'_, '_, R>, accumulator: &mut Accumulator<'_>, losses: &mut [f64]) {
        let Task { pass, first, logits, grad, labels, softmaxes, scratch, .. } = task;
        let RealScratch { columns: scratch, class_weights: weights, .. } = scratch;
        let width = R::Lanes::<V>::WIDTH;
        let size = logits.classes.next_multiple_of(width) * width;
        // SAFETY: the caller promises that the logits can be read, and gradients are not written before `store_columns`.
        unsafe { logits.load_columns::<V>(size, &mut scratch.entries) };
        for (index, losses) in losses.chunks_mut(width).enumerate() {
            let start = index * width;
            // SAFETY: the caller promises a validated batch that has these samples.
            unsafe { labels.read(pass, pass.samples.after(first, start), losses.len()) };
            let entries = &mut scratch.entries[index * size..(index + 1) * size];
            load_soft_labels::<R, V>(pass, labels, &weights.scaled, &mut scratch.soft);
            let vector = SampleVector { pass, labels, soft: &scratch.soft, weights, scale: soft_scale(pass, weights) };
            // For rows with -inf, whose logits are read again. In place they are still there.
            // SAFETY: asked for are classes of the group, of lanes that have a sample; gradients are not written before `store_columns`.
            let logit = |lane: usize, class: usize| unsafe { logits.read(start + lane, class) }.to_f64();
            let finite = vector.run::<V>(entries, &mut scratch.exponentials, logit, softmaxes, accumulator, losses);
            if grad.is_some() {
                vector.gradient::<V>(&scratch.exponentials, entries, softmaxes, finite);
            }
        }
        if let Some(grad) = grad {
            // SAFETY: the caller promises exclusive access to the gradients; in place, the logits are not used any more.
            unsafe { grad.store_columns::<V>(size, &scratch.entries) };
        }
    }
}

/// A vector of samples, one to a lane; the last lanes may have none.
struct SampleVector<'a, R> {
    pass: &'a Pass<'a>,
    labels: &'a Labels,
    /// The soft part of q in the order (class, lane), without the factor `scale`.
    soft: &'a [R],
    weights: &'a ClassWeights<R>,
    scale: f64,
}

impl<R: Real> SampleVector<'_, R> {
    fn soft_label(&self, lane: usize) -> SoftLabel<'_, R> {
        SoftLabel::new(self.pass, self.labels, self.weights, lane)
    }

    /// Computes the exponentials of the logits `z` to `e`, the losses, and what the gradient needs to `softmaxes`; adds to the statistics.
    /// Gives a bit for each sample that takes part and whose row is finite.
    #[inline(always)]
    fn run<V: Vectors>(
        &self,
        z: &[R],
        e: &mut [R],
        logit: impl Fn(usize, usize) -> f64,
        softmaxes: &mut Softmaxes,
        accumulator: &mut Accumulator<'_>,
        losses: &mut [f64],
    ) -> u32 {
        let (width, classes, labels) = (R::Lanes::<V>::WIDTH, self.pass.samples.classes, self.labels);
        let z = &z[..classes * width];
        let (max, argmax) = max_and_argmax::<R, V>(z);
        for target in 0..if labels.mixed { 2 } else { 1 } {
            for lane in 0..width {
                softmaxes.target_logits[target][lane] = z[labels.classes[target][lane] * width + lane].to_f64();
            }
        }
        exponentials::<R, V>(max, z, e);
        add_up::<R, V>(max, z, e, self.soft, softmaxes);
        softmaxes.max = to_f64::<R, V>(max);
        let argmax = to_f64::<R, V>(argmax);
        let masked = |lane: usize, max: f64| masked_soft_loss(&self.soft_label(lane), max, |class| logit(lane, class));
        let finite = softmaxes.finish::<R>(0..LANES, labels, self.scale, masked);
        write_losses(self.pass, labels, softmaxes, finite, accumulator, losses);
        // Classes as f64, by adding their bits to those of 2^52: AVX2 cannot convert vectors of 64-bit integers.
        let dominant = labels.dominant.map(|dominant| f64::from_bits(dominant as u64 | 0x4330_0000_0000_0000) - 4_503_599_627_370_496.0);
        let mut correct = equal_lanes::<f64, V>(&argmax, &dominant);
        correct &= finite;
        let unit = accumulator.unit::<R>();
        let mut accumulator = accumulator.unshared();
        for lane in lanes(correct) {
            if !accumulator.count(labels.dominant[lane]) {
                correct &= !(1 << lane);
            }
        }
        if correct != 0 {
            let mut unit_factor = softmaxes.inverse_sum;
            for unit_factor in &mut unit_factor {
                *unit_factor *= unit;
            }
            accumulate::<R, V>(&labels.dominant, correct, e, &unit_factor, &mut accumulator);
        }
        finite
    }

    /// Computes the gradients, `grad_scale * (Q*p - q)`, from the exponentials to `entries`.
    #[inline(always)]
    fn gradient<V: Vectors>(&self, exponentials: &[R], entries: &mut [R], softmaxes: &Softmaxes, finite: u32) {
        let (width, labels) = (R::Lanes::<V>::WIDTH, self.labels);
        // The entries of the targets have the hard label too. Without second targets and class weights, q of a class is at hand in `soft`.
        let plain = !labels.mixed && self.weights.scaled.is_empty();
        let mut targets = [[R::default(); LANES]; 2];
        for (target, targets) in targets.iter_mut().enumerate().take(1 + usize::from(labels.mixed)) {
            let (mut e, mut q) = ([0.0; LANES], [0.0; LANES]);
            for lane in 0..width {
                let class = labels.classes[target][lane];
                e[lane] = exponentials[class * width + lane].to_f64();
                q[lane] = if plain { self.soft[class * width + lane].to_f64() * self.scale } else { self.soft_label(lane).class(class) };
            }
            for lane in 0..LANES {
                targets[lane] =
                    target_entry(e[lane], q[lane] + labels.hard[target][lane], softmaxes.p_scale[lane], labels.grad_scales[lane]);
            }
        }
        let (mut p_factor, mut q_factor) = ([0.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            (p_factor[lane], q_factor[lane]) = (softmaxes.p_scale[lane] * labels.grad_scales[lane], self.scale * labels.grad_scales[lane]);
        }
        let (p_factor, q_factor) = (from_f64::<R, V>(&p_factor), from_f64::<R, V>(&q_factor));
        let vectors = entries.chunks_exact_mut(width).zip(exponentials.chunks_exact(width)).zip(self.soft.chunks_exact(width));
        for ((to, e), q) in vectors.take(self.pass.samples.classes) {
            R::Lanes::<V>::load(e).mul_sub(p_factor, R::Lanes::<V>::load(q).mul(q_factor)).store(to);
        }
        for target in 0..if labels.mixed { 2 } else { 1 } {
            for lane in 0..width {
                if labels.hard[target][lane] != 0.0 {
                    entries[labels.classes[target][lane] * width + lane] = targets[target][lane];
                }
            }
        }
        for (lane, entry) in without_gradient(self.pass, labels, finite, width) {
            entries.iter_mut().skip(lane).step_by(width).take(self.pass.samples.classes).for_each(|to| *to = entry);
        }
    }
}

/// Transposes a square tile and stores it.
#[inline(always)]
fn store_square<R: Real, V: Vectors>(square: Square<R, V>, to: &mut [R]) {
    let square = R::Lanes::<V>::transpose(square);
    for (vector, to) in square.as_ref().iter().zip(to.chunks_exact_mut(R::Lanes::<V>::WIDTH)) {
        vector.store(to);
    }
}

/// Computes `w[k] * (lam * S[y,k] + (1 - lam) * S[y2,k])` to the order (class, lane).
#[inline(always)]
fn load_soft_labels<R: Real, V: Vectors>(pass: &Pass<'_>, labels: &Labels, weights: &[R], to: &mut [R]) {
    let width = R::Lanes::<V>::WIDTH;
    let [first, second] = &labels.classes;
    for (block, to) in to.chunks_exact_mut(width * width).enumerate() {
        store_square::<R, V>(soft_square::<R, V>(pass, first, block * width), to);
    }
    if labels.mixed {
        let (first, second_lam) = (from_f64::<R, V>(&labels.lams[0]), from_f64::<R, V>(&labels.lams[1]));
        for (block, to) in to.chunks_exact_mut(width * width).enumerate() {
            let square = R::Lanes::<V>::transpose(soft_square::<R, V>(pass, second, block * width));
            for (vector, to) in square.as_ref().iter().zip(to.chunks_exact_mut(width)) {
                vector.mul_add(second_lam, R::Lanes::<V>::load(to).mul(first)).store(to);
            }
        }
    }
    for (weight, to) in weights.iter().zip(to.chunks_exact_mut(width)) {
        R::Lanes::<V>::load(to).mul(Lanes::splat(*weight)).store(to);
    }
}

/// A vector of each lane's soft label, with the classes from `start` on.
#[inline(always)]
fn soft_square<R: Real, V: Vectors>(pass: &Pass<'_>, targets: &[usize; LANES], start: usize) -> Square<R, V> {
    let mut square = R::Lanes::<V>::square();
    for (vector, &target) in square.as_mut().iter_mut().zip(targets) {
        *vector = load_padded_f32::<R, V>(&pass.soft_labels.row(target)[start..]);
    }
    square
}

/// The maximum of each lane and the first class that has it; any class for lanes with NaN.
#[inline(always)]
fn max_and_argmax<R: Real, V: Vectors>(logits: &[R]) -> (R::Lanes<V>, R::Lanes<V>) {
    /// Independent accumulators, which take every fourth class each, so that no comparison waits for the one before.
    const ACCUMULATORS: usize = 4;
    let number = |class: usize| R::from_f64(class as f64);
    let mut max = [R::Lanes::<V>::splat(R::MINUS_INFINITY); ACCUMULATORS];
    let mut argmax = [R::Lanes::<V>::splat(number(0)); ACCUMULATORS];
    let width = R::Lanes::<V>::WIDTH;
    let step = R::Lanes::<V>::splat(number(ACCUMULATORS));
    let mut class = [R::Lanes::<V>::splat(number(0)), R::Lanes::splat(number(1)), R::Lanes::splat(number(2)), R::Lanes::splat(number(3))];
    let mut quads = logits.chunks_exact(ACCUMULATORS * width);
    for quad in &mut quads {
        for i in 0..ACCUMULATORS {
            let logits = R::Lanes::<V>::load(&quad[i * width..(i + 1) * width]);
            argmax[i] = logits.where_greater(max[i], class[i], argmax[i]);
            max[i] = max[i].max(logits);
            class[i] = class[i].add(step);
        }
    }
    for (i, logits) in quads.remainder().chunks_exact(width).enumerate() {
        let logits = R::Lanes::<V>::load(logits);
        argmax[i] = logits.where_greater(max[i], class[i], argmax[i]);
        max[i] = max[i].max(logits);
    }
    let largest = max[0].max(max[1]).max(max[2].max(max[3]));
    // The first class of the accumulators that have the maximum; the others take part with a class past the last.
    let past_last = R::Lanes::<V>::splat(R::from_f64(f64::from(u32::MAX)));
    let mut first = past_last;
    for i in 0..ACCUMULATORS {
        let candidate = largest.where_greater(max[i], past_last, argmax[i]);
        first = first.where_greater(candidate, candidate, first);
    }
    (largest, first)
}

/// Computes the exponentials of `z - max`, class by class.
#[inline(always)]
fn exponentials<R: Real, V: Vectors>(max: R::Lanes<V>, z: &[R], to: &mut [R]) {
    let (width, exp) = (R::Lanes::<V>::WIDTH, Exp::<R>::constants().vectors::<R::Lanes<V>>());
    let pairs = z.chunks_exact(2 * width);
    if let [_, ..] = pairs.remainder() {
        let [e] = exp.nonpositive([R::Lanes::<V>::load(pairs.remainder()).sub(max)]);
        e.store(&mut to[z.len() - width..]);
    }
    for (z, to) in pairs.zip(to.chunks_exact_mut(2 * width)) {
        let e = exp.nonpositive([R::Lanes::<V>::load(&z[..width]).sub(max), R::Lanes::<V>::load(&z[width..]).sub(max)]);
        e[0].store(&mut to[..width]);
        e[1].store(&mut to[width..]);
    }
}

/// Computes the sums of exponentials, of `soft` and of `soft * (z - max)` to `softmaxes`, in the order of [`sums`](super::sums). There, the
/// lanes of a vector are classes: lane l holds every `WIDTH`th class from l on.
#[inline(always)]
fn add_up<R: Real, V: Vectors>(max: R::Lanes<V>, z: &[R], exponentials: &[R], soft: &[R], softmaxes: &mut Softmaxes) {
    let (width, zero) = (R::Lanes::<V>::WIDTH, R::Lanes::<V>::splat(R::default()));
    let (exponentials, soft) = (&exponentials[..z.len()], &soft[..z.len()]);
    // Of the three sums, what becomes the last four lanes there.
    let mut four = [[zero; 3]; 4];
    for (lane, four) in four.iter_mut().enumerate() {
        // There, the upper half of the lanes is added to the lower one until four are left: once for 8 lanes, twice for 16.
        let mut halves = [[zero; 3]; 2];
        for (half, of_half) in halves.iter_mut().enumerate().take(width / 8) {
            for upper in [0, width / 2] {
                let (mut exp, mut soft_sum, mut dot) = ([zero; 2], [zero; 2], zero);
                let mut at = (lane + 4 * half + upper) * width;
                while at + width <= z.len() {
                    let q = R::Lanes::<V>::load(&soft[at..at + width]);
                    exp = [exp[1], exp[0].add(Lanes::load(&exponentials[at..at + width]))];
                    soft_sum = [soft_sum[1], soft_sum[0].add(q)];
                    dot = q.mul_add(R::Lanes::<V>::load(&z[at..at + width]).sub(max), dot);
                    at += width * width;
                }
                let (exp, soft_sum) = (exp[0].add(exp[1]), soft_sum[0].add(soft_sum[1]));
                *of_half =
                    if upper == 0 { [exp, soft_sum, dot] } else { [of_half[0].add(exp), of_half[1].add(soft_sum), of_half[2].add(dot)] };
            }
        }
        let [a, b] = halves;
        *four = if width == 16 { [a[0].add(b[0]), a[1].add(b[1]), a[2].add(b[2])] } else { a };
    }
    for (n, to) in [&mut softmaxes.exp_sum, &mut softmaxes.soft_sum, &mut softmaxes.soft_dot].into_iter().enumerate() {
        let (a, b, c, d) = (to_f64::<R, V>(four[0][n]), to_f64::<R, V>(four[1][n]), to_f64::<R, V>(four[2][n]), to_f64::<R, V>(four[3][n]));
        for lane in 0..LANES {
            to[lane] = (a[lane] + c[lane]) + (b[lane] + d[lane]);
        }
    }
}

/// Adds p of the lanes with a bit in `correct` to the sums of their classes.
#[inline(always)]
fn accumulate<R: Real, V: Vectors>(
    dominant: &[usize; LANES],
    correct: u32,
    exponentials: &[R],
    unit_factor: &PerLane,
    accumulator: &mut Unshared<'_, '_>,
) {
    let width = R::Lanes::<V>::WIDTH;
    let unit_factor = from_f64::<R, V>(unit_factor);
    for (block, e) in exponentials.chunks_exact(width * width).enumerate() {
        let mut square = R::Lanes::<V>::square();
        for (vector, e) in square.as_mut().iter_mut().zip(e.chunks_exact(width)) {
            *vector = R::Lanes::<V>::load(e).mul(unit_factor);
        }
        let square = R::Lanes::<V>::transpose(square);
        for (lane, units) in square.as_ref().iter().enumerate() {
            if correct & (1 << lane) != 0 {
                // The rows of private sums are whole vectors.
                let sums = &mut accumulator.sums(dominant[lane])[block * width..];
                if sums.len() >= width { units.add_fixed(&mut sums[..width]) } else { units.add_fixed_part(sums) }
            }
        }
    }
}

/// Widens lanes to f64.
#[inline(always)]
fn to_f64<R: Real, V: Vectors>(lanes: R::Lanes<V>) -> PerLane {
    let (mut values, mut wide) = ([R::default(); LANES], [0.0; LANES]);
    lanes.store(&mut values);
    for lane in 0..LANES {
        wide[lane] = values[lane].to_f64();
    }
    wide
}

/// Rounds f64 to lanes, once.
#[inline(always)]
fn from_f64<R: Real, V: Vectors>(values: &PerLane) -> R::Lanes<V> {
    let mut lanes = [R::default(); LANES];
    for lane in 0..LANES {
        lanes[lane] = R::from_f64(values[lane]);
    }
    R::Lanes::<V>::load(&lanes)
}
