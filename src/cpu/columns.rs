//! Samples that lie side by side, class by class, as images have them: lanes are samples. Nothing has to be turned around but the soft labels and what
//! goes to the statistics, and nothing is added across lanes; the order of every sum is that of `sums` all the same.
#![allow(unsafe_code, reason = "columns are read and written through groups of the caller's addresses")]

use super::adder::{Adder, Unshared};
use super::block::{Kernel, Task};
use super::exp::Exp;
use super::finish::{without_gradient, write_losses};
use super::labels::{LANES, Labels, PerLane, equal_lanes, lanes};
use super::lanes::{Lanes, Real, Vectors};
use super::pass::Pass;
use super::row::{SoftLabel, distance_with_masked, part_f32, target_entry};
use super::scratch::{ClassWeights, RealScratch};
use super::softmax::Softmaxes;
use super::storage::Arithmetic;
use super::sums::CHAIN;
use crate::samples::{Rows, Samples};
use crate::tensor::DType;

/// As many vectors as one has lanes.
type Square<R, V> = <<R as Real>::Lanes<V> as Lanes<R>>::Square;

/// Samples are taken in stretches of this many: long enough for the processor to see that it is to read on, in the column of every class, and short
/// enough for the entries of all classes to stay in its second cache.
pub(super) const STRETCH: usize = 512;

/// Whether a batch is for this kernel: no more classes than a chain has, and logits and gradients whose samples lie side by side.
pub(super) fn suits(samples: &Samples) -> bool {
    let lanes = if samples.logits.dtype == DType::F64 { f64::LANES } else { f32::LANES };
    let lie_so = |rows: &Rows| rows.class != 1 && (if samples.inner == 1 { rows.outer } else { rows.inner }) == 1;
    samples.classes <= CHAIN * lanes && lie_so(&samples.logits) && samples.grad.as_ref().is_none_or(lie_so)
}

/// The kernel.
pub(super) struct Columns;

impl<R: Arithmetic> Kernel<R> for Columns {
    const MOST: usize = STRETCH;

    #[inline(always)]
    unsafe fn run<V: Vectors>(task: Task<'_, '_, R>, adder: &mut Adder<'_>, losses: &mut [f64]) {
        let Task { pass, first, logits, grad, labels, found, scratch, .. } = task;
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
            let vector = Vector { pass, labels, soft: &scratch.soft, weights, scale: (1.0 - pass.alpha) * weights.scale };
            // What it needs in the rare case that a row holds -inf; in place the logits are still there.
            // SAFETY: these are samples and classes of the group, and gradients are not written before `store_columns`.
            let logit = |lane: usize, class: usize| unsafe { logits.read(start + lane, class) }.to_f64();
            let finite = vector.run::<V>(entries, &mut scratch.exponentials, logit, found, adder, losses);
            if grad.is_some() {
                vector.gradient::<V>(&scratch.exponentials, entries, found, finite);
            }
        }
        if let Some(grad) = grad {
            // SAFETY: the caller promises exclusive access to the gradients; in place, the logits are not needed any more.
            unsafe { grad.store_columns::<V>(size, &scratch.entries) };
        }
    }
}

/// As many samples as a vector has lanes, or fewer.
struct Vector<'a, R> {
    pass: &'a Pass<'a>,
    labels: &'a Labels,
    /// q in the order (class, lane), but for the factor `scale`.
    soft: &'a [R],
    weights: &'a ClassWeights<R>,
    scale: f64,
}

