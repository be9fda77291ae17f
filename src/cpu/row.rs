//! One row: lanes are classes. Its three sweeps, which lie in the cache: the maximum; the exponentials with three sums; the gradient and the
//! statistics. Each goes on chain by chain, so that those of three rows can be done in turns (`rows`). `sums` has the order of all sums.

use super::exp::Exp;
use super::lanes::{Lanes, Real, Vectors};
use super::memory::prefetch;
use super::softmax::term;
use super::storage::{LanesOf, Storage};
use super::sums::{CHAIN, ChainSums, WideSums};

/// Classes of a chain.
#[inline(always)]
pub(super) fn chain<L: Storage, V: Vectors>() -> usize {
    CHAIN * LanesOf::<L, V>::WIDTH
}

/// The soft part of q for one row, but for the factor `scale`: `w[k] * (lam * S[y,k] + (1 - lam) * S[y2,k])`.
#[derive(Clone, Copy)]
pub(super) struct SoftLabel<'a, R> {
    pub first: &'a [f32],
    /// lam; and the second target's row, with 1 - lam. Where all samples of a pass have one target, and there are no class weights, `GENERAL` is
    /// false and these are not used; lam = 1 gives the same bits.
    pub first_scale: R,
    pub second: &'a [f32],
    pub second_scale: R,
    /// Class weights, or none.
    pub weights: &'a [R],
    /// `1 - alpha`, times what the weights were divided by.
    pub scale: f64,
}

impl<R: Real> SoftLabel<'_, R> {
    /// The part for `length` classes from `start` on.
    #[inline(always)]
    fn range(&self, start: usize, length: usize) -> Self {
        let weights = if self.weights.is_empty() { self.weights } else { &self.weights[start..start + length] };
        Self { first: &self.first[start..start + length], second: &self.second[start..start + length], weights, ..*self }
    }

    /// `q / scale` of the classes from `start` on: a whole vector, or what there is at the end.
    #[inline(always)]
    pub fn lanes<V: Vectors, const GENERAL: bool>(&self, start: usize, length: usize) -> R::Lanes<V> {
        let first = part_f32::<R, V>(&self.first[start..start + length]);
        if !GENERAL {
            return first;
        }
        let first = first.mul(Lanes::splat(self.first_scale));
        let soft = part_f32::<R, V>(&self.second[start..start + length]).mul_add(Lanes::splat(self.second_scale), first);
        if self.weights.is_empty() {
            return soft;
        }
        let weights = &self.weights[start..start + length];
        soft.mul(if length >= R::Lanes::<V>::WIDTH { Lanes::load(weights) } else { Lanes::load_part(weights) })
    }

    /// As [`lanes`](Self::lanes), given the numbers of `first` there: whole vectors.
    #[inline(always)]
    fn lanes_at<V: Vectors, const GENERAL: bool>(&self, first: &[f32], start: usize) -> R::Lanes<V> {
        if GENERAL { self.lanes::<V, true>(start, R::Lanes::<V>::WIDTH) } else { Lanes::load_f32(first) }
    }

    /// q of one class, from the same numbers.
    #[inline(always)]
    pub fn class(&self, class: usize) -> f64 {
        let of = |row: &[f32], scale: R| f64::from(row[class]) * scale.to_f64();
        let weight = if self.weights.is_empty() { 1.0 } else { self.weights[class].to_f64() };
        (of(self.first, self.first_scale) + of(self.second, self.second_scale)) * weight * self.scale
    }
}

/// `sum q * (max - z)`, the soft part, for a row with masked classes (-inf) or with logits too far apart for its type.
#[cold]
#[inline(never)]
pub(super) fn distance_with_masked<R: Real>(soft: &SoftLabel<'_, R>, max: f64, logit: impl Fn(usize) -> f64) -> f64 {
    (0..soft.first.len()).map(|class| term(soft.class(class), max, logit(class))).sum()
}

