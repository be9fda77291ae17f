//! Rows of so few classes that each fits a vector, with one target a sample and no class weights: [`few`](super::few), for the smallest rows, where every
//! instruction counts. Bit for bit the same.
#![allow(unsafe_code, reason = "rows are read and written through groups of the caller's addresses")]

use super::adder::Adder;
use super::block::{LineKernel, LineTask};
use super::exp::Exp;
use super::finish::finish_rows;
use super::labels::{LANES, equal_lanes, lanes};
use super::lanes::{Lanes, Vectors};
use super::row::{SoftLabel, distance_with_masked, part, part_f32, store_part, target_entry};
use super::storage::Arithmetic;

/// The kernel, for no more classes than a vector has lanes.
pub(super) struct Single;

impl<R: Arithmetic> LineKernel<R> for Single {
    #[inline(always)]
    unsafe fn run_lines<V: Vectors>(task: LineTask<'_, '_, R>, adder: &mut Adder<'_>, losses: &mut [f64]) {
        let LineTask { pass, logits, grad, labels, found, scratch } = task;
        let (width, classes, count) = (R::Lanes::<V>::WIDTH, logits.classes, losses.len());
        let zero = R::Lanes::<V>::splat(R::default());
        let lowest = R::Lanes::<V>::splat(R::MINUS_INFINITY);
        let exponentials = &mut scratch.exponentials[..LANES * width];
        let scale = 1.0 - pass.alpha;
        let (mut maxima, mut own) = ([R::default(); LANES], [R::default(); LANES]);
        for lane in 0..count {
            // SAFETY: the caller's promise.
            let z = unsafe { logits.row(lane) };
            maxima[lane] = part::<R, V>(z).keep(classes, lowest).reduce_max();
            own[lane] = z[labels.own[lane]];
        }
        let mut right = equal_lanes::<R, V>(&own, &maxima);
        for lane in 0..LANES {
            (found.max[lane], found.target_logits[0][lane]) = (maxima[lane].to_f64(), own[lane].to_f64());
        }

        let exp = Exp::<R>::constants().vectors::<R::Lanes<V>>();
        let (mut own_e, mut own_q) = ([R::default(); LANES], [0f32; LANES]);
        for (lane, e_row) in exponentials.chunks_exact_mut(width).enumerate().take(count) {
            // SAFETY: the caller's promise.
            let z = unsafe { logits.row(lane) };
            let soft = pass.soft_labels.row(labels.own[lane]);
            // Lanes behind the row's end add nothing.
            let x = part::<R, V>(z).sub(R::Lanes::<V>::splat(maxima[lane])).keep(classes, zero);
            let e = exp.nonpositive([x])[0].keep(classes, zero);
            e.store(e_row);
            let q = part_f32::<R, V>(soft);
            let sum = |lanes: R::Lanes<V>| R::Lanes::<V>::wide_sum(lanes.wide_add(R::Lanes::<V>::wide_zero()));
            (found.sum[lane], found.mass[lane], found.distance[lane]) = (sum(e), sum(q), sum(q.mul(x)));
            (own_e[lane], own_q[lane]) = (e_row[labels.own[lane]], soft[labels.own[lane]]);
        }
        let finite = found.finish::<R>(0..LANES, labels, scale, |lane, max| {
            let row = pass.soft_labels.row(labels.own[lane]);
            let (one, none) = (R::from_f64(1.0), R::from_f64(0.0));
            let soft = SoftLabel { first: row, first_scale: one, second: row, second_scale: none, weights: &[], scale };
            // SAFETY: the caller's promise; gradients are not written yet.
            let z = unsafe { logits.row(lane) };
            distance_with_masked(&soft, max, |class| z[class].to_f64())
        });
        right &= finite;

        let unit = adder.unit::<R>();
        for lane in lanes(right) {
            // SAFETY: the caller's promise; gradients are not written yet.
            let z = unsafe { logits.row(lane) };
            let before = part::<R, V>(z).equal(R::Lanes::<V>::splat(maxima[lane])) & ((1 << labels.own[lane]) - 1);
            if before != 0 {
                continue;
            }
            let Some(row) = adder.row(labels.own[lane]) else { continue };
            let to_units = R::Lanes::<V>::splat(R::from_f64(found.inverse[lane] * unit));
            let units = R::Lanes::<V>::load(&exponentials[lane * width..(lane + 1) * width]).mul(to_units);
            // A thread's own sums have whole vectors.
            if row.sums.len() >= width { units.add_fixed(row.sums) } else { units.add_fixed_part(row.sums) }
        }
        if let Some(grad) = grad {
            let mut factors = [[R::default(); LANES]; 3];
            for lane in 0..LANES {
                let factor = labels.factors[lane];
                let q = f64::from(own_q[lane]) * scale + labels.hard[0][lane];
                factors[0][lane] = R::from_f64(found.p_scale[lane] * factor);
                factors[1][lane] = R::from_f64(scale * factor);
                factors[2][lane] = target_entry(own_e[lane].to_f64(), q, found.p_scale[lane], factor);
            }
            for lane in 0..count {
                // SAFETY: the caller's promise; the logits are not needed any more.
                let to = unsafe { grad.row_mut(lane) };
                let [to_p, to_q] = [factors[0][lane], factors[1][lane]].map(R::Lanes::<V>::splat);
                let q = part_f32::<R, V>(pass.soft_labels.row(labels.own[lane]));
                let entries = R::Lanes::<V>::load(&exponentials[lane * width..(lane + 1) * width]).mul_sub(to_p, q.mul(to_q));
                store_part::<R, V>(entries, to);
                if labels.hard[0][lane] != 0.0 {
                    to[labels.own[lane]] = factors[2][lane];
                }
            }
        }
        // SAFETY: the caller promises exclusive access to the gradients' rows.
        unsafe { finish_rows(pass, grad.as_ref(), labels, adder, found, finite, losses) };
    }
}
