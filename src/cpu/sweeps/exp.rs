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
        let start = index * chain::<L, V>();
        let z = &self.z[start..start + chain::<L, V>()];
        let exponentials = &mut self.exponentials[start..start + chain::<L, V>()];
        let soft = self.soft.range(start, chain::<L, V>());
        let exp = self.constants.vectors::<LanesOf<L, V>>();
        let mut chain_sums = ChainSums::<L::Real, LanesOf<L, V>>::new();
        whole_pairs::<L, V, GENERAL>(&exp, self.max, z, &soft, exponentials, &mut chain_sums, Some((prefetch, start)));
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
    let mut sums = ChainSums::<L::Real, LanesOf<L, V>>::new();
    whole_pairs::<L, V, GENERAL>(exp, max, z, soft, exponentials, &mut sums, None);
    let max = LanesOf::<L, V>::splat(max);
    let last = z.chunks_exact(2 * width).remainder();
    let mut at = z.len() - last.len();
    for (z, exponentials) in last.chunks(width).zip(exponentials[at..].chunks_exact_mut(width)) {
        let (x, whole) = (load_padded::<L, V>(z).sub(max), z.len() == width);
        // Lanes past the row's end add 0.
        let x = if whole { x } else { x.keep(z.len(), zero) };
        let [e] = exp.nonpositive([x]);
        let e = if whole { e } else { e.keep(z.len(), zero) };
        e.store(exponentials);
        sums.add(e, soft.lanes::<V, GENERAL>(at, z.len()), x);
        at += width;
    }
    sums
}

/// The exponentials of all whole pairs of vectors, and their terms to `sums`. `prefetch` is what to prefetch meanwhile, and the first class.
#[inline(always)]
fn whole_pairs<L: Storage, V: Vectors, const GENERAL: bool>(
    exp: &Exp<LanesOf<L, V>>,
    max: L::Real,
    z: &[L],
    soft: &SoftLabel<'_, L::Real>,
    exponentials: &mut [L::Real],
    sums: &mut ChainSums<L::Real, LanesOf<L, V>>,
    prefetch: Option<(&Prefetch<L>, usize)>,
) {
    let (width, max) = (LanesOf::<L, V>::WIDTH, LanesOf::<L, V>::splat(max));
    let issue = |at: usize| {
        if let Some((prefetch, start)) = prefetch {
            prefetch.issue(start + at, width);
            prefetch.issue(start + at + width, width);
        }
    };
    let mut at = 0;
    if V::MANY_REGISTERS {
        let pairs = z.chunks_exact(2 * width).zip(exponentials.chunks_exact_mut(2 * width)).zip(soft.first.chunks_exact(2 * width));
        for ((z, exponentials), q) in pairs {
            let x = below::<L, V>(z, max);
            let e = exp_pair::<L, V>(exp, x, exponentials);
            add_pair::<L, V, GENERAL>(e, x, q, soft, at, sums);
            issue(at);
            at += 2 * width;
        }
        return;
    }
    // Exponentials and sums in loops of their own: each then has its constants and accumulators in registers. An index is 4 % faster than an
    // iterator here (AVX2, 1000 classes).
    while at < z.len() / (2 * width) * (2 * width) {
        exp_pair::<L, V>(exp, below::<L, V>(&z[at..at + 2 * width], max), &mut exponentials[at..at + 2 * width]);
        issue(at);
        at += 2 * width;
    }
    let pairs = z.chunks_exact(2 * width).zip(exponentials.chunks_exact(2 * width)).zip(soft.first.chunks_exact(2 * width));
    at = 0;
    for ((z, e), q) in pairs {
        let x = below::<L, V>(z, max);
        let e = [LanesOf::<L, V>::load(&e[..width]), LanesOf::<L, V>::load(&e[width..])];
        add_pair::<L, V, GENERAL>(e, x, q, soft, at, sums);
        at += 2 * width;
    }
}

/// `z - max` of two vectors.
#[inline(always)]
fn below<L: Storage, V: Vectors>(z: &[L], max: LanesOf<L, V>) -> [LanesOf<L, V>; 2] {
    let width = LanesOf::<L, V>::WIDTH;
    [L::load::<V>(&z[..width]).sub(max), L::load::<V>(&z[width..]).sub(max)]
}

/// Stores the exponentials of two vectors, and gives them.
#[inline(always)]
fn exp_pair<L: Storage, V: Vectors>(exp: &Exp<LanesOf<L, V>>, x: [LanesOf<L, V>; 2], to: &mut [L::Real]) -> [LanesOf<L, V>; 2] {
    let width = LanesOf::<L, V>::WIDTH;
    let e = exp.nonpositive(x);
    e[0].store(&mut to[..width]);
    e[1].store(&mut to[width..]);
    e
}

/// Adds the terms of two vectors from class `at` on: of their exponentials `e`, of the logits less the maximum `x`, and of the soft labels `q`.
#[inline(always)]
fn add_pair<L: Storage, V: Vectors, const GENERAL: bool>(
    e: [LanesOf<L, V>; 2],
    x: [LanesOf<L, V>; 2],
    q: &[f32],
    soft: &SoftLabel<'_, L::Real>,
    at: usize,
    sums: &mut ChainSums<L::Real, LanesOf<L, V>>,
) {
    let width = LanesOf::<L, V>::WIDTH;
    let q = [soft.whole_lanes::<V, GENERAL>(&q[..width], at), soft.whole_lanes::<V, GENERAL>(&q[width..], at + width)];
    sums.add_two(e, q, x);
}