/// A whole vector, or what there is of it and 0.
#[inline(always)]
pub(super) fn part<L: Storage, V: Vectors>(from: &[L]) -> LanesOf<L, V> {
    if from.len() >= LanesOf::<L, V>::WIDTH { L::load::<V>(from) } else { L::load_part::<V>(from) }
}

/// A whole vector, or as much of it as there is room for.
#[inline(always)]
pub(super) fn store_part<L: Storage, V: Vectors>(lanes: LanesOf<L, V>, to: &mut [L]) {
    if to.len() >= LanesOf::<L, V>::WIDTH { L::store::<V>(lanes, to) } else { L::store_part::<V>(lanes, to) }
}

/// As [`part`], widened from f32.
#[inline(always)]
pub(super) fn part_f32<R: Real, V: Vectors>(from: &[f32]) -> R::Lanes<V> {
    if from.len() >= R::Lanes::<V>::WIDTH { Lanes::load_f32(from) } else { Lanes::load_f32_part(from) }
}

/// The last classes of a row: a whole vector, or all of them and -inf.
#[inline(always)]
pub(super) fn last_or_lowest<L: Storage, V: Vectors>(row: &[L]) -> LanesOf<L, V> {
    let width = LanesOf::<L, V>::WIDTH;
    if row.len() >= width {
        L::load::<V>(&row[row.len() - width..])
    } else {
        L::load_part::<V>(row).keep(row.len(), LanesOf::<L, V>::splat(L::Real::MINUS_INFINITY))
    }
}

/// Whether the maximum of a row stands before `class`, too.
#[inline(always)]
pub(super) fn stands_before<L: Storage, V: Vectors>(z: &[L], class: usize, max: L::Real) -> bool {
    let (width, max) = (LanesOf::<L, V>::WIDTH, LanesOf::<L, V>::splat(max));
    let mut at = 0;
    while at + width <= class {
        if L::load::<V>(&z[at..]).equal(max) != 0 {
            return true;
        }
        at += width;
    }
    part::<L, V>(&z[at..]).equal(max) & ((1 << (class - at)) - 1) != 0
}

/// The first sweep: the maximum, and whether it stands first at the class that the statistics mean.
pub(super) struct MaxSweep<'a, L: Storage, V: Vectors> {
    z: &'a [L],
    most: [LanesOf<L, V>; 4],
    own: usize,
    /// The maximum of the chains before that of `own`.
    before: L::Real,
}

impl<'a, L: Storage, V: Vectors> MaxSweep<'a, L, V> {
    #[inline(always)]
    pub fn new(z: &'a [L], own: usize) -> Self {
        Self { z, most: [LanesOf::<L, V>::splat(L::Real::MINUS_INFINITY); 4], own, before: L::Real::MINUS_INFINITY }
    }

    #[inline(always)]
    fn max(&self) -> L::Real {
        let [a, b, c, d] = self.most;
        a.max(b).max(c.max(d)).reduce_max()
    }

    #[inline(always)]
    pub fn chain(&mut self, index: usize) {
        let (width, start) = (LanesOf::<L, V>::WIDTH, index * chain::<L, V>());
        if start != 0 && self.own / chain::<L, V>() == index {
            self.before = self.max();
        }
        let z = &self.z[start..start + chain::<L, V>()];
        let mut most = self.most;
        let mut vector = 0;
        while vector < CHAIN {
            most[vector % 4] = most[vector % 4].max(L::load::<V>(&z[vector * width..(vector + 1) * width]));
            vector += 1;
        }
        self.most = most;
    }

    /// The classes from `start` on, less than a chain.
    #[inline(always)]
    pub fn rest(&mut self, start: usize) {
        if start != 0 && self.own >= start {
            self.before = self.max();
        }
        let [mut a, mut b, c, d] = self.most;
        for z in self.z[start..].chunks_exact(LanesOf::<L, V>::WIDTH) {
            (a, b) = (b, a.max(L::load::<V>(z)));
        }
        self.most = [a.max(last_or_lowest::<L, V>(self.z)), b, c, d];
    }

