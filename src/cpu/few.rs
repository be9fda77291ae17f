//! Rows of few classes, 16 at a time: each step for all of them before the next, so that no row waits for what it found in
//! the step before, and divisions and logarithms are formed for all rows at once.
#![allow(unsafe_code, reason = "rows are read and written through groups of the caller's addresses")]

use super::adder::Adder;
use super::block::{LineKernel, LineTask};
use super::exp::Exp;
use super::finish::finish_rows;
use super::labels::{LANES, equal_lanes, lanes};
use super::lanes::{Lanes, Vectors};
use super::row::{SoftLabel, distance_with_masked, entries, last_or_lowest, short_chain, stands_before, target_entry, units};
use super::scratch::RealScratch;
use super::storage::Arithmetic;
use super::sums::WideSums;

/// The kernel, for no more classes than a chain has; with class weights or second targets where `GENERAL` says so.
pub(super) struct Few<const GENERAL: bool>;

impl<R: Arithmetic, const GENERAL: bool> LineKernel<R> for Few<GENERAL> {
    #[inline(always)]
    unsafe fn run_lines<V: Vectors>(task: LineTask<'_, '_, R>, adder: &mut Adder<'_>, losses: &mut [f64]) {
        let LineTask { pass, logits, grad, labels, found, scratch } = task;
        let (width, classes, count) = (R::Lanes::<V>::WIDTH, logits.classes, losses.len());
        let padded = classes.next_multiple_of(width);
        let RealScratch { exponentials, class_weights, .. } = scratch;
        let scale = (1.0 - pass.alpha) * class_weights.scale;
        let soft_label = |lane: usize| {
            let first = pass.soft_labels.row(labels.classes[0][lane]);
            let second = if GENERAL { pass.soft_labels.row(labels.classes[1][lane]) } else { first };
            let [first_scale, second_scale] = [0, 1].map(|target| R::from_f64(labels.lams[target][lane]));
            SoftLabel { first, first_scale, second, second_scale, weights: &class_weights.scaled, scale }
        };
        let mut maxima = [R::default(); LANES];
        let mut own_logits = [R::default(); LANES];
        for lane in 0..count {
            // SAFETY: the caller's promise.
            let z = unsafe { logits.row(lane) };
            let mut most = [R::Lanes::<V>::splat(R::MINUS_INFINITY); 2];
            for z in z.chunks_exact(width) {
                most = [most[1], most[0].max(R::Lanes::<V>::load(z))];
            }
            let most = most[0].max(most[1]).max(last_or_lowest::<R, V>(z));
            maxima[lane] = most.reduce_max();
            own_logits[lane] = z[labels.own[lane]];
            for target in 0..1 + usize::from(GENERAL) {
                found.target_logits[target][lane] = z[labels.classes[target][lane]].to_f64();
            }
        }

        let exp = Exp::<R>::constants().vectors::<R::Lanes<V>>();
        // What the gradient needs of the targets' entries.
        let mut of_targets = [[R::default(); LANES]; 2];
        for lane in 0..count {
            let exponentials = &mut exponentials[lane * padded..(lane + 1) * padded];
            // SAFETY: the caller's promise.
            let z = unsafe { logits.row(lane) };
            let sums = short_chain::<R, V, GENERAL>(&exp, maxima[lane], z, &soft_label(lane), exponentials);
            [found.sum[lane], found.mass[lane], found.distance[lane]] = WideSums::of(&sums).finish();
            for (of_target, classes) in of_targets.iter_mut().zip(&labels.classes).take(1 + usize::from(GENERAL)) {
                of_target[lane] = exponentials[classes[lane]];
            }
        }
        let mut right = equal_lanes::<R, V>(&own_logits, &maxima);
        for (wide, max) in found.max.iter_mut().zip(&maxima) {
            *wide = max.to_f64();
        }
        let finite = found.finish::<R>(0..LANES, labels, scale, |lane, max| {
            // SAFETY: the caller's promise; gradients are not written yet.
            let z = unsafe { logits.row(lane) };
            distance_with_masked(&soft_label(lane), max, |class| z[class].to_f64())
        });
        for lane in lanes(right & finite) {
            // SAFETY: as above.
            if stands_before::<R, V>(unsafe { logits.row(lane) }, labels.own[lane], maxima[lane]) {
                right &= !(1 << lane);
            }
        }

        let unit = adder.unit::<R>();
        if let Some(grad) = grad {
            let (mut to_p, mut to_q) = ([R::default(); LANES], [R::default(); LANES]);
            for lane in 0..LANES {
                to_p[lane] = R::from_f64(found.p_scale[lane] * labels.factors[lane]);
                to_q[lane] = R::from_f64(scale * labels.factors[lane]);
            }
            for lane in 0..count {
                let exponentials = &exponentials[lane * padded..(lane + 1) * padded];
                let (to_p, to_q) = (R::Lanes::<V>::splat(to_p[lane]), R::Lanes::<V>::splat(to_q[lane]));
                let soft = soft_label(lane);
                // SAFETY: the caller's promise; the row's logits are not needed any more.
                let grad = unsafe { grad.row_mut(lane) };
                entries::<R, V, GENERAL>(exponentials, &soft, to_p, to_q, grad);
                for (target, of_target) in of_targets.iter().enumerate().take(1 + usize::from(GENERAL)) {
                    let (class, weight) = (labels.classes[target][lane], labels.hard[target][lane]);
                    if weight != 0.0 {
                        let (e, q) = (of_target[lane].to_f64(), soft.class(class) + weight);
                        grad[class] = target_entry(e, q, found.p_scale[lane], labels.factors[lane]);
                    }
                }
            }
        }
        for lane in lanes(right & finite) {
            let Some(row) = adder.row(labels.own[lane]) else { continue };
            let to_units = R::Lanes::<V>::splat(R::from_f64(found.inverse[lane] * unit));
            let exponentials = &exponentials[lane * padded..(lane + 1) * padded];
            units::<R, V>(exponentials, to_units, row.sums);
        }
        // SAFETY: the caller promises exclusive access to the gradients' rows.
        unsafe { finish_rows(pass, grad.as_ref(), labels, adder, found, finite, losses) };
    }
}
