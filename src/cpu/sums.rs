//! The three sums of a row, and the order of summation, which is part of the result: `sum exp(z - max)`, `sum q` and `sum q * (z - max)`.
//!
//! Lane l of a vector holds the classes k with k mod `WIDTH` = l. A chain of [`CHAIN`] vectors is summed lane by lane in the row's type, with
//! two accumulators in turn for the exponentials and for q. The upper half of the lanes is then added to the lower one until four are left,
//! which are added to four sums in f64, across all chains. In the end the upper two of these are added to the lower two, and the second to the
//! first.

use std::marker::PhantomData;

use super::lanes::{Lanes, Real};

/// Vectors that are summed in the row's type before they are added to the sums in f64. In f32 alone, 20,000 equal terms beside a large one would be
/// lost.
pub(super) const CHAIN: usize = 8;

/// The sums of a chain, in the row's type. Two accumulators in turn halve what small terms lose to a large one.
#[derive(Clone, Copy)]
pub(super) struct ChainSums<R, L> {
    exp: [L; 2],
    /// Of q.
    soft: [L; 2],
    /// Of `q * (z - max)`.
    dot: L,
    real: PhantomData<R>,
}

impl<R: Real, L: Lanes<R>> ChainSums<R, L> {
    /// Zeros.
    #[inline(always)]
    pub fn new() -> Self {
        let zero = L::splat(R::from_f64(0.0));
        Self { exp: [zero; 2], soft: [zero; 2], dot: zero, real: PhantomData }
    }

    /// Adds the exponentials `e`, q and `q * x` of the next vector, where x is `z - max`.
    #[inline(always)]
    pub fn add(&mut self, e: L, q: L, x: L) {
        self.exp = [self.exp[1], self.exp[0].add(e)];
        self.soft = [self.soft[1], self.soft[0].add(q)];
        self.dot = q.mul_add(x, self.dot);
    }

    /// Adds those of the next two vectors.
    #[inline(always)]
    pub fn add_two(&mut self, e: [L; 2], q: [L; 2], x: [L; 2]) {
        self.exp = [self.exp[0].add(e[0]), self.exp[1].add(e[1])];
        self.soft = [self.soft[0].add(q[0]), self.soft[1].add(q[1])];
        self.dot = q[1].mul_add(x[1], q[0].mul_add(x[0], self.dot));
    }
}

/// The sums of a row, in f64.
#[derive(Clone, Copy)]
pub(super) struct WideSums<R, L: Lanes<R>> {
    exp: L::Wide,
    soft: L::Wide,
    dot: L::Wide,
    real: PhantomData<R>,
}

impl<R: Real, L: Lanes<R>> WideSums<R, L> {
    /// Zeros.
    #[inline(always)]
    pub fn new() -> Self {
        let zero = L::wide_zero();
        Self { exp: zero, soft: zero, dot: zero, real: PhantomData }
    }

    /// Adds the sums of a chain.
    #[inline(always)]
    pub fn add(&mut self, chain: &ChainSums<R, L>) {
        self.exp = chain.exp[0].add(chain.exp[1]).wide_add(self.exp);
        self.soft = chain.soft[0].add(chain.soft[1]).wide_add(self.soft);
        self.dot = chain.dot.wide_add(self.dot);
    }

    /// The sums of a row that is no longer than a chain.
    #[inline(always)]
    pub fn of(chain: &ChainSums<R, L>) -> Self {
        let mut sums = Self::new();
        sums.add(chain);
        sums
    }

    /// The sums of exponentials, of q, and of `q * (z - max)`.
    #[inline(always)]
    pub fn finish(&self) -> [f64; 3] {
        [L::wide_sum(self.exp), L::wide_sum(self.soft), L::wide_sum(self.dot)]
    }
}
