//! Rows of so few classes that each fits a vector, with one target a sample and no class weights: [`few`](super::few), for the smallest rows, where every
//! instruction counts. Bit for bit the same.
#![allow(unsafe_code, reason = "rows are read and written through groups of the caller's addresses")]

use super::adder::Adder;
use super::block::LineKernel;
use super::exp::Exp;
use super::labels::{LANES, Labels, lanes};
use super::lanes::{Lanes, Real, Vectors};
use super::memory::Lines;
use super::pass::Pass;
use super::row::{SoftLabel, distance_with_masked, part, part_f32, store_part, target_entry};
use super::scratch::RealScratch;
use super::softmax::Softmaxes;
use super::storage::{LanesOf, Storage};

/// The kernel, for no more classes than a vector has lanes.
pub(super) struct Single;

impl<L: Storage> LineKernel<L> for Single {
    #[inline(always)]
    unsafe fn run_lines<V: Vectors>(
        pass: &Pass<'_>,
        logits: &Lines<L>,
        grad: Option<&Lines<L>>,
        labels: &Labels,
        found: &mut Softmaxes,
        scratch: &mut RealScratch<L::Real>,
        adder: &mut Adder<'_>,
        losses: &mut [f64],
    ) {
        let (width, classes, count) = (LanesOf::<L, V>::WIDTH, logits.classes, losses.len());
        let zero = LanesOf::<L, V>::splat(L::Real::default());
        let lowest = LanesOf::<L, V>::splat(L::Real::MINUS_INFINITY);
        let exponentials = &mut scratch.exponentials[..LANES * width];
        let scale = 1.0 - pass.alpha;
        let (mut maxima, mut own) = ([L::Real::default(); LANES], [L::Real::default(); LANES]);
        for lane in 0..count {
            // SAFETY: the caller's promise.
            let z = unsafe { logits.row(lane) };
            maxima[lane] = part::<L, V>(z).keep(classes, lowest).reduce_max();
            own[lane] = z[labels.own[lane]].widen();
        }
        let mut right = 0u32;
        for lane in 0..LANES {
            right |= u32::from(own[lane] == maxima[lane]) << lane;
            (found.max[lane], found.target_logits[0][lane]) = (maxima[lane].to_f64(), own[lane].to_f64());
        }

        let exp = Exp::<LanesOf<L, V>>::new();
        let (mut own_e, mut own_q) = ([L::Real::default(); LANES], [0f32; LANES]);
        for (lane, e_row) in exponentials.chunks_exact_mut(width).enumerate().take(count) {
            // SAFETY: the caller's promise.
            let z = unsafe { logits.row(lane) };
            let soft = pass.soft_labels.row(labels.own[lane]);
            // Lanes behind the row's end add nothing.
            let x = part::<L, V>(z).sub(LanesOf::<L, V>::splat(maxima[lane])).keep(classes, zero);
            let e = exp.nonpositive([x])[0].keep(classes, zero);
            e.store(e_row);
            let q = part_f32::<L::Real, V>(soft);
            let sum = |lanes: LanesOf<L, V>| LanesOf::<L, V>::wide_sum(lanes.wide_add(LanesOf::<L, V>::wide_zero()));
            (found.sum[lane], found.mass[lane], found.distance[lane]) = (sum(e), sum(q), sum(q.mul(x)));
            (own_e[lane], own_q[lane]) = (e_row[labels.own[lane]], soft[labels.own[lane]]);
        }
        let finite = found.finish::<L::Real>(0..LANES, labels, scale, |lane, max| {
            let row = pass.soft_labels.row(labels.own[lane]);
            let (one, none) = (L::Real::from_f64(1.0), L::Real::from_f64(0.0));
            let soft = SoftLabel { first: row, first_scale: one, second: row, second_scale: none, weights: &[], scale };
            // SAFETY: the caller's promise; gradients are not written yet.
            let z = unsafe { logits.row(lane) };
            distance_with_masked(&soft, max, |class| z[class].widen().to_f64())
        });
        right &= finite;

        let negate = adder.negates();
        let units = if negate { -L::Real::UNITS.to_f64() } else { L::Real::UNITS.to_f64() };
        for lane in lanes(right) {
            // SAFETY: the caller's promise; gradients are not written yet.
            let z = unsafe { logits.row(lane) };
            let before = part::<L, V>(z).equal(LanesOf::<L, V>::splat(maxima[lane])) & ((1 << labels.own[lane]) - 1);
            if before != 0 {
                continue;
            }
            let Some(row) = adder.row(labels.own[lane]) else { continue };
            let to_units = LanesOf::<L, V>::splat(L::Real::from_f64(found.inverse[lane] * units));
            let units = LanesOf::<L, V>::load(&exponentials[lane * width..(lane + 1) * width]).mul(to_units);
            // A thread's own sums have whole vectors.
            if row.sums.len() >= width { units.add_fixed(row.sums) } else { units.add_fixed_part(row.sums) }
        }
        if let Some(grad) = grad {
            let mut factors = [[L::Real::default(); LANES]; 3];
            for lane in 0..LANES {
                let factor = labels.factors[lane];
                let q = f64::from(own_q[lane]) * scale + labels.hard[0][lane];
                factors[0][lane] = L::Real::from_f64(found.p_scale[lane] * factor);
                factors[1][lane] = L::Real::from_f64(scale * factor);
                factors[2][lane] = target_entry(own_e[lane].to_f64(), q, found.p_scale[lane], factor);
            }
            for lane in 0..count {
                // SAFETY: the caller's promise; the logits are not needed any more.
                let to = unsafe { grad.row_mut(lane) };
                let [to_p, to_q] = [factors[0][lane], factors[1][lane]].map(LanesOf::<L, V>::splat);
                let q = part_f32::<L::Real, V>(pass.soft_labels.row(labels.own[lane]));
                let entries = LanesOf::<L, V>::load(&exponentials[lane * width..(lane + 1) * width]).mul_sub(to_p, q.mul(to_q));
                store_part::<L, V>(entries, to);
                if labels.hard[0][lane] != 0.0 {
                    to[labels.own[lane]] = L::narrow(factors[2][lane]);
                }
            }
        }
        super::few::finish(pass, grad, labels, adder, found, finite, losses);
    }
}
