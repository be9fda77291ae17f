//! Rows of few classes: lanes are samples. As many rows as a vector has lanes are turned around, so that nothing is added across lanes and the
//! logarithms and quotients of all of them are formed at once. For (N, K, inner) logits nothing has to be turned.
//!
//! The order of every sum is fixed: classes in their order, in the row's own type for [`CHAIN`] of them (two sums in turns), then in f64.
//! What a lane computes depends on its own sample alone.
#![allow(unsafe_code, reason = "rows are read and written through groups of the caller's addresses")]

use super::adder::Adder;
use super::exp::{Exp, ln_f64};
use super::labels::{LANES, Labels, PerLane, lanes};
use super::lanes::{Lanes, Real, Vectors};
use super::memory::{Group, Layout, prefetch};
use super::pass::Pass;
use super::row::{part, part_f32, term};
use super::scratch::{ClassWeights, TileScratch};
use super::storage::{LanesOf, Storage};
use super::sums::{ChainSums, WideSums};
use crate::samples::Place;

/// More classes than this are computed row by row.
pub(super) const MOST_CLASSES: usize = 128;

/// Classes whose terms are added up in the row's own type before they go to the wide sums.
const CHAIN: usize = 8;

/// As many vectors as one has lanes.
type Square<R, V> = <<R as Real>::Lanes<V> as Lanes<R>>::Square;

/// Samples that lie side by side are taken in stretches of this many: long enough for the processor to see that it is to read on, in the column
/// of every class, and short enough for the entries of all classes to stay in its second cache.
pub(super) const STRETCH: usize = 512;

/// Computes up to [`STRETCH`] samples from `first` on: losses, times the sample weights, to `losses`; the gradient where it is wanted; p to the
/// statistics.
///
/// # Safety
/// As `pass::run`, for samples that share an outer index or have none but it; `logits` and `grad` are theirs.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "views in, views out")]
pub(super) unsafe fn run<L: Storage, V: Vectors>(
    pass: &Pass<'_>,
    first: Place,
    logits: &Group<L>,
    grad: Option<&Group<L>>,
    weights: &ClassWeights<L::Real>,
    scratch: &mut TileScratch<L::Real>,
    adder: &mut Adder<'_>,
    losses: &mut [f64],
) {
    let width = LanesOf::<L, V>::WIDTH;
    let size = logits.classes.next_multiple_of(width) * width;
    let columns = logits.layout == Layout::Columns || grad.is_some_and(|grad| grad.layout == Layout::Columns);
    if logits.layout == Layout::Columns {
        // SAFETY: nothing writes the logits before they are copied.
        unsafe { load_columns::<L, V>(logits, size, &mut scratch.entries) };
    }
    for (index, losses) in losses.chunks_mut(width).enumerate() {
        let start = index * width;
        // SAFETY: the caller's promise.
        let labels = unsafe { Labels::read(pass, pass.samples.after(first, start), losses.len()) };
        let slot = if columns { index } else { 0 };
        let entries = &mut scratch.entries[slot * size..(slot + 1) * size];
        if logits.layout != Layout::Columns {
            // SAFETY: nothing writes the logits before they are copied.
            unsafe { load_rows::<L, V>(logits, start, entries) };
        }
        load_soft_labels::<L::Real, V>(pass, &labels, &weights.scaled, &mut scratch.soft);
        let vector = Vector { pass, labels: &labels, soft: &scratch.soft, scale: (1.0 - pass.alpha) * weights.scale };
        // What it needs in the rare case that a row holds -inf; in place the logits are still there.
        let logit = |lane: usize, class: usize| logits.read(start + lane, class).widen().to_f64();
        let found = vector.run::<V>(entries, &logit, adder, losses);
        if let Some(grad) = grad {
            vector.gradient::<V>(entries, &found);
            if grad.layout != Layout::Columns {
                // SAFETY: the caller's promise; these logits are not needed any more.
                unsafe { store_rows::<L, V>(grad, start, entries) };
            }
        }
    }
    if let Some(grad) = grad
        && grad.layout == Layout::Columns
    {
        // SAFETY: the caller's promise; the logits are not needed any more.
        unsafe { store_columns::<L, V>(grad, size, &scratch.entries) };
    }
}

/// What the gradient needs of each lane.
struct Found {
    /// `Q / sum exp(z - max)`.
    p_scale: PerLane,
    /// Which samples take part with a finite row, a bit for each.
    normal: u32,
}