    /// The maximum, and whether it stands first at `own`; `None` for a row with +inf, or of nothing but -inf or NaN.
    #[inline(always)]
    pub fn finish(&self) -> Option<(L::Real, bool)> {
        let max = self.max();
        if !max.is_finite() {
            return None;
        }
        let start = self.own / chain::<L, V>() * chain::<L, V>();
        let right = self.z[self.own].widen() == max && self.before < max && !stands_before::<L, V>(&self.z[start..], self.own - start, max);
        Some((max, right))
    }
}

/// What is asked for during the second sweep, which has arithmetic to wait for: what the third sweep writes, and what the next row's first two
/// read.
#[derive(Clone, Copy)]
pub(super) struct Ahead<L> {
    pub grad: *const L,
    /// Where there are none to be added to, the address of something near.
    pub sums: *const i64,
    pub next_logits: *const L,
    pub next_soft: *const f32,
}

impl<L: Storage> Ahead<L> {
    /// For the vector that begins with `class`.
    #[inline(always)]
    fn ask(&self, class: usize, width: usize) {
        prefetch::<L>(self.grad.wrapping_add(class));
        prefetch::<i64>(self.sums.wrapping_add(class));
        prefetch::<i64>(self.sums.wrapping_add(class + width / 2));
        prefetch::<L>(self.next_logits.wrapping_add(class));
        prefetch::<f32>(self.next_soft.wrapping_add(class));
    }
}

/// The second sweep: exponentials, and their sums.
pub(super) struct ExpSweep<'a, L: Storage, V: Vectors, const GENERAL: bool> {
    z: &'a [L],
    soft: SoftLabel<'a, L::Real>,
    max: L::Real,
    /// A whole number of vectors.
    exponentials: &'a mut [L::Real],
    constants: Exp<L::Real>,
    totals: WideSums<L::Real, LanesOf<L, V>>,
}

impl<'a, L: Storage, V: Vectors, const GENERAL: bool> ExpSweep<'a, L, V, GENERAL> {
    #[inline(always)]
    pub fn new(z: &'a [L], soft: SoftLabel<'a, L::Real>, max: L::Real, exponentials: &'a mut [L::Real], constants: Exp<L::Real>) -> Self {
        Self { z, soft, max, exponentials, constants, totals: WideSums::new() }
    }

    #[inline(always)]
    pub fn chain(&mut self, index: usize, ahead: &Ahead<L>) {
        let (width, start) = (LanesOf::<L, V>::WIDTH, index * chain::<L, V>());
        let z = &self.z[start..start + chain::<L, V>()];
        let exponentials = &mut self.exponentials[start..start + chain::<L, V>()];
        let soft = self.soft.range(start, chain::<L, V>());
        let max = LanesOf::<L, V>::splat(self.max);
        let exp = self.constants.vectors::<LanesOf<L, V>>();
        let mut at = 0;
        while at < chain::<L, V>() {
            two::<L, V>(&exp, max, &z[at..at + 2 * width], &mut exponentials[at..at + 2 * width]);
            ahead.ask(start + at, width);
            ahead.ask(start + at + width, width);
            at += 2 * width;
        }
        let mut chain_sums = ChainSums::<L::Real, LanesOf<L, V>>::new();
        add_pairs::<L, V, GENERAL>(max, z, exponentials, &soft, &mut chain_sums);
        self.totals.add(&chain_sums);
    }

    /// The classes from `start` on, less than a chain.
    #[inline(always)]
    pub fn rest(&mut self, start: usize) {
        if start != self.z.len() {
            let soft = self.soft.range(start, self.z.len() - start);
            let sums =
                short_chain::<L, V, GENERAL>(&self.constants.vectors(), self.max, &self.z[start..], &soft, &mut self.exponentials[start..]);
            self.totals.add(&sums);
        }
    }

