//! The soft part of a sample's target distribution q.

use super::labels::Labels;
use super::lanes::{Lanes, Real, Vectors};
use super::pass::Pass;
use super::scratch::ClassWeights;
use super::softmax::loss_term;
use super::storage::load_padded_f32;

/// The soft part of q for one sample, without the factor `scale`: `w[k] * (lam * S[y,k] + (1 - lam) * S[y2,k])`.
#[derive(Clone, Copy)]
pub(super) struct SoftLabel<'a, R> {
    /// `S[y]`.
    pub first: &'a [f32],
    /// lam. This and what follows is unused in kernels with `GENERAL` false, for passes in which every sample has one target and there are no
    /// class weights; lam = 1 gives the same bits.
    first_scale: R,
    /// `S[y2]`.
    second: &'a [f32],
    /// `1 - lam`.
    second_scale: R,
    /// Class weights divided by [`ClassWeights::scale`], or none.
    weights: &'a [R],
    /// `1 - alpha`, times [`ClassWeights::scale`].
    pub scale: f64,
}

impl<'a, R: Real> SoftLabel<'a, R> {
    /// That of a lane's sample.
    #[inline(always)]
    pub fn new(pass: &Pass<'a>, labels: &Labels, weights: &'a ClassWeights<R>, lane: usize) -> Self {
        Self {
            first: pass.soft_labels.row(labels.classes[0][lane]),
            first_scale: R::from_f64(labels.lams[0][lane]),
            second: pass.soft_labels.row(labels.classes[1][lane]),
            second_scale: R::from_f64(labels.lams[1][lane]),
            weights: &weights.scaled,
            scale: soft_scale(pass, weights),
        }
    }

    /// A row of S as it is.
    #[cfg(test)]
    pub fn of_row(row: &'a [f32], scale: f64) -> Self {
        let [first_scale, second_scale] = [1.0, 0.0].map(R::from_f64);
        Self { first: row, first_scale, second: row, second_scale, weights: &[], scale }
    }

    /// The part for `length` classes from `start` on.
    #[inline(always)]
    pub fn range(&self, start: usize, length: usize) -> Self {
        let weights = if self.weights.is_empty() { self.weights } else { &self.weights[start..start + length] };
        Self { first: &self.first[start..start + length], second: &self.second[start..start + length], weights, ..*self }
    }

    /// `q / scale` of `length` classes from `start` on: a vector of them, or the fewer at the row's end and 0.
    #[inline(always)]
    pub fn lanes<V: Vectors, const GENERAL: bool>(&self, start: usize, length: usize) -> R::Lanes<V> {
        let first = load_padded_f32::<R, V>(&self.first[start..start + length]);
        if !GENERAL {
            return first;
        }
        let first = first.mul(Lanes::splat(self.first_scale));
        let soft = load_padded_f32::<R, V>(&self.second[start..start + length]).mul_add(Lanes::splat(self.second_scale), first);
        if self.weights.is_empty() {
            return soft;
        }
        let weights = &self.weights[start..start + length];
        soft.mul(if length >= R::Lanes::<V>::WIDTH { Lanes::load(weights) } else { Lanes::load_part(weights) })
    }

    /// As [`lanes`](Self::lanes) for a whole vector of classes, whose entries of `first` the caller has at hand.
    #[inline(always)]
    pub fn whole_lanes<V: Vectors, const GENERAL: bool>(&self, first: &[f32], start: usize) -> R::Lanes<V> {
        if GENERAL { self.lanes::<V, true>(start, R::Lanes::<V>::WIDTH) } else { Lanes::load_f32(first) }
    }

    /// The soft part of q of one class, in f64 from the same numbers.
    #[inline(always)]
    pub fn class(&self, class: usize) -> f64 {
        let of = |row: &[f32], scale: R| f64::from(row[class]) * scale.to_f64();
        let weight = if self.weights.is_empty() { 1.0 } else { self.weights[class].to_f64() };
        (of(self.first, self.first_scale) + of(self.second, self.second_scale)) * weight * self.scale
    }
}

/// The factor of every soft label of a pass that kernels leave to the end: `1 - alpha`, times the scale of the class weights.
#[inline(always)]
pub(super) fn soft_scale<R>(pass: &Pass<'_>, weights: &ClassWeights<R>) -> f64 {
    (1.0 - pass.alpha) * weights.scale
}

/// `sum q * (max - z)` over the soft part, term by term in f64: for a row with masked classes (-inf), or whose logits differ by more than its
/// type holds.
#[cold]
#[inline(never)]
pub(super) fn masked_soft_loss<R: Real>(soft: &SoftLabel<'_, R>, max: f64, logit: impl Fn(usize) -> f64) -> f64 {
    (0..soft.first.len()).map(|class| loss_term(soft.class(class), max, logit(class))).sum()
}