impl<R: Real> Vector<'_, R> {
    fn soft_label(&self, lane: usize) -> SoftLabel<'_, R> {
        let Labels { classes, lams, .. } = self.labels;
        SoftLabel {
            first: self.pass.soft_labels.row(classes[0][lane]),
            first_scale: R::from_f64(lams[0][lane]),
            second: self.pass.soft_labels.row(classes[1][lane]),
            second_scale: R::from_f64(lams[1][lane]),
            weights: &self.weights.scaled,
            scale: self.scale,
        }
    }

    /// Exponentials of the logits `z` to `e`; losses, what the gradient needs, and statistics. Gives a bit for each sample that takes part with a finite row.
    #[inline(always)]
    fn run<V: Vectors>(
        &self,
        z: &[R],
        e: &mut [R],
        logit: impl Fn(usize, usize) -> f64,
        found: &mut Softmaxes,
        adder: &mut Adder<'_>,
        losses: &mut [f64],
    ) -> u32 {
        let (width, classes, labels) = (R::Lanes::<V>::WIDTH, self.pass.samples.classes, self.labels);
        let z = &z[..classes * width];
        let (max, argmax) = largest::<R, V>(z);
        for target in 0..if labels.two { 2 } else { 1 } {
            for lane in 0..width {
                found.target_logits[target][lane] = z[labels.classes[target][lane] * width + lane].to_f64();
            }
        }
        exponentials::<R, V>(max, z, e);
        add_up::<R, V>(max, z, e, self.soft, found);
        found.max = to_f64::<R, V>(max);
        let argmax = to_f64::<R, V>(argmax);
        let masked = |lane: usize, max: f64| distance_with_masked(&self.soft_label(lane), max, |class| logit(lane, class));
        let finite = found.finish::<R>(0..LANES, labels, self.scale, masked);
        write_losses(self.pass, labels, found, finite, adder, losses);
        // The classes as numbers, by the bits of 2^52 and them: processors have no conversion of 64-bit integers in vectors.
        let own = labels.own.map(|own| f64::from_bits(own as u64 | 0x4330_0000_0000_0000) - 4_503_599_627_370_496.0);
        let mut right = equal_lanes::<f64, V>(&argmax, &own);
        right &= finite;
        let unit = adder.unit::<R>();
        let mut adder = adder.unshared();
        for lane in lanes(right) {
            if !adder.count(labels.own[lane]) {
                right &= !(1 << lane);
            }
        }
        if right != 0 {
            let mut to_units = found.inverse;
            for to_units in &mut to_units {
                *to_units *= unit;
            }
            accumulate::<R, V>(&labels.own, right, e, &to_units, &mut adder);
        }
        finite
    }

    /// The gradients, `factor * (Q*p - q)`, from the exponentials.
    #[inline(always)]
    fn gradient<V: Vectors>(&self, exponentials: &[R], entries: &mut [R], found: &Softmaxes, finite: u32) {
        let (width, labels) = (R::Lanes::<V>::WIDTH, self.labels);
        // The targets' entries have the hard label as well. Where q is a soft label as it is, that was turned around already.
        let turned = !labels.two && self.weights.scaled.is_empty();
        let mut targets = [[R::default(); LANES]; 2];
        for (target, targets) in targets.iter_mut().enumerate().take(1 + usize::from(labels.two)) {
            let (mut e, mut q) = ([0.0; LANES], [0.0; LANES]);
            for lane in 0..width {
                let class = labels.classes[target][lane];
                e[lane] = exponentials[class * width + lane].to_f64();
                q[lane] = if turned { self.soft[class * width + lane].to_f64() * self.scale } else { self.soft_label(lane).class(class) };
            }
            for lane in 0..LANES {
                targets[lane] = target_entry(e[lane], q[lane] + labels.hard[target][lane], found.p_scale[lane], labels.factors[lane]);
            }
        }
        let (mut to_p, mut to_q) = ([0.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            (to_p[lane], to_q[lane]) = (found.p_scale[lane] * labels.factors[lane], self.scale * labels.factors[lane]);
        }
        let (to_p, to_q) = (from_f64::<R, V>(&to_p), from_f64::<R, V>(&to_q));
        let vectors = entries.chunks_exact_mut(width).zip(exponentials.chunks_exact(width)).zip(self.soft.chunks_exact(width));
        for ((to, e), q) in vectors.take(self.pass.samples.classes) {
            R::Lanes::<V>::load(e).mul_sub(to_p, R::Lanes::<V>::load(q).mul(to_q)).store(to);
        }
        for target in 0..if labels.two { 2 } else { 1 } {
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

/// Turns a square around and stores it.
#[inline(always)]
fn store_square<R: Real, V: Vectors>(square: Square<R, V>, to: &mut [R]) {
    let square = R::Lanes::<V>::transpose(square);
    for (vector, to) in square.as_ref().iter().zip(to.chunks_exact_mut(R::Lanes::<V>::WIDTH)) {
        vector.store(to);
    }
}

/// `w[k] * (lam * S[y,k] + (1 - lam) * S[y2,k])` in the order (class, lane).
#[inline(always)]
fn load_soft_labels<R: Real, V: Vectors>(pass: &Pass<'_>, labels: &Labels, weights: &[R], to: &mut [R]) {
    let width = R::Lanes::<V>::WIDTH;
    let [first, second] = &labels.classes;
    for (block, to) in to.chunks_exact_mut(width * width).enumerate() {
        store_square::<R, V>(soft_square::<R, V>(pass, first, block * width), to);
    }
    if labels.two {
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

/// A vector of each lane's soft label, from class `start` on.
#[inline(always)]
fn soft_square<R: Real, V: Vectors>(pass: &Pass<'_>, targets: &[usize; LANES], start: usize) -> Square<R, V> {
    let mut square = R::Lanes::<V>::square();
    for (vector, &target) in square.as_mut().iter_mut().zip(targets) {
        *vector = part_f32::<R, V>(&pass.soft_labels.row(target)[start..]);
    }
    square
}

/// The maximum of each lane and the class where it stands first. Lanes with NaN have any.
#[inline(always)]
fn largest<R: Real, V: Vectors>(logits: &[R]) -> (R::Lanes<V>, R::Lanes<V>) {
    /// Classes in turns, so that no comparison waits for the one before.
    const TURNS: usize = 4;
    let number = |class: usize| R::from_f64(class as f64);
    let mut max = [R::Lanes::<V>::splat(R::MINUS_INFINITY); TURNS];
    let mut argmax = [R::Lanes::<V>::splat(number(0)); TURNS];
    let width = R::Lanes::<V>::WIDTH;
    let step = R::Lanes::<V>::splat(number(TURNS));
    let mut class = [R::Lanes::<V>::splat(number(0)), R::Lanes::splat(number(1)), R::Lanes::splat(number(2)), R::Lanes::splat(number(3))];
    let mut quads = logits.chunks_exact(TURNS * width);
    for quad in &mut quads {
        for turn in 0..TURNS {
            let logits = R::Lanes::<V>::load(&quad[turn * width..(turn + 1) * width]);
            argmax[turn] = logits.where_greater(max[turn], class[turn], argmax[turn]);
            max[turn] = max[turn].max(logits);
            class[turn] = class[turn].add(step);
        }
    }
    for (turn, logits) in quads.remainder().chunks_exact(width).enumerate() {
        let logits = R::Lanes::<V>::load(logits);
        argmax[turn] = logits.where_greater(max[turn], class[turn], argmax[turn]);
        max[turn] = max[turn].max(logits);
    }
    let most = max[0].max(max[1]).max(max[2].max(max[3]));
    // The first class of all turns that have the maximum: the others' are taken for a class behind the last.
    let behind = R::Lanes::<V>::splat(R::from_f64(f64::from(u32::MAX)));
    let mut first = behind;
    for turn in 0..TURNS {
        let candidate = most.where_greater(max[turn], behind, argmax[turn]);
        first = first.where_greater(candidate, candidate, first);
    }
    (most, first)
}

/// The exponentials of `z - max`, class by class.
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

/// The sums of exponentials, of `soft` and of `soft * (z - max)` to `found`, in the order of `sums`: where classes lie side by side in a vector, each lane
/// has every `WIDTH`th of them.
#[inline(always)]
fn add_up<R: Real, V: Vectors>(max: R::Lanes<V>, z: &[R], exponentials: &[R], soft: &[R], found: &mut Softmaxes) {
    let (width, zero) = (R::Lanes::<V>::WIDTH, R::Lanes::<V>::splat(R::default()));
    let (exponentials, soft) = (&exponentials[..z.len()], &soft[..z.len()]);
    let mut four = [[zero; 3]; 4];
    for (lane, four) in four.iter_mut().enumerate() {
        // Of lanes whose numbers differ by half of the width, then, where there are 16, of those.
        let mut halves = [[zero; 3]; 2];
        for (half, of_half) in halves.iter_mut().enumerate().take(width / 8) {
            for upper in [0, width / 2] {
                let (mut sum, mut mass, mut distance) = ([zero; 2], [zero; 2], zero);
                let mut at = (lane + 4 * half + upper) * width;
                while at + width <= z.len() {
                    let q = R::Lanes::<V>::load(&soft[at..at + width]);
                    sum = [sum[1], sum[0].add(Lanes::load(&exponentials[at..at + width]))];
                    mass = [mass[1], mass[0].add(q)];
                    distance = q.mul_add(R::Lanes::<V>::load(&z[at..at + width]).sub(max), distance);
                    at += width * width;
                }
                let [sum, mass] = [sum[0].add(sum[1]), mass[0].add(mass[1])];
                *of_half =
                    if upper == 0 { [sum, mass, distance] } else { [of_half[0].add(sum), of_half[1].add(mass), of_half[2].add(distance)] };
            }
        }
        let [a, b] = halves;
        *four = if width == 16 { [a[0].add(b[0]), a[1].add(b[1]), a[2].add(b[2])] } else { a };
    }
    for (n, to) in [&mut found.sum, &mut found.mass, &mut found.distance].into_iter().enumerate() {
        let (a, b, c, d) = (to_f64::<R, V>(four[0][n]), to_f64::<R, V>(four[1][n]), to_f64::<R, V>(four[2][n]), to_f64::<R, V>(four[3][n]));
        for lane in 0..LANES {
            to[lane] = (a[lane] + c[lane]) + (b[lane] + d[lane]);
        }
    }
}

/// Adds p of the lanes that `right` names to the sums of their classes.
#[inline(always)]
fn accumulate<R: Real, V: Vectors>(own: &[usize; LANES], right: u32, exponentials: &[R], to_units: &PerLane, adder: &mut Unshared<'_, '_>) {
    let width = R::Lanes::<V>::WIDTH;
    let to_units = from_f64::<R, V>(to_units);
    for (block, e) in exponentials.chunks_exact(width * width).enumerate() {
        let mut square = R::Lanes::<V>::square();
        for (vector, e) in square.as_mut().iter_mut().zip(e.chunks_exact(width)) {
            *vector = R::Lanes::<V>::load(e).mul(to_units);
        }
        let square = R::Lanes::<V>::transpose(square);
        for (lane, units) in square.as_ref().iter().enumerate() {
            if right & (1 << lane) != 0 {
                // A thread's own sums have whole vectors.
                let sums = &mut adder.sums(own[lane])[block * width..];
                if sums.len() >= width { units.add_fixed(&mut sums[..width]) } else { units.add_fixed_part(sums) }
            }
        }
    }
}

/// The lanes as f64.
#[inline(always)]
fn to_f64<R: Real, V: Vectors>(lanes: R::Lanes<V>) -> PerLane {
    let (mut values, mut wide) = ([R::default(); LANES], [0.0; LANES]);
    lanes.store(&mut values);
    for lane in 0..LANES {
        wide[lane] = values[lane].to_f64();
    }
    wide
}

/// Lanes of numbers, rounded once.
#[inline(always)]
fn from_f64<R: Real, V: Vectors>(values: &PerLane) -> R::Lanes<V> {
    let mut lanes = [R::default(); LANES];
    for lane in 0..LANES {
        lanes[lane] = R::from_f64(values[lane]);
    }
    R::Lanes::<V>::load(&lanes)
}