    /// The sums of exponentials, of q, and of `q * (z - max)`; without q's factor `scale`. NaN in a row makes the first one NaN.
    #[inline(always)]
    pub fn finish(&self) -> [f64; 3] {
        self.totals.finish()
    }
}

/// Exponentials of less than a chain, and their sums.
#[inline(always)]
pub(super) fn short_chain<L: Storage, V: Vectors, const GENERAL: bool>(
    exp: &Exp<LanesOf<L, V>>,
    max: L::Real,
    z: &[L],
    soft: &SoftLabel<'_, L::Real>,
    exponentials: &mut [L::Real],
) -> ChainSums<L::Real, LanesOf<L, V>> {
    let (width, zero) = (LanesOf::<L, V>::WIDTH, LanesOf::<L, V>::splat(L::Real::default()));
    let max = LanesOf::<L, V>::splat(max);
    // Apart from each other, each loop has its numbers in registers.
    let z_pairs = z.chunks_exact(2 * width);
    let (last, at) = (z_pairs.remainder(), z.len() - z_pairs.remainder().len());
    for (z, exponentials) in z_pairs.zip(exponentials.chunks_exact_mut(2 * width)) {
        two::<L, V>(exp, max, z, exponentials);
    }
    for (z, exponentials) in last.chunks(width).zip(exponentials[at..].chunks_exact_mut(width)) {
        let x = part::<L, V>(z).sub(max);
        // Lanes behind the row's end add nothing.
        let e = exp.nonpositive([if z.len() < width { x.keep(z.len(), zero) } else { x }])[0];
        (if z.len() < width { e.keep(z.len(), zero) } else { e }).store(exponentials);
    }
    let mut sums = ChainSums::<L::Real, LanesOf<L, V>>::new();
    let mut at = add_pairs::<L, V, GENERAL>(max, z, exponentials, soft, &mut sums);
    if at + width <= z.len() {
        let e = LanesOf::<L, V>::load(&exponentials[at..at + width]);
        sums.add(e, soft.lanes::<V, GENERAL>(at, width), L::load::<V>(&z[at..at + width]).sub(max));
        at += width;
    }
    if at < z.len() {
        let x = L::load_part::<V>(&z[at..]).sub(max).keep(z.len() - at, zero);
        sums.add(LanesOf::<L, V>::load(&exponentials[at..]), soft.lanes::<V, GENERAL>(at, z.len() - at), x);
    }
    sums
}

/// Adds the terms of all pairs of vectors; the number of their classes.
#[inline(always)]
fn add_pairs<L: Storage, V: Vectors, const GENERAL: bool>(
    max: LanesOf<L, V>,
    z: &[L],
    exponentials: &[L::Real],
    soft: &SoftLabel<'_, L::Real>,
    sums: &mut ChainSums<L::Real, LanesOf<L, V>>,
) -> usize {
    let width = LanesOf::<L, V>::WIDTH;
    let pairs = z.chunks_exact(2 * width).zip(exponentials.chunks_exact(2 * width)).zip(soft.first.chunks_exact(2 * width));
    let mut at = 0;
    for ((z, e), q) in pairs {
        let x = [L::load::<V>(&z[..width]).sub(max), L::load::<V>(&z[width..]).sub(max)];
        let e = [LanesOf::<L, V>::load(&e[..width]), LanesOf::<L, V>::load(&e[width..])];
        let q = [soft.lanes_at::<V, GENERAL>(&q[..width], at), soft.lanes_at::<V, GENERAL>(&q[width..], at + width)];
        sums.add_two(e, q, x);
        at += 2 * width;
    }
    at
}

/// Exponentials of two vectors.
#[inline(always)]
fn two<L: Storage, V: Vectors>(exp: &Exp<LanesOf<L, V>>, max: LanesOf<L, V>, z: &[L], exponentials: &mut [L::Real]) {
    let width = LanesOf::<L, V>::WIDTH;
    let e = exp.nonpositive([L::load::<V>(&z[..width]).sub(max), L::load::<V>(&z[width..]).sub(max)]);
    e[0].store(&mut exponentials[..width]);
    e[1].store(&mut exponentials[width..]);
}

