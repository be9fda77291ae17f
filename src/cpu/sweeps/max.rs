//! The first sweep over a row: its maximum, and whether the sample is classified correctly.

use super::super::lanes::{Lanes, Real, Vectors};
use super::super::storage::{LanesOf, Storage, load_padded};
use super::super::sums::CHAIN;
use super::chain;

/// Finds the maximum of a row, and whether `dominant` is the first class that has it.
pub(in super::super) struct MaxSweep<'a, L: Storage, V: Vectors> {
    z: &'a [L],
    /// Four accumulators, so that no maximum waits for the one before.
    max: [LanesOf<L, V>; 4],
    /// The class whose statistics the sample may count for.
    dominant: usize,
    /// The maximum of the chains before the one of `dominant`.
    before: L::Real,
}

impl<'a, L: Storage, V: Vectors> MaxSweep<'a, L, V> {
    /// A sweep that has seen no class yet.
    #[inline(always)]
    pub fn new(z: &'a [L], dominant: usize) -> Self {
        Self { z, max: [LanesOf::<L, V>::splat(L::Real::MINUS_INFINITY); 4], dominant, before: L::Real::MINUS_INFINITY }
    }

    /// The maximum of the classes seen.
    #[inline(always)]
    fn reduce(&self) -> L::Real {
        let [a, b, c, d] = self.max;
        a.max(b).max(c.max(d)).reduce_max()
    }

    /// Advances by the chain with this index.
    #[inline(always)]
    pub fn chain(&mut self, index: usize) {
        let (width, start) = (LanesOf::<L, V>::WIDTH, index * chain::<L, V>());
        if start != 0 && self.dominant / chain::<L, V>() == index {
            self.before = self.reduce();
        }
        let z = &self.z[start..start + chain::<L, V>()];
        let mut max = self.max;
        let mut vector = 0;
        while vector < CHAIN {
            max[vector % 4] = max[vector % 4].max(L::load::<V>(&z[vector * width..(vector + 1) * width]));
            vector += 1;
        }
        self.max = max;
    }

    /// Advances by the classes from `start` on, fewer than a chain, to the row's end.
    #[inline(always)]
    pub fn rest(&mut self, start: usize) {
        if start != 0 && self.dominant >= start {
            self.before = self.reduce();
        }
        let [mut a, mut b, c, d] = self.max;
        for z in self.z[start..].chunks_exact(LanesOf::<L, V>::WIDTH) {
            (a, b) = (b, a.max(L::load::<V>(z)));
        }
        self.max = [a.max(last_vector::<L, V>(self.z)), b, c, d];
    }

    /// The maximum, and whether `dominant` is the first class that has it. `None` for a row with +inf, or of nothing but -inf or NaN.
    #[inline(always)]
    pub fn finish(&self) -> Option<(L::Real, bool)> {
        let max = self.reduce();
        if !max.is_finite() {
            return None;
        }
        let start = self.dominant / chain::<L, V>() * chain::<L, V>();
        let correct = self.z[self.dominant].widen() == max
            && self.before < max
            && !occurs_before::<L, V>(&self.z[start..], self.dominant - start, max);
        Some((max, correct))
    }
}

/// The last vector of a row; of a shorter row all of it, and -inf.
#[inline(always)]
pub(in super::super) fn last_vector<L: Storage, V: Vectors>(row: &[L]) -> LanesOf<L, V> {
    let width = LanesOf::<L, V>::WIDTH;
    if row.len() >= width {
        L::load::<V>(&row[row.len() - width..])
    } else {
        L::load_part::<V>(row).keep(row.len(), LanesOf::<L, V>::splat(L::Real::MINUS_INFINITY))
    }
}

/// Whether a class before `class` has the logit `max`.
#[inline(always)]
pub(in super::super) fn occurs_before<L: Storage, V: Vectors>(z: &[L], class: usize, max: L::Real) -> bool {
    let (width, max) = (LanesOf::<L, V>::WIDTH, LanesOf::<L, V>::splat(max));
    let mut at = 0;
    while at + width <= class {
        if L::load::<V>(&z[at..]).equal(max) != 0 {
            return true;
        }
        at += width;
    }
    load_padded::<L, V>(&z[at..]).equal(max) & ((1 << (class - at)) - 1) != 0
}
