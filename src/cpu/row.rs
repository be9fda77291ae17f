//! One row: logits in, loss and gradient out, its distribution ready for the statistics. The algorithm, once, for every type and level.
//!
//! Three sweeps over a row that lies in the cache: the maximum; the exponentials with three sums; the gradient and the statistics.
//! The order of every sum is fixed by the number of classes alone. A row sum is kept in f32 for [`CHAIN`] vectors at the most and then added
//! to one f64 per lane, because 20,000 equal terms beside one large one would be lost in f32.

use super::exp::ln_f64;
use super::lanes::{Lanes, Real};
use crate::samples::Sample;

/// Vectors whose terms are added up in the row's own type before they go to the wide sums.
const CHAIN: usize = 8;

/// The soft part of q for one row: `w[k] * (first_scale * S[y,k] + second_scale * S[y2,k])`.
pub(super) struct SoftLabel<'a, R> {
    pub first: &'a [f32],
    pub first_scale: R,
    /// The second target's row and its scale, and the class weights; where there are none, `GENERAL` is false.
    pub second: &'a [f32],
    pub second_scale: R,
    pub weights: &'a [R],
}

impl<R: Real> SoftLabel<'_, R> {
    /// q of the classes from `start` on: a whole vector, or `length` classes at the row's end.
    #[inline(always)]
    fn lanes<const GENERAL: bool>(&self, start: usize, length: usize) -> R::Lanes {
        let soft = part_f32::<R>(&self.first[start..start + length]).mul(R::Lanes::splat(self.first_scale));
        if !GENERAL {
            return soft;
        }
        let soft = part_f32::<R>(&self.second[start..start + length]).mul_add(R::Lanes::splat(self.second_scale), soft);
        if self.weights.is_empty() { soft } else { soft.mul(part(&self.weights[start..start + length], R::from_f64(0.0))) }
    }

    /// q of one class, with the same operations.
    #[inline(always)]
    fn class<const GENERAL: bool>(&self, class: usize) -> R {
        let soft = R::from_f64(f64::from(self.first[class])).mul(self.first_scale);
        if !GENERAL {
            return soft;
        }
        let soft = R::from_f64(f64::from(self.second[class])).mul_add(self.second_scale, soft);
        if self.weights.is_empty() { soft } else { soft.mul(self.weights[class]) }
    }
}

/// A whole vector, or what there is of it and `fill`.
#[inline(always)]
fn part<R: Real>(from: &[R], fill: R) -> R::Lanes {
    if from.len() == R::Lanes::WIDTH { R::Lanes::load(from) } else { R::Lanes::load_part(from, fill) }
}

/// As [`part`] with 0, widened from f32.
#[inline(always)]
fn part_f32<R: Real>(from: &[f32]) -> R::Lanes {
    if from.len() == R::Lanes::WIDTH { R::Lanes::load_f32(from) } else { R::Lanes::load_f32_part(from) }
}

/// Runs `$body` for each vector of a row: `$length` is the number of classes in it from `$start` on, less than a vector's at most once, at the
/// end. A macro, because a closure would be compiled for the target's lowest level and called.
macro_rules! for_vectors {
    ($real:ty, $classes:expr, |$start:ident, $length:ident| $body:block) => {{
        let (classes, width) = ($classes, <$real as Real>::Lanes::WIDTH);
        let whole = classes - classes % width;
        for $start in (0..whole).step_by(width) {
            let $length = width;
            $body
        }
        if whole < classes {
            let ($start, $length) = (whole, classes - whole);
            $body
        }
    }};
}

/// What the first two sweeps find.
#[derive(Clone, Copy)]
pub(super) struct Softmax<R> {
    max: R,
    /// `1 / sum exp(z - max)`.
    inverse: R,
    /// `ln sum exp(z - max)`.
    log_sum: f64,
    /// `sum q`, the soft part.
    mass: f64,
    /// `sum q * (max - z)`, the soft part.
    distance: f64,
}