/// What the third sweep multiplies by.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    /// `Q / sum exp(z - max)`.
    pub p_scale: f64,
    /// `1 / sum exp(z - max)`.
    pub inverse: f64,
    /// The reduction's factor, times the incoming gradient and the sample weight.
    pub factor: f64,
    /// A probability of 1 in the units of the statistics: a power of two, so p is rounded as it would be without it.
    pub unit: f64,
}

/// The third sweep: `factor * (Q*p - q)` to `grad`, and p to `sums`, or subtracted from them; where they are given.
pub(super) struct LastSweep<'a, L: Storage, V: Vectors, const GENERAL: bool> {
    exponentials: &'a [L::Real],
    soft: SoftLabel<'a, L::Real>,
    grad: Option<&'a mut [L]>,
    sums: Option<&'a mut [i64]>,
    factors: Factors,
    to_p: LanesOf<L, V>,
    to_q: LanesOf<L, V>,
    to_units: LanesOf<L, V>,
}

impl<'a, L: Storage, V: Vectors, const GENERAL: bool> LastSweep<'a, L, V, GENERAL> {
    #[inline(always)]
    pub fn new(
        exponentials: &'a [L::Real],
        soft: SoftLabel<'a, L::Real>,
        grad: Option<&'a mut [L]>,
        sums: Option<&'a mut [i64]>,
        factors: Factors,
    ) -> Self {
        // Both factors are formed once, so that an entry costs a product and a fused product.
        let splat = |value: f64| LanesOf::<L, V>::splat(L::Real::from_f64(value));
        let (to_p, to_q) = (splat(factors.p_scale * factors.factor), splat(soft.scale * factors.factor));
        Self { exponentials, soft, grad, sums, factors, to_p, to_q, to_units: splat(factors.inverse * factors.unit) }
    }

    #[inline(always)]
    pub fn chain(&mut self, index: usize) {
        self.gradient_chain(index);
        self.sums_chain(index);
    }

    #[inline(always)]
    pub fn gradient_chain(&mut self, index: usize) {
        let range = index * chain::<L, V>()..(index + 1) * chain::<L, V>();
        if let Some(grad) = &mut self.grad {
            let soft = self.soft.range(range.start, range.len());
            entries::<L, V, GENERAL>(&self.exponentials[range.clone()], &soft, self.to_p, self.to_q, &mut grad[range]);
        }
    }

    #[inline(always)]
    pub fn sums_chain(&mut self, index: usize) {
        let range = index * chain::<L, V>()..(index + 1) * chain::<L, V>();
        if let Some(sums) = &mut self.sums {
            units::<L, V>(&self.exponentials[range.clone()], self.to_units, &mut sums[range]);
        }
    }

    /// The classes from `start` on, less than a chain.
    #[inline(always)]
    pub fn rest(&mut self, start: usize) {
        let exponentials = &self.exponentials[start..];
        if let Some(grad) = &mut self.grad {
            let soft = self.soft.range(start, grad.len() - start);
            entries::<L, V, GENERAL>(exponentials, &soft, self.to_p, self.to_q, &mut grad[start..]);
        }
        if let Some(sums) = &mut self.sums {
            units::<L, V>(exponentials, self.to_units, &mut sums[start..]);
        }
    }

    /// The entry of a target again, with the weight of its hard label.
    #[inline(always)]
    pub fn target(&mut self, class: usize, weight: f64) {
        if let Some(grad) = &mut self.grad {
            let (e, q) = (self.exponentials[class].to_f64(), self.soft.class(class) + weight);
            grad[class] = L::narrow(target_entry(e, q, self.factors.p_scale, self.factors.factor));
        }
    }
}

