//! The second sweep over a row: exponentials, and the three sums that loss and gradient are made of.

use super::super::exp::Exp;
use super::super::lanes::{Lanes, Vectors};
use super::super::memory::prefetch;
use super::super::soft_label::SoftLabel;
use super::super::storage::{LanesOf, Storage, load_padded};
use super::super::sums::{ChainSums, WideSums};
use super::chain;

/// Computes `exp(z - max)` of a row, and the sums of these, of q, and of `q * (z - max)`.
pub(in super::super) struct ExpSweep<'a, L: Storage, V: Vectors, const GENERAL: bool> {
    z: &'a [L],
    soft: SoftLabel<'a, L::Real>,
    max: L::Real,
    /// Room for the row rounded up to whole vectors.
    exponentials: &'a mut [L::Real],
    constants: Exp<L::Real>,
    totals: WideSums<L::Real, LanesOf<L, V>>,
}

impl<'a, L: Storage, V: Vectors, const GENERAL: bool> ExpSweep<'a, L, V, GENERAL> {
    /// A sweep that has seen no class yet.
    #[inline(always)]
    pub fn new(z: &'a [L], soft: SoftLabel<'a, L::Real>, max: L::Real, exponentials: &'a mut [L::Real], constants: Exp<L::Real>) -> Self {
        Self { z, soft, max, exponentials, constants, totals: WideSums::new() }
    }

    /// Advances by the chain with this index.
    #[inline(always)]
    pub fn chain(&mut self, index: usize, prefetch: &Prefetch<L>) {
        let (width, start) = (LanesOf::<L, V>::WIDTH, index * chain::<L, V>());
        let z = &self.z[start..start + chain::<L, V>()];
        let exponentials = &mut self.exponentials[start..start + chain::<L, V>()];
        let soft = self.soft.range(start, chain::<L, V>());
        let max = LanesOf::<L, V>::splat(self.max);
        let exp = self.constants.vectors::<LanesOf<L, V>>();
        let mut at = 0;
        while at < chain::<L, V>() {
            exp_pair::<L, V>(&exp, max, &z[at..at + 2 * width], &mut exponentials[at..at + 2 * width]);
            prefetch.issue(start + at, width);
            prefetch.issue(start + at + width, width);
            at += 2 * width;
        }
        let mut chain_sums = ChainSums::<L::Real, LanesOf<L, V>>::new();
        add_pairs::<L, V, GENERAL>(max, z, exponentials, &soft, &mut chain_sums);
        self.totals.add(&chain_sums);
    }

    /// Advances by the classes from `start` on, fewer than a chain, to the row's end.
    #[inline(always)]
    pub fn rest(&mut self, start: usize) {
        if start != self.z.len() {
            let soft = self.soft.range(start, self.z.len() - start);
            let sums =
                short_chain::<L, V, GENERAL>(&self.constants.vectors(), self.max, &self.z[start..], &soft, &mut self.exponentials[start..]);
            self.totals.add(&sums);
        }
    }

    /// The sums of exponentials, of q, and of `q * (z - max)`, the latter two without the factor `scale` of q. The first is NaN where the row
    /// has NaN.
    #[inline(always)]
    pub fn finish(&self) -> [f64; 3] {
        self.totals.finish()
    }
}

/// What to prefetch during the second sweep, which is bound by arithmetic: what the third sweep will write, and what the first two sweeps of a
/// following row will read.
#[derive(Clone, Copy)]
pub(in super::super) struct Prefetch<L> {
    pub grad: *const L,
    /// The class's sums; any mapped address nearby where nothing will be added to them.
    pub sums: *const i64,
    pub next_logits: *const L,
    pub next_soft: *const f32,
}

impl<L: Storage> Prefetch<L> {
    /// Prefetches for the vector that begins with `class`.
    #[inline(always)]
    fn issue(&self, class: usize, width: usize) {
        prefetch::<L>(self.grad.wrapping_add(class));
        prefetch::<i64>(self.sums.wrapping_add(class));
        prefetch::<i64>(self.sums.wrapping_add(class + width / 2));
        prefetch::<L>(self.next_logits.wrapping_add(class));
        prefetch::<f32>(self.next_soft.wrapping_add(class));
    }
}

/// The exponentials of a chain or less, and their sums.
#[inline(always)]
pub(in super::super) fn short_chain<L: Storage, V: Vectors, const GENERAL: bool>(
    exp: &Exp<LanesOf<L, V>>,
    max: L::Real,
    z: &[L],
    soft: &SoftLabel<'_, L::Real>,
    exponentials: &mut [L::Real],
) -> ChainSums<L::Real, LanesOf<L, V>> {
    let (width, zero) = (LanesOf::<L, V>::WIDTH, LanesOf::<L, V>::splat(L::Real::default()));
    let max = LanesOf::<L, V>::splat(max);
    // Exponentials and sums in loops of their own: each then has its constants and accumulators in registers.
    let z_pairs = z.chunks_exact(2 * width);
    let (last, at) = (z_pairs.remainder(), z.len() - z_pairs.remainder().len());
    for (z, exponentials) in z_pairs.zip(exponentials.chunks_exact_mut(2 * width)) {
        exp_pair::<L, V>(exp, max, z, exponentials);
    }
    for (z, exponentials) in last.chunks(width).zip(exponentials[at..].chunks_exact_mut(width)) {
        let x = load_padded::<L, V>(z).sub(max);
        // Lanes past the row's end add 0.
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

/// Adds the terms of all whole pairs of vectors, and gives the number of their classes.
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
        let q = [soft.whole_lanes::<V, GENERAL>(&q[..width], at), soft.whole_lanes::<V, GENERAL>(&q[width..], at + width)];
        sums.add_two(e, q, x);
        at += 2 * width;
    }
    at
}

/// The exponentials of two vectors.
#[inline(always)]
fn exp_pair<L: Storage, V: Vectors>(exp: &Exp<LanesOf<L, V>>, max: LanesOf<L, V>, z: &[L], exponentials: &mut [L::Real]) {
    let width = LanesOf::<L, V>::WIDTH;
    let e = exp.nonpositive([L::load::<V>(&z[..width]).sub(max), L::load::<V>(&z[width..]).sub(max)]);
    e[0].store(&mut exponentials[..width]);
    e[1].store(&mut exponentials[width..]);
}