/// The hard part of q: at most two classes.
#[derive(Clone, Copy)]
pub(super) struct Hard {
    pub classes: [usize; 2],
    pub weights: [f64; 2],
}

impl Hard {
    /// `alpha * w[y]` on each target's class; on one class together where both are the same.
    pub fn new(sample: &Sample, alpha: f64, weights: Option<&[f64]>) -> Self {
        let weight = |class: usize| alpha * weights.map_or(1.0, |w| w[class]);
        let (first, second) = (sample.first, sample.second);
        if first == second {
            return Self { classes: [first; 2], weights: [weight(first), 0.0] };
        }
        Self { classes: [first, second], weights: [sample.lam * weight(first), (1.0 - sample.lam) * weight(second)] }
    }

    fn mass(&self) -> f64 {
        self.weights[0] + self.weights[1]
    }
}

/// The maximum, the exponentials (left in `exponentials`, which is a whole number of vectors long) and their sums; `None` for a row with NaN,
/// with +inf, or of nothing but -inf.
#[inline(always)]
pub(super) fn softmax<R: Real, const GENERAL: bool>(z: &[R], soft: &SoftLabel<'_, R>, exponentials: &mut [R]) -> Option<Softmax<R>> {
    let classes = z.len();
    let max = row_max(z);
    if !max.is_finite() {
        return None;
    }
    let all_max = R::Lanes::splat(max);
    let zero = R::Lanes::splat(R::from_f64(0.0));
    let (mut sum, mut mass, mut distance) = (R::Lanes::wide_zero(), R::Lanes::wide_zero(), R::Lanes::wide_zero());
    let chain = CHAIN * R::Lanes::WIDTH;
    for begin in (0..classes).step_by(chain) {
        let (mut chain_sum, mut chain_mass, mut chain_distance) = (zero, zero, zero);
        for_vectors!(R, chain.min(classes - begin), |offset, length| {
            let start = begin + offset;
            // Lanes behind the row's end hold -inf, whose exponential is 0; their q is 0 as well.
            let vector = part(&z[start..start + length], R::LOWEST);
            let e = vector.sub(all_max).exp_nonpositive();
            e.store(&mut exponentials[start..]);
            chain_sum = chain_sum.add(e);
            let q = soft.lanes::<GENERAL>(start, length);
            chain_mass = chain_mass.add(q);
            let vector = if length == R::Lanes::WIDTH { vector } else { part(&z[start..start + length], max) };
            chain_distance = q.mul_add(all_max.sub(vector), chain_distance);
        });
        sum = chain_sum.wide_add(sum);
        mass = chain_mass.wide_add(mass);
        distance = chain_distance.wide_add(distance);
    }
    let sum = R::Lanes::wide_sum(sum);
    if sum.is_nan() {
        return None;
    }
    let mut distance = R::Lanes::wide_sum(distance);
    if !distance.is_finite() {
        distance = distance_with_masked::<R, GENERAL>(z, max, soft);
    }
    Some(Softmax { max, inverse: R::from_f64(1.0 / sum), log_sum: ln_f64(sum), mass: R::Lanes::wide_sum(mass), distance })
}

#[inline(always)]
fn row_max<R: Real>(z: &[R]) -> R {
    let width = R::Lanes::WIDTH;
    let mut max = [R::Lanes::splat(R::LOWEST); 4];
    let mut quads = z.chunks_exact(4 * width);
    for quad in &mut quads {
        for (max, z) in max.iter_mut().zip(quad.chunks_exact(width)) {
            *max = max.max(R::Lanes::load(z));
        }
    }
    for z in quads.remainder().chunks(width) {
        max[0] = max[0].max(part(z, R::LOWEST));
    }
    max[0].max(max[1]).max(max[2].max(max[3])).reduce_max()
}