/// Gradients without the hard label, from exponentials that fill whole vectors.
#[inline(always)]
pub(super) fn entries<L: Storage, V: Vectors, const GENERAL: bool>(
    exponentials: &[L::Real],
    soft: &SoftLabel<'_, L::Real>,
    to_p: LanesOf<L, V>,
    to_q: LanesOf<L, V>,
    grad: &mut [L],
) {
    let width = LanesOf::<L, V>::WIDTH;
    let mut at = 0;
    let mut whole = grad.chunks_exact_mut(width);
    for ((grad, e), q) in (&mut whole).zip(exponentials.chunks_exact(width)).zip(soft.first.chunks_exact(width)) {
        let q = soft.lanes_at::<V, GENERAL>(q, at);
        L::store::<V>(LanesOf::<L, V>::load(e).mul_sub(to_p, q.mul(to_q)), grad);
        at += width;
    }
    if at < grad.len() {
        // A whole vector once more where there is one: parts of vectors are slow.
        at = at.min(grad.len().saturating_sub(width));
        let q = soft.lanes::<V, GENERAL>(at, width.min(grad.len()));
        store_part::<L, V>(LanesOf::<L, V>::load(&exponentials[at..]).mul_sub(to_p, q.mul(to_q)), &mut grad[at..]);
    }
}

/// Adds p, from exponentials that fill whole vectors (0 behind the last class), to sums, which may be longer than there are classes.
#[inline(always)]
pub(super) fn units<L: Storage, V: Vectors>(exponentials: &[L::Real], to_units: LanesOf<L, V>, sums: &mut [i64]) {
    let width = LanesOf::<L, V>::WIDTH;
    let at = sums.len() / width * width;
    let mut whole = sums.chunks_exact_mut(width);
    for (sums, e) in (&mut whole).zip(exponentials.chunks_exact(width)) {
        LanesOf::<L, V>::load(e).mul(to_units).add_fixed(sums);
    }
    let rest = whole.into_remainder();
    if !rest.is_empty() {
        LanesOf::<L, V>::load(&exponentials[at..]).mul(to_units).add_fixed_part(rest);
    }
}

/// The gradient of a target's logit, whose q has a hard part: the differences in f64, rounded to the row's type.
#[inline(always)]
pub(super) fn target_entry<R: Real>(exponential: f64, q: f64, p_scale: f64, factor: f64) -> R {
    R::from_f64((p_scale * exponential - q) * factor)
}

#[cfg(test)]
mod tests {
    use super::super::labels::{LANES, Labels};
    use super::super::lanes::Portable;
    use super::super::softmax::Softmaxes;
    use super::*;

    /// ImageNet-21k.
    const CLASSES: usize = 21_841;

