//! One row: logits in, loss and gradient out, its distribution ready for the statistics. The algorithm, once, for every type and level.
//!
//! Three sweeps over a row that lies in the cache: the maximum; the exponentials with three sums; the gradient and the statistics.
//! The order of every sum is fixed by the number of classes alone. A row sum is kept in f32 for [`CHAIN`] vectors at the most and then added
//! to one f64 per lane, because 20,000 equal terms beside one large one would be lost in f32.

use super::exp::ln_f64;
use super::lanes::{Lanes, Real, Vectors};
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
    /// What `weights` are still to be multiplied by: a power of two, so that no weight is too small or too large for the row's type.
    pub weight_scale: f64,
}

impl<R: Real> SoftLabel<'_, R> {
    /// `q / first_scale` of the classes from `start` on where `GENERAL` is false (S itself), else q: a whole vector, or what there is at the end.
    #[inline(always)]
    fn lanes<V: Vectors, const GENERAL: bool>(&self, start: usize, length: usize) -> R::Lanes<V> {
        let first = part_f32::<R, V>(&self.first[start..start + length]);
        if !GENERAL {
            return first;
        }
        let first = first.mul(Lanes::splat(self.first_scale));
        let soft = part_f32::<R, V>(&self.second[start..start + length]).mul_add(Lanes::splat(self.second_scale), first);
        if self.weights.is_empty() { soft } else { soft.mul(part::<R, V>(&self.weights[start..start + length], R::from_f64(0.0))) }
    }

    /// What `lanes` is still to be multiplied by.
    #[inline(always)]
    fn scale<const GENERAL: bool>(&self) -> f64 {
        if GENERAL { self.weight_scale } else { self.first_scale.to_f64() }
    }

    /// q of one class, from the same numbers.
    #[inline(always)]
    fn class(&self, class: usize) -> f64 {
        let of = |row: &[f32], scale: R| f64::from(row[class]) * scale.to_f64();
        let weight = if self.weights.is_empty() { 1.0 } else { self.weights[class].to_f64() * self.weight_scale };
        (of(self.first, self.first_scale) + of(self.second, self.second_scale)) * weight
    }
}

/// A whole vector, or what there is of it and `fill`.
#[inline(always)]
fn part<R: Real, V: Vectors>(from: &[R], fill: R) -> R::Lanes<V> {
    if from.len() == R::Lanes::<V>::WIDTH { Lanes::load(from) } else { Lanes::load_part(from, fill) }
}

/// As [`part`] with 0, widened from f32.
#[inline(always)]
fn part_f32<R: Real, V: Vectors>(from: &[f32]) -> R::Lanes<V> {
    if from.len() == R::Lanes::<V>::WIDTH { Lanes::load_f32(from) } else { Lanes::load_f32_part(from) }
}