/// `q * (max - z)`, where 0 times anything is 0.
fn term(q: f64, max: f64, z: f64) -> f64 {
    let distance = max - z;
    if q == 0.0 {
        0.0
    } else if distance.is_infinite() && z.is_finite() {
        q * max - q * z // the difference alone overflows
    } else {
        q * distance
    }
}

/// The sum of `q * (max - z)` for a row with masked classes (-inf) or with logits too far apart for its type.
#[cold]
#[inline(never)]
fn distance_with_masked<R: Real, const GENERAL: bool>(z: &[R], max: R, soft: &SoftLabel<'_, R>) -> f64 {
    z.iter().enumerate().map(|(class, z)| term(soft.class::<GENERAL>(class).to_f64(), max.to_f64(), z.to_f64())).sum()
}

impl<R: Real> Softmax<R> {
    /// The loss, before the sample weight: `-sum q * log p = Q * log_sum + sum q * (max - z)`.
    #[inline(always)]
    pub fn loss(&self, z: &[R], hard: &Hard) -> f64 {
        let mut loss = self.mass * self.log_sum + self.distance;
        for (&class, &weight) in hard.classes.iter().zip(&hard.weights) {
            loss += weight * self.log_sum + term(weight, self.max.to_f64(), z[class].to_f64());
        }
        loss
    }

    /// Whether the argmax of `z` is `class`, the first index winning a tie.
    #[inline(always)]
    pub fn is_right(&self, z: &[R], class: usize) -> bool {
        z[class] == self.max && !z[..class].contains(&self.max)
    }
}

/// What the third sweep makes of the exponentials.
pub(super) struct Gradient<'a, R> {
    pub softmax: Softmax<R>,
    pub hard: Hard,
    /// The reduction's factor times the incoming gradient and the sample weight.
    pub factor: R,
    /// K entries to write, where the gradient is wanted.
    pub grad: Option<&'a mut [R]>,
}

/// The third sweep: `grad = factor * (Q*p - q)`, and p to `sums`.
/// As with the vectors, everything here is inlined into the level's own function.
#[inline(always)]
pub(super) fn gradient<R: Real, const GENERAL: bool>(
    exponentials: &[R],
    soft: &SoftLabel<'_, R>,
    gradient: Gradient<'_, R>,
    sums: Option<(&mut [i64], bool)>,
) {
    let Gradient { softmax, hard, factor, grad } = gradient;
    let inverse = R::Lanes::splat(softmax.inverse);
    if let Some(grad) = grad {
        let q_sum = R::from_f64(softmax.mass + hard.mass());
        let (all_q_sum, all_factor, minus_one) = (R::Lanes::splat(q_sum), R::Lanes::splat(factor), R::Lanes::splat(R::from_f64(-1.0)));
        for_vectors!(R, grad.len(), |start, length| {
            let p = R::Lanes::load(&exponentials[start..]).mul(inverse);
            let q = soft.lanes::<GENERAL>(start, length);
            let g = all_q_sum.mul_add(p, q.mul(minus_one)).mul(all_factor);
            if length == R::Lanes::WIDTH { g.store(&mut grad[start..]) } else { g.store_part(&mut grad[start..start + length]) }
        });
        // The targets' entries again, with the hard label, from the same p.
        let p = |class: usize| exponentials[class].mul(softmax.inverse);
        for (&class, &weight) in hard.classes.iter().zip(&hard.weights) {
            if weight != 0.0 {
                let q = R::from_f64(soft.class::<GENERAL>(class).to_f64() + weight);
                grad[class] = q_sum.mul_add(p(class), R::from_f64(-q.to_f64())).mul(factor);
            }
        }
    }
    if let Some((sums, negate)) = sums {
        for_vectors!(R, sums.len(), |start, length| {
            R::Lanes::load(&exponentials[start..]).mul(inverse).add_fixed(&mut sums[start..start + length], negate);
        });
    }
}