    /// The errors of loss and largest gradient entry for one row: f64 and compensated sums are the truth.
    fn errors<R: Storage<Real = R> + Real>(z: &[f64], alpha: f64, target: usize) -> (f64, f64) {
        let row: Vec<R> = z.iter().map(|&z| R::from_f64(z)).collect();
        let soft_label: Vec<f32> = (0..CLASSES).map(|k| if k == target { 0.9 } else { 0.1 / (CLASSES - 1) as f32 }).collect();
        let (one, zero) = (R::from_f64(1.0), R::from_f64(0.0));
        let scale = 1.0 - alpha;
        let soft = SoftLabel { first: &soft_label, first_scale: one, second: &soft_label, second_scale: zero, weights: &[], scale };
        let labels = Labels {
            count: 1,
            active: 1,
            two: false,
            classes: [[target; LANES]; 2],
            lams: [[1.0; LANES], [0.0; LANES]],
            hard: [[alpha; LANES], [0.0; LANES]],
            own: [target; LANES],
            weights: [1.0; LANES],
            factors: [1.0; LANES],
        };
        let mut exponentials = vec![zero; CLASSES.next_multiple_of(64)];
        let chains = CLASSES / chain::<R, Portable>();
        let start = chains * chain::<R, Portable>();
        let mut first = MaxSweep::<R, Portable>::new(&row, target);
        (0..chains).for_each(|index| first.chain(index));
        first.rest(start);
        let (max, _) = first.finish().expect("the row is finite");
        let ahead = Ahead { grad: row.as_ptr(), sums: row.as_ptr().cast(), next_logits: row.as_ptr(), next_soft: soft_label.as_ptr() };
        let mut second = ExpSweep::<R, Portable, false>::new(&row, soft, max, &mut exponentials, Exp::constants());
        (0..chains).for_each(|index| second.chain(index, &ahead));
        second.rest(start);
        let mut found = Softmaxes::new();
        [found.sum[0], found.mass[0], found.distance[0]] = second.finish();
        (found.max[0], found.target_logits[0][0]) = (max.to_f64(), row[target].to_f64());
        assert_eq!(found.finish::<R>(0..1, &labels, scale, |_, _| unreachable!("no class is masked")), 1);
        let factors = Factors { p_scale: found.p_scale[0], inverse: found.inverse[0], factor: 1.0, unit: R::UNITS.to_f64() };
        let mut grad = vec![zero; CLASSES];
        let mut last = LastSweep::<R, Portable, false>::new(&exponentials, soft, Some(&mut grad), None, factors);
        (0..chains).for_each(|index| last.chain(index));
        last.rest(start);
        last.target(target, alpha);

        let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum = neumaier(z.iter().map(|z| (z - max).exp()));
        let q = |k: usize| (1.0 - alpha) * f64::from(soft_label[k]) + if k == target { alpha } else { 0.0 };
        let q_sum = neumaier((0..CLASSES).map(q));
        let loss = neumaier((0..CLASSES).map(|k| q(k) * (sum.ln() - (z[k] - max))));
        let worst = (0..CLASSES).map(|k| (grad[k].to_f64() - (q_sum * (z[k] - max).exp() / sum - q(k))).abs()).fold(0.0, f64::max);
        ((found.loss[0] - loss).abs() / loss.max(1.0), worst)
    }

    /// A sum that loses nothing to its size.
    fn neumaier(terms: impl Iterator<Item = f64>) -> f64 {
        let (mut sum, mut lost) = (0.0f64, 0.0);
        for term in terms {
            let next = sum + term;
            lost += if sum.abs() >= term.abs() { (sum - next) + term } else { (term - next) + sum };
            sum = next;
        }
        sum + lost
    }

    /// |error of loss| <= 2e-6 * max(1, loss) and |error of gradient| <= 4e-7 in f32; 1e-13 in f64; for any row.
    #[test]
    fn long_and_peaked_rows_are_accurate() {
        let wave = |k: usize, spread: f64| f64::from((spread * ((k * 7919) % 1000) as f64 / 1000.0) as f32);
        for height in [0.0, 3.0, 8.25, 12.0, 16.0, 16.6, 16.635, 17.0, 20.0, 30.0, 80.0] {
            for (offset, spread) in [(0.0, 0.0), (0.5, 0.0), (-1000.0, 0.0), (0.0, 4.0), (3.0, 30.0)] {
                for (peak, target) in [(0, 0), (5, 5), (CLASSES - 1, 3), (10_000, CLASSES - 1)] {
                    let mut z: Vec<f64> = (0..CLASSES).map(|k| offset + wave(k, spread)).collect();
                    z[peak] = offset + spread + f64::from(height as f32);
                    let z: Vec<f64> = z.into_iter().map(|z| f64::from(z as f32)).collect();
                    for alpha in [0.0, 0.5, 1.0] {
                        let (loss, gradient) = errors::<f32>(&z, alpha, target);
                        assert!(loss <= 2e-6 && gradient <= 4e-7, "f32, {height} {offset} {spread} {peak} {alpha}: {loss:e} {gradient:e}");
                        let (loss, gradient) = errors::<f64>(&z, alpha, target);
                        assert!(
                            loss <= 1e-13 && gradient <= 1e-13,
                            "f64, {height} {offset} {spread} {peak} {alpha}: {loss:e} {gradient:e}"
                        );
                    }
                }
            }
        }
    }
}
