//! The three sums of a row: of exponentials, of q, and of q times the distance from the maximum.

use std::marker::PhantomData;

use super::lanes::{Lanes, Real};

/// Sums in the row's own type, of a few vectors. Two in turns halve what a large term among small ones loses.
#[derive(Clone, Copy)]
pub(super) struct ChainSums<R, L> {
    sum: [L; 2],
    mass: [L; 2],
    distance: L,
    real: PhantomData<R>,
}

impl<R: Real, L: Lanes<R>> ChainSums<R, L> {
    #[inline(always)]
    pub fn new() -> Self {
        let zero = L::splat(R::from_f64(0.0));
        Self { sum: [zero; 2], mass: [zero; 2], distance: zero, real: PhantomData }
    }

    /// Adds the exponential, q and `q * x` of the next vector.
    #[inline(always)]
    pub fn add(&mut self, e: L, q: L, x: L) {
        self.sum = [self.sum[1], self.sum[0].add(e)];
        self.mass = [self.mass[1], self.mass[0].add(q)];
        self.distance = q.mul_add(x, self.distance);
    }
}

/// Sums in f64, one per lane.
#[derive(Clone, Copy)]
pub(super) struct WideSums<R, L: Lanes<R>> {
    pub sum: L::Wide,
    pub mass: L::Wide,
    pub distance: L::Wide,
    real: PhantomData<R>,
}

impl<R: Real, L: Lanes<R>> WideSums<R, L> {
    #[inline(always)]
    pub fn new() -> Self {
        let zero = L::wide_zero();
        Self { sum: zero, mass: zero, distance: zero, real: PhantomData }
    }

    #[inline(always)]
    pub fn add(&mut self, chain: &ChainSums<R, L>) {
        self.sum = chain.sum[0].add(chain.sum[1]).wide_add(self.sum);
        self.mass = chain.mass[0].add(chain.mass[1]).wide_add(self.mass);
        self.distance = chain.distance.wide_add(self.distance);
    }
}
