//! The third sweep over a row: the gradient, and the probabilities for the statistics.

use super::super::lanes::{Lanes, Real, Vectors};
use super::super::soft_label::SoftLabel;
use super::super::storage::{LanesOf, Storage, store_clipped};
use super::chain;

/// The numbers that gradient and statistics of a row are scaled by.
#[derive(Clone, Copy)]
pub(in super::super) struct GradientScales {
    /// `Q / sum exp(z - max)`.
    pub p_scale: f64,
    /// `1 / sum exp(z - max)`.
    pub inverse_sum: f64,
    /// The reduction's factor, times the incoming gradient and the sample weight.
    pub grad_scale: f64,
    /// A probability of 1 in the units of the statistics: a power of two, so p is rounded as it would be without it.
    pub unit: f64,
}

/// Writes `grad_scale * (Q*p - q)` to `grad`, and adds p to `sums`, where they are given.
pub(in super::super) struct GradientSweep<'a, L: Storage, V: Vectors, const GENERAL: bool> {
    exponentials: &'a [L::Real],
    soft: SoftLabel<'a, L::Real>,
    grad: Option<&'a mut [L]>,
    sums: Option<&'a mut [i64]>,
    scales: GradientScales,
    p_factor: LanesOf<L, V>,
    q_factor: LanesOf<L, V>,
    unit_factor: LanesOf<L, V>,
}

impl<'a, L: Storage, V: Vectors, const GENERAL: bool> GradientSweep<'a, L, V, GENERAL> {
    /// A sweep that has seen no class yet.
    #[inline(always)]
    pub fn new(
        exponentials: &'a [L::Real],
        soft: SoftLabel<'a, L::Real>,
        grad: Option<&'a mut [L]>,
        sums: Option<&'a mut [i64]>,
        scales: GradientScales,
    ) -> Self {
        // Each factor is rounded once, so that an entry costs a product and a fused multiply-subtract.
        let splat = |value: f64| LanesOf::<L, V>::splat(L::Real::from_f64(value));
        let (p_factor, q_factor) = (splat(scales.p_scale * scales.grad_scale), splat(soft.scale * scales.grad_scale));
        Self { exponentials, soft, grad, sums, scales, p_factor, q_factor, unit_factor: splat(scales.inverse_sum * scales.unit) }
    }

    /// Advances by the chain with this index: gradient and statistics.
    #[inline(always)]
    pub fn chain(&mut self, index: usize) {
        self.gradient_chain(index);
        self.sums_chain(index);
    }

    /// The gradient of a chain.
    #[inline(always)]
    pub fn gradient_chain(&mut self, index: usize) {
        let range = index * chain::<L, V>()..(index + 1) * chain::<L, V>();
        if let Some(grad) = &mut self.grad {
            let soft = self.soft.range(range.start, range.len());
            gradient_entries::<L, V, GENERAL>(&self.exponentials[range.clone()], &soft, self.p_factor, self.q_factor, &mut grad[range]);
        }
    }

    /// The statistics of a chain.
    #[inline(always)]
    pub fn sums_chain(&mut self, index: usize) {
        let range = index * chain::<L, V>()..(index + 1) * chain::<L, V>();
        if let Some(sums) = &mut self.sums {
            add_probabilities::<L, V>(&self.exponentials[range.clone()], self.unit_factor, &mut sums[range]);
        }
    }

    /// Advances by the classes from `start` on, fewer than a chain, to the row's end.
    #[inline(always)]
    pub fn rest(&mut self, start: usize) {
        let exponentials = &self.exponentials[start..];
        if let Some(grad) = &mut self.grad {
            let soft = self.soft.range(start, grad.len() - start);
            gradient_entries::<L, V, GENERAL>(exponentials, &soft, self.p_factor, self.q_factor, &mut grad[start..]);
        }
        if let Some(sums) = &mut self.sums {
            add_probabilities::<L, V>(exponentials, self.unit_factor, &mut sums[start..]);
        }
    }

    /// Overwrites the gradient of a target, whose q has the weight of the hard label too.
    #[inline(always)]
    pub fn target(&mut self, class: usize, weight: f64) {
        if let Some(grad) = &mut self.grad {
            let (e, q) = (self.exponentials[class].to_f64(), self.soft.class(class) + weight);
            grad[class] = L::narrow(target_entry(e, q, self.scales.p_scale, self.scales.grad_scale));
        }
    }
}

/// The gradient without the hard label, from exponentials that fill whole vectors.
#[inline(always)]
pub(in super::super) fn gradient_entries<L: Storage, V: Vectors, const GENERAL: bool>(
    exponentials: &[L::Real],
    soft: &SoftLabel<'_, L::Real>,
    p_factor: LanesOf<L, V>,
    q_factor: LanesOf<L, V>,
    grad: &mut [L],
) {
    let width = LanesOf::<L, V>::WIDTH;
    let mut at = 0;
    let mut whole = grad.chunks_exact_mut(width);
    for ((grad, e), q) in (&mut whole).zip(exponentials.chunks_exact(width)).zip(soft.first.chunks_exact(width)) {
        let q = soft.whole_lanes::<V, GENERAL>(q, at);
        L::store::<V>(LanesOf::<L, V>::load(e).mul_sub(p_factor, q.mul(q_factor)), grad);
        at += width;
    }
    if at < grad.len() {
        // The last whole vector of the row again where there is one: storing a part of a vector is slow.
        at = at.min(grad.len().saturating_sub(width));
        let q = soft.lanes::<V, GENERAL>(at, width.min(grad.len()));
        store_clipped::<L, V>(LanesOf::<L, V>::load(&exponentials[at..]).mul_sub(p_factor, q.mul(q_factor)), &mut grad[at..]);
    }
}

/// Adds p to `sums`, which may be longer than the row. The exponentials fill whole vectors, with 0 past the last class.
#[inline(always)]
pub(in super::super) fn add_probabilities<L: Storage, V: Vectors>(exponentials: &[L::Real], unit_factor: LanesOf<L, V>, sums: &mut [i64]) {
    let width = LanesOf::<L, V>::WIDTH;
    let at = sums.len() / width * width;
    let mut whole = sums.chunks_exact_mut(width);
    for (sums, e) in (&mut whole).zip(exponentials.chunks_exact(width)) {
        LanesOf::<L, V>::load(e).mul(unit_factor).add_fixed(sums);
    }
    let rest = whole.into_remainder();
    if !rest.is_empty() {
        LanesOf::<L, V>::load(&exponentials[at..]).mul(unit_factor).add_fixed_part(rest);
    }
}

/// The gradient of a target's logit: the difference in f64, since q has a hard part, then rounded to the row's type.
#[inline(always)]
pub(in super::super) fn target_entry<R: Real>(exponential: f64, q: f64, p_scale: f64, grad_scale: f64) -> R {
    R::from_f64((p_scale * exponential - q) * grad_scale)
}