/// Runs `$body` for each vector of a row: `$length` is the number of classes in it from `$start` on, less than a vector's at most once, at the
/// end. A macro, because a closure would be compiled for the target's lowest level and called.
macro_rules! for_vectors {
    ($lanes:ty, $classes:expr, |$start:ident, $length:ident| $body:block) => {{
        let (classes, width) = ($classes, <$lanes>::WIDTH);
        let whole = classes - classes % width;
        let mut position = 0;
        while position < whole {
            let ($start, $length) = (position, width);
            $body
            position += width;
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
pub(super) fn softmax<R: Real, V: Vectors, const GENERAL: bool>(
    z: &[R],
    soft: &SoftLabel<'_, R>,
    exponentials: &mut [R],
) -> Option<Softmax<R>> {
    let classes = z.len();
    let max = row_max::<R, V>(z);
    if !max.is_finite() {
        return None;
    }
    let all_max = R::Lanes::<V>::splat(max);
    let zero = R::Lanes::<V>::splat(R::from_f64(0.0));
    let nothing = R::Lanes::<V>::wide_zero();
    let (mut sum, mut mass, mut distance) = (nothing, nothing, nothing);
    let chain = CHAIN * R::Lanes::<V>::WIDTH;
    let mut begin = 0;
    while begin < classes {
        // Two sums in turns halve what a large term among small ones loses.
        let (mut chain_sum, mut other_sum, mut chain_mass, mut other_mass, mut chain_distance) = (zero, zero, zero, zero, zero);
        for_vectors!(R::Lanes<V>, chain.min(classes - begin), |offset, length| {
            let start = begin + offset;
            // Lanes behind the row's end hold -inf, whose exponential is 0; their q is 0 as well.
            let vector = part::<R, V>(&z[start..start + length], R::LOWEST);
            let e = R::exp_nonpositive(vector.sub(all_max));
            e.store(&mut exponentials[start..]);
            (chain_sum, other_sum) = (other_sum, chain_sum.add(e));
            let q = soft.lanes::<V, GENERAL>(start, length);
            (chain_mass, other_mass) = (other_mass, chain_mass.add(q));
            let vector = if length == R::Lanes::<V>::WIDTH { vector } else { part::<R, V>(&z[start..start + length], max) };
            chain_distance = q.mul_add(all_max.sub(vector), chain_distance);
        });
        sum = chain_sum.add(other_sum).wide_add(sum);
        mass = chain_mass.add(other_mass).wide_add(mass);
        distance = chain_distance.wide_add(distance);
        begin += chain;
    }
    let sum = R::Lanes::<V>::wide_sum(sum);
    if sum.is_nan() {
        return None;
    }
    let scale = soft.scale::<GENERAL>();
    let mut distance = R::Lanes::<V>::wide_sum(distance) * scale;
    if !distance.is_finite() {
        distance = distance_with_masked(z, max, soft);
    }
    let mass = R::Lanes::<V>::wide_sum(mass) * scale;
    Some(Softmax { max, inverse: R::from_f64(1.0 / sum), log_sum: ln_f64(sum), mass, distance })
}

#[inline(always)]
fn row_max<R: Real, V: Vectors>(z: &[R]) -> R {
    let width = R::Lanes::<V>::WIDTH;
    let lowest = R::Lanes::<V>::splat(R::LOWEST);
    let (mut a, mut b, mut c, mut d) = (lowest, lowest, lowest, lowest);
    let mut quads = z.chunks_exact(4 * width);
    for quad in &mut quads {
        a = a.max(Lanes::load(quad));
        b = b.max(Lanes::load(&quad[width..]));
        c = c.max(Lanes::load(&quad[2 * width..]));
        d = d.max(Lanes::load(&quad[3 * width..]));
    }
    for z in quads.remainder().chunks(width) {
        a = a.max(part::<R, V>(z, R::LOWEST));
    }
    a.max(b).max(c.max(d)).reduce_max()
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
fn distance_with_masked<R: Real>(z: &[R], max: R, soft: &SoftLabel<'_, R>) -> f64 {
    z.iter().enumerate().map(|(class, z)| term(soft.class(class), max.to_f64(), z.to_f64())).sum()
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
    pub factor: f64,
    /// K entries to write, where the gradient is wanted.
    pub grad: Option<&'a mut [R]>,
}

/// The third sweep: `grad = factor * (Q*p - q)`, and p to `sums`, which are subtracted from where `negate` says so.
#[inline(always)]
pub(super) fn gradient<R: Real, V: Vectors, const GENERAL: bool>(
    exponentials: &[R],
    soft: &SoftLabel<'_, R>,
    gradient: Gradient<'_, R>,
    sums: Option<&mut [i64]>,
    negate: bool,
) {
    let Gradient { softmax, hard, factor, grad } = gradient;
    if let Some(grad) = grad {
        // Both factors are formed once, so that an entry costs a product and a fused product.
        let q_sum = softmax.mass + hard.mass();
        let to_p = R::Lanes::<V>::splat(R::from_f64(q_sum * softmax.inverse.to_f64() * factor));
        let to_q = R::Lanes::<V>::splat(R::from_f64(soft.scale::<GENERAL>() * factor));
        for_vectors!(R::Lanes<V>, grad.len(), |start, length| {
            let e = R::Lanes::<V>::load(&exponentials[start..]);
            let g = e.mul_sub(to_p, soft.lanes::<V, GENERAL>(start, length).mul(to_q));
            if length == R::Lanes::<V>::WIDTH { g.store(&mut grad[start..]) } else { g.store_part(&mut grad[start..start + length]) }
        });
        // The targets' entries again, with the hard label: the differences in f64, rounded once.
        for (&class, &weight) in hard.classes.iter().zip(&hard.weights) {
            if weight != 0.0 {
                let p = exponentials[class].to_f64() * softmax.inverse.to_f64();
                grad[class] = R::from_f64((q_sum * p - soft.class(class) - weight) * factor);
            }
        }
    }
    if let Some(sums) = sums {
        // A power of two: p is rounded as it would be without it.
        let to_units = R::Lanes::<V>::splat(softmax.inverse.mul(R::ONE));
        for_vectors!(R::Lanes<V>, sums.len(), |start, length| {
            let units = R::Lanes::<V>::load(&exponentials[start..]).mul(to_units);
            let sums = &mut sums[start..start + length];
            if negate {
                units.sub_fixed(sums);
            } else if length == R::Lanes::<V>::WIDTH {
                units.add_fixed(sums);
            } else {
                units.add_fixed_part(sums);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::lanes::Portable;
    use super::*;

    /// ImageNet-21k.
    const CLASSES: usize = 21_841;

    /// The errors of loss and largest gradient entry for one row: f64 and compensated sums are the truth.
    fn errors<R: Real>(z: &[f64], alpha: f64, target: usize) -> (f64, f64) {
        let row: Vec<R> = z.iter().map(|&z| R::from_f64(z)).collect();
        let soft_label: Vec<f32> = (0..CLASSES).map(|k| if k == target { 0.9 } else { 0.1 / (CLASSES - 1) as f32 }).collect();
        let scale = R::from_f64(1.0 - alpha);
        let zero = R::from_f64(0.0);
        let soft =
            SoftLabel { first: &soft_label, first_scale: scale, second: &soft_label, second_scale: zero, weights: &[], weight_scale: 1.0 };
        let hard = Hard { classes: [target; 2], weights: [alpha, 0.0] };
        let mut exponentials = vec![zero; CLASSES.next_multiple_of(64)];
        let found = softmax::<R, Portable, false>(&row, &soft, &mut exponentials).expect("the row is finite");
        let mut grad = vec![zero; CLASSES];
        let what = Gradient { softmax: found, hard, factor: 1.0, grad: Some(&mut grad) };
        gradient::<R, Portable, false>(&exponentials, &soft, what, None, false);

        let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum = neumaier(z.iter().map(|z| (z - max).exp()));
        let q = |k: usize| (1.0 - alpha) * f64::from(soft_label[k]) + if k == target { alpha } else { 0.0 };
        let q_sum = neumaier((0..CLASSES).map(q));
        let loss = neumaier((0..CLASSES).map(|k| q(k) * (sum.ln() - (z[k] - max))));
        let worst = (0..CLASSES).map(|k| (grad[k].to_f64() - (q_sum * (z[k] - max).exp() / sum - q(k))).abs()).fold(0.0, f64::max);
        ((found.loss(&row, &hard) - loss).abs() / loss.max(1.0), worst)
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
