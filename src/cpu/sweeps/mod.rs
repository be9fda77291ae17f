//! The three sweeps over a row whose classes lie side by side: the maximum; the exponentials and their sums; the gradient and the statistics.
//!
//! Lanes are classes. Each sweep advances by one chain of vectors at a time ([`sums`](super::sums) defines the order of summation), so that
//! the sweeps of different rows can be interleaved. The row stays in the cache between its sweeps.

mod exp;
mod gradient;
mod max;

pub(super) use self::exp::{ExpSweep, Prefetch, short_chain};
pub(super) use self::gradient::{GradientScales, GradientSweep, add_probabilities, gradient_entries, target_entry};
pub(super) use self::max::{MaxSweep, last_vector, occurs_before};
use super::lanes::{Lanes, Vectors};
use super::storage::{LanesOf, Storage};
use super::sums::CHAIN;

/// The number of classes in a chain.
#[inline(always)]
pub(super) fn chain<L: Storage, V: Vectors>() -> usize {
    CHAIN * LanesOf::<L, V>::WIDTH
}

#[cfg(test)]
mod tests {
    use super::super::exp::Exp;
    use super::super::labels::{LANES, Labels};
    use super::super::lanes::{Portable, Real};
    use super::super::soft_label::SoftLabel;
    use super::super::softmax::Softmaxes;
    use super::*;

    /// ImageNet-21k.
    const CLASSES: usize = 21_841;

    /// The errors of loss and largest gradient entry for one row: f64 and compensated sums are the truth.
    fn errors<R: Storage<Real = R> + Real>(z: &[f64], alpha: f64, target: usize) -> (f64, f64) {
        let row: Vec<R> = z.iter().map(|&z| R::from_f64(z)).collect();
        let soft_label: Vec<f32> = (0..CLASSES).map(|k| if k == target { 0.9 } else { 0.1 / (CLASSES - 1) as f32 }).collect();
        let (zero, scale) = (R::from_f64(0.0), 1.0 - alpha);
        let soft = SoftLabel::of_row(&soft_label, scale);
        let labels = Labels {
            count: 1,
            active: 1,
            mixed: false,
            classes: [[target; LANES]; 2],
            lams: [[1.0; LANES], [0.0; LANES]],
            hard: [[alpha; LANES], [0.0; LANES]],
            dominant: [target; LANES],
            weights: [1.0; LANES],
            grad_scales: [1.0; LANES],
        };
        let mut exponentials = vec![zero; CLASSES.next_multiple_of(64)];
        let chains = CLASSES / chain::<R, Portable>();
        let start = chains * chain::<R, Portable>();
        let mut first = MaxSweep::<R, Portable>::new(&row, target);
        (0..chains).for_each(|index| first.chain(index));
        first.rest(start);
        let (max, _) = first.finish().expect("the row is finite");
        let prefetch =
            Prefetch { grad: row.as_ptr(), sums: row.as_ptr().cast(), next_logits: row.as_ptr(), next_soft: soft_label.as_ptr() };
        let mut second = ExpSweep::<R, Portable, false>::new(&row, soft, max, &mut exponentials, Exp::constants());
        (0..chains).for_each(|index| second.chain(index, &prefetch));
        second.rest(start);
        let mut softmaxes = Softmaxes::new();
        [softmaxes.exp_sum[0], softmaxes.soft_sum[0], softmaxes.soft_dot[0]] = second.finish();
        (softmaxes.max[0], softmaxes.target_logits[0][0]) = (max.to_f64(), row[target].to_f64());
        assert_eq!(softmaxes.finish::<R>(0..1, &labels, scale, |_, _| unreachable!("no class is masked")), 1);
        let scales = GradientScales {
            p_scale: softmaxes.p_scale[0],
            inverse_sum: softmaxes.inverse_sum[0],
            grad_scale: 1.0,
            unit: R::UNITS.to_f64(),
        };
        let mut grad = vec![zero; CLASSES];
        let mut last = GradientSweep::<R, Portable, false>::new(&exponentials, soft, Some(&mut grad), None, scales);
        (0..chains).for_each(|index| last.chain(index));
        last.rest(start);
        last.target(target, alpha);

        let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum = neumaier(z.iter().map(|z| (z - max).exp()));
        let q = |k: usize| (1.0 - alpha) * f64::from(soft_label[k]) + if k == target { alpha } else { 0.0 };
        let q_sum = neumaier((0..CLASSES).map(q));
        let loss = neumaier((0..CLASSES).map(|k| q(k) * (sum.ln() - (z[k] - max))));
        let worst = (0..CLASSES).map(|k| (grad[k].to_f64() - (q_sum * (z[k] - max).exp() / sum - q(k))).abs()).fold(0.0, f64::max);
        ((softmaxes.loss[0] - loss).abs() / loss.max(1.0), worst)
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
