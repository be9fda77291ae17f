//! The three sums of a row: of exponentials, of q, and of q times the distance from the maximum.
//!
//! Their order is the same wherever they are formed. Lane l of a vector has the classes k with k mod `WIDTH` = l; those of [`CHAIN`] vectors, a chain,
//! are added up in the row's own type, the exponentials and q of every second vector apart; then half of the lanes is added onto the other until four
//! are left, which go to four sums in f64; of those the upper two onto the lower two.

use std::marker::PhantomData;

use super::lanes::{Lanes, Real};

/// Vectors whose terms are added up in the row's own type before they go to the wide sums: 20,000 equal terms beside one large one would be lost there.
pub(super) const CHAIN: usize = 8;

/// Sums in the row's own type, of a chain. Two in turns halve what a large term among small ones loses.
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

    /// Adds those of the next two.
    #[inline(always)]
    pub fn add_two(&mut self, e: [L; 2], q: [L; 2], x: [L; 2]) {
        self.sum = [self.sum[0].add(e[0]), self.sum[1].add(e[1])];
        self.mass = [self.mass[0].add(q[0]), self.mass[1].add(q[1])];
        self.distance = q[1].mul_add(x[1], q[0].mul_add(x[0], self.distance));
    }
}

/// Sums in f64.
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

    /// Those of a row that is no more than a chain.
    #[inline(always)]
    pub fn of(chain: &ChainSums<R, L>) -> Self {
        let mut sums = Self::new();
        sums.add(chain);
        sums
    }

    /// The sums of exponentials, of q, and of q times the distance.
    #[inline(always)]
    pub fn finish(&self) -> [f64; 3] {
        [L::wide_sum(self.sum), L::wide_sum(self.mass), L::wide_sum(self.distance)]
    }
}