/// As many samples as a vector has lanes, or fewer.
struct Vector<'a, R> {
    pass: &'a Pass<'a>,
    labels: &'a Labels,
    /// q in the order (class, lane), but for the factor `scale`.
    soft: &'a [R],
    scale: f64,
}

impl<R: Real> Vector<'_, R> {
    /// Logits to exponentials in `z`; losses and statistics.
    #[inline(always)]
    fn run<V: Vectors>(&self, z: &mut [R], logit: &dyn Fn(usize, usize) -> f64, adder: &mut Adder<'_>, losses: &mut [f64]) -> Found {
        let (width, classes, labels) = (R::Lanes::<V>::WIDTH, self.pass.samples.classes, self.labels);
        let (max, argmax) = largest::<R, V>(&z[..classes * width]);
        // What the losses need of the logits, before exponentials take their place.
        let mut target_logits = [[0.0; LANES]; 2];
        for target in 0..if labels.two { 2 } else { 1 } {
            for lane in 0..width {
                target_logits[target][lane] = z[labels.classes[target][lane] * width + lane].to_f64();
            }
        }
        let [sum, mut mass, mut distance] = exponentials::<R, V>(max, self.soft, z, classes);
        let (max, argmax) = (to_f64::<R, V>(max), to_f64::<R, V>(argmax));

        let (mut loss, mut log_sum, mut q_sum, mut inverse, mut p_scale) =
            ([0.0; LANES], [0.0; LANES], [0.0; LANES], [0.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            log_sum[lane] = ln_f64(sum[lane]);
        }
        let hard = &labels.hard;
        for lane in 0..LANES {
            (mass[lane], distance[lane]) = (mass[lane] * self.scale, distance[lane] * -self.scale);
            inverse[lane] = R::from_f64(1.0 / sum[lane]).to_f64();
            q_sum[lane] = mass[lane] + (hard[0][lane] + hard[1][lane]);
            let first = hard[0][lane] * (max[lane] - target_logits[0][lane]);
            let second = hard[1][lane] * (max[lane] - target_logits[1][lane]);
            loss[lane] = q_sum[lane] * log_sum[lane] + distance[lane] + first + second;
            p_scale[lane] = q_sum[lane] * inverse[lane];
        }
        // A row that is not finite, or that the formula is not made for, has a loss that shows it.
        let (mut normal, mut right) = (0, 0);
        for lane in 0..LANES {
            normal |= u32::from(loss[lane].is_finite()) << lane;
            right |= u32::from(argmax[lane] == labels.own[lane] as f64) << lane;
        }
        normal &= labels.active;
        for lane in lanes(labels.active & !normal) {
            if !max[lane].is_finite() || sum[lane].is_nan() {
                loss[lane] = f64::NAN;
                adder.skip();
                continue;
            }
            normal |= 1 << lane;
            if !distance[lane].is_finite() {
                distance[lane] = self.distance_with_masked(lane, max[lane], logit);
            }
            let first = term(hard[0][lane], max[lane], target_logits[0][lane]);
            let second = term(hard[1][lane], max[lane], target_logits[1][lane]);
            loss[lane] = q_sum[lane] * log_sum[lane] + distance[lane] + first + second;
        }
        for (lane, to) in losses.iter_mut().enumerate() {
            let counts = labels.is_active(lane) && self.pass.divisor != 0.0;
            *to = if counts { labels.weights[lane] * loss[lane] } else { 0.0 };
        }
        right &= normal;
        for lane in lanes(right) {
            if !adder.count(labels.own[lane]) {
                right &= !(1 << lane);
            }
        }
        if right != 0 {
            let unit = if adder.negates() { -R::ONE.to_f64() } else { R::ONE.to_f64() };
            for inverse in &mut inverse {
                *inverse *= unit;
            }
            accumulate::<R, V>(&labels.own, right, z, &inverse, adder);
        }
        Found { p_scale, normal }
    }

    /// The sum of `q * (max - z)`, the soft part, for a row with masked classes (-inf) or with logits too far apart for its type.
    #[cold]
    #[inline(never)]
    fn distance_with_masked(&self, lane: usize, max: f64, logit: &dyn Fn(usize, usize) -> f64) -> f64 {
        let (pass, labels) = (self.pass, self.labels);
        let [first, second] = [0, 1].map(|target| (labels.lams[target][lane], pass.soft_labels.row(labels.classes[target][lane])));
        let q = |class: usize| {
            let soft = first.0 * f64::from(first.1[class]) + second.0 * f64::from(second.1[class]);
            (1.0 - pass.alpha) * soft * pass.class_weights.map_or(1.0, |weights| weights[class])
        };
        (0..pass.samples.classes).map(|class| term(q(class), max, logit(lane, class))).sum()
    }

    /// Puts gradients in the place of the exponentials: `factor * (Q*p - q)`.
    #[inline(always)]
    fn gradient<V: Vectors>(&self, entries: &mut [R], found: &Found) {
        let (width, labels) = (R::Lanes::<V>::WIDTH, self.labels);
        // The targets' entries have the hard label as well: their differences are formed in f64 and rounded once to the row's type.
        let mut targets = [[0.0; LANES]; 2];
        for (target, targets) in targets.iter_mut().enumerate().take(1 + usize::from(labels.two)) {
            let (mut e, mut q) = ([0.0; LANES], [0.0; LANES]);
            for lane in 0..width {
                let at = labels.classes[target][lane] * width + lane;
                (e[lane], q[lane]) = (entries[at].to_f64(), self.soft[at].to_f64());
            }
            for lane in 0..LANES {
                let q = q[lane] * self.scale + labels.hard[target][lane];
                targets[lane] = (found.p_scale[lane] * e[lane] - q) * labels.factors[lane];
            }
        }
        let (mut to_p, mut to_q) = ([0.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            (to_p[lane], to_q[lane]) = (found.p_scale[lane] * labels.factors[lane], self.scale * labels.factors[lane]);
        }
        let (to_p, to_q) = (from_f64::<R, V>(&to_p), from_f64::<R, V>(&to_q));
        for (entries, soft) in entries.chunks_exact_mut(width).zip(self.soft.chunks_exact(width)).take(self.pass.samples.classes) {
            R::Lanes::<V>::load(entries).mul_sub(to_p, R::Lanes::<V>::load(soft).mul(to_q)).store(entries);
        }
        for target in 0..if labels.two { 2 } else { 1 } {
            for lane in 0..width {
                if labels.hard[target][lane] != 0.0 {
                    entries[labels.classes[target][lane] * width + lane] = R::from_f64(targets[target][lane]);
                }
            }
        }
        for lane in lanes(!found.normal & ((1 << width) - 1)) {
            let nothing = !labels.is_active(lane) || self.pass.divisor == 0.0;
            let entry = if nothing { R::default() } else { R::NAN };
            entries.iter_mut().skip(lane).step_by(width).take(self.pass.samples.classes).for_each(|to| *to = entry);
        }
    }
}

/// Brings the logits of all vectors into the order (vector, class, lane), a vector after `size` numbers.
///
/// # Safety
/// Nothing writes the logits meanwhile.
#[inline(always)]
unsafe fn load_columns<L: Storage, V: Vectors>(logits: &Group<L>, size: usize, to: &mut [L::Real]) {
    let width = LanesOf::<L, V>::WIDTH;
    for class in 0..logits.classes {
        // SAFETY: the caller's promise.
        let column = unsafe { logits.column(class) };
        for (column, to) in column.chunks(width).zip(to.chunks_exact_mut(size)) {
            // The processor sees a stretch too late; the same place in the next class's is what comes a stretch later.
            prefetch::<L, false>(column.as_ptr().wrapping_offset(logits.class_stride));
            part::<L, V>(column, L::Real::default()).store(&mut to[class * width..(class + 1) * width]);
        }
    }
}

/// The reverse of [`load_columns`], for gradients.
///
/// # Safety
/// `grad` can be written, and nothing else uses it.
#[inline(always)]
unsafe fn store_columns<L: Storage, V: Vectors>(grad: &Group<L>, size: usize, from: &[L::Real]) {
    let width = LanesOf::<L, V>::WIDTH;
    for class in 0..grad.classes {
        // SAFETY: the caller's promise.
        let column = unsafe { grad.column_mut(class) };
        for (column, from) in column.chunks_mut(width).zip(from.chunks_exact(size)) {
            prefetch::<L, true>(column.as_ptr().wrapping_offset(grad.class_stride));
            store_part::<L, V>(LanesOf::<L, V>::load(&from[class * width..(class + 1) * width]), column);
        }
    }
}

/// Brings the logits of one vector of samples, from `start` on, into the order (class, lane).
///
/// # Safety
/// Nothing writes the logits meanwhile.
#[inline(always)]
unsafe fn load_rows<L: Storage, V: Vectors>(logits: &Group<L>, start: usize, to: &mut [L::Real]) {
    let width = LanesOf::<L, V>::WIDTH;
    if logits.layout == Layout::Rows {
        for (block, to) in to.chunks_exact_mut(width * width).enumerate() {
            let mut square = LanesOf::<L, V>::square();
            for (lane, vector) in square.as_mut().iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *vector = part::<L, V>(&unsafe { logits.row(start + lane) }[block * width..], L::Real::default());
            }
            store_square::<L::Real, V>(square, to);
        }
    } else {
        for (class, to) in to.chunks_exact_mut(width).take(logits.classes).enumerate() {
            for (lane, to) in to.iter_mut().enumerate() {
                *to = logits.read(start + lane, class).widen();
            }
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
        let [first, second_lam] = [0, 1].map(|target| from_f64::<R, V>(&labels.lams[target]));
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
    let mut max = [R::Lanes::<V>::splat(R::LOWEST); TURNS];
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

/// Puts exponentials in the place of the logits; gives their sums, those of `soft` and those of `soft * (z - max)`.
#[inline(always)]
fn exponentials<R: Real, V: Vectors>(max: R::Lanes<V>, soft: &[R], logits: &mut [R], classes: usize) -> [PerLane; 3] {
    let width = R::Lanes::<V>::WIDTH;
    let exp = R::Exp::<R::Lanes<V>>::new();
    let mut sums = WideSums::<R, R::Lanes<V>>::new();
    let (logits, soft) = (&mut logits[..classes * width], &soft[..classes * width]);
    for (logits, soft) in logits.chunks_mut(CHAIN * width).zip(soft.chunks(CHAIN * width)) {
        let mut chain = ChainSums::<R, R::Lanes<V>>::new();
        for (logits, soft) in logits.chunks_exact_mut(width).zip(soft.chunks_exact(width)) {
            let x = R::Lanes::<V>::load(logits).sub(max);
            let e = exp.nonpositive(x);
            e.store(logits);
            chain.add(e, Lanes::load(soft), x);
        }
        sums.add(&chain);
    }
    let mut found = [[0.0; LANES]; 3];
    let [sum, mass, distance] = &mut found;
    R::Lanes::<V>::wide_store(sums.sum, sum);
    R::Lanes::<V>::wide_store(sums.mass, mass);
    R::Lanes::<V>::wide_store(sums.distance, distance);
    found
}

/// The reverse of [`load_rows`], for gradients.
///
/// # Safety
/// `grad` can be written, and nothing else uses it.
#[inline(always)]
unsafe fn store_rows<L: Storage, V: Vectors>(grad: &Group<L>, start: usize, from: &[L::Real]) {
    let width = LanesOf::<L, V>::WIDTH;
    let count = width.min(grad.count - start);
    if grad.layout == Layout::Rows {
        for (block, from) in from.chunks_exact(width * width).enumerate() {
            let mut square = LanesOf::<L, V>::square();
            for (vector, from) in square.as_mut().iter_mut().zip(from.chunks_exact(width)) {
                *vector = LanesOf::<L, V>::load(from);
            }
            let square = LanesOf::<L, V>::transpose(square);
            for (lane, vector) in square.as_ref().iter().enumerate() {
                if lane < count {
                    // SAFETY: the caller's promise.
                    store_part::<L, V>(*vector, &mut unsafe { grad.row_mut(start + lane) }[block * width..]);
                }
            }
        }
        return;
    }
    for (class, from) in from.chunks_exact(width).take(grad.classes).enumerate() {
        for (lane, value) in from.iter().enumerate().take(count) {
            // SAFETY: the caller's promise.
            unsafe { grad.write(start + lane, class, L::narrow(*value)) };
        }
    }
}

/// A whole vector, or as much of it as there is room for.
#[inline(always)]
fn store_part<L: Storage, V: Vectors>(lanes: LanesOf<L, V>, to: &mut [L]) {
    if to.len() >= LanesOf::<L, V>::WIDTH { L::store::<V>(lanes, to) } else { L::store_part::<V>(lanes, to) }
}

/// Adds p of the lanes that `right` names to the sums of their classes.
#[inline(always)]
fn accumulate<R: Real, V: Vectors>(own: &[usize; LANES], right: u32, exponentials: &[R], to_units: &PerLane, adder: &mut Adder<'_>) {
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
