//! Rows of few classes, 16 at a time: each step for all of them before the next, so that no row waits for what it found in
//! the step before, and divisions and logarithms are formed for all rows at once.
#![allow(unsafe_code, reason = "rows are read and written through groups of the caller's addresses")]

use super::adder::Adder;
use super::block::LineKernel;
use super::exp::Exp;
use super::labels::{LANES, Labels, lanes};
use super::lanes::{Lanes, Real, Vectors};
use super::memory::Lines;
use super::pass::Pass;
use super::row::{SoftLabel, distance_with_masked, entries, part_or_lowest, short_chain, stands_before, target_entry, units};
use super::scratch::RealScratch;
use super::softmax::Softmaxes;
use super::storage::{LanesOf, Storage};
use super::sums::WideSums;

/// The kernel, for no more classes than a chain has; with class weights or second targets where `GENERAL` says so.
pub(super) struct Few<const GENERAL: bool>;

impl<L: Storage, const GENERAL: bool> LineKernel<L> for Few<GENERAL> {
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
        let padded = classes.next_multiple_of(width);
        let RealScratch { exponentials, class_weights, .. } = scratch;
        let scale = (1.0 - pass.alpha) * class_weights.scale;
        let soft_label = |lane: usize| {
            let first = pass.soft_labels.row(labels.classes[0][lane]);
            let second = if GENERAL { pass.soft_labels.row(labels.classes[1][lane]) } else { first };
            let [first_scale, second_scale] = [0, 1].map(|target| L::Real::from_f64(labels.lams[target][lane]));
            SoftLabel { first, first_scale, second, second_scale, weights: &class_weights.scaled, scale }
        };
        let mut maxima = [L::Real::default(); LANES];
        let mut own_logits = [L::Real::default(); LANES];
        for lane in 0..count {
            // SAFETY: the caller's promise.
            let z = unsafe { logits.row(lane) };
            let mut most = [LanesOf::<L, V>::splat(L::Real::MINUS_INFINITY); 2];
            let mut whole = z.chunks_exact(width);
            for z in &mut whole {
                most = [most[1], most[0].max(L::load::<V>(z))];
            }
            if !whole.remainder().is_empty() {
                most[0] = most[0].max(part_or_lowest::<L, V>(whole.remainder()));
            }
            maxima[lane] = most[0].max(most[1]).reduce_max();
            own_logits[lane] = z[labels.own[lane]].widen();
            for target in 0..1 + usize::from(GENERAL) {
                found.target_logits[target][lane] = z[labels.classes[target][lane]].widen().to_f64();
            }
        }

        let exp = Exp::<LanesOf<L, V>>::new();
        // What the gradient needs of the targets' entries.
        let mut of_targets = [[L::Real::default(); LANES]; 2];
        for lane in 0..count {
            let exponentials = &mut exponentials[lane * padded..(lane + 1) * padded];
            // SAFETY: the caller's promise.
            let z = unsafe { logits.row(lane) };
            let sums = short_chain::<L, V, GENERAL>(&exp, maxima[lane], z, &soft_label(lane), exponentials);
            [found.sum[lane], found.mass[lane], found.distance[lane]] = WideSums::of(&sums).finish();
            for (of_target, classes) in of_targets.iter_mut().zip(&labels.classes).take(1 + usize::from(GENERAL)) {
                of_target[lane] = exponentials[classes[lane]];
            }
        }
        let mut right = 0u32;
        for lane in 0..LANES {
            found.max[lane] = maxima[lane].to_f64();
            right |= u32::from(own_logits[lane] == maxima[lane]) << lane;
        }
        let finite = found.finish::<L::Real>(0..LANES, labels, scale, |lane, max| {
            // SAFETY: the caller's promise; gradients are not written yet.
            let z = unsafe { logits.row(lane) };
            distance_with_masked(&soft_label(lane), max, |class| z[class].widen().to_f64())
        });
        for lane in lanes(right & finite) {
            // SAFETY: as above.
            if stands_before::<L, V>(unsafe { logits.row(lane) }, labels.own[lane], maxima[lane]) {
                right &= !(1 << lane);
            }
        }

        let negate = adder.negates();
        if let Some(grad) = grad {
            let (mut to_p, mut to_q) = ([L::Real::default(); LANES], [L::Real::default(); LANES]);
            for lane in 0..LANES {
                to_p[lane] = L::Real::from_f64(found.p_scale[lane] * labels.factors[lane]);
                to_q[lane] = L::Real::from_f64(scale * labels.factors[lane]);
            }
            for lane in 0..count {
                let exponentials = &exponentials[lane * padded..(lane + 1) * padded];
                let (to_p, to_q) = (LanesOf::<L, V>::splat(to_p[lane]), LanesOf::<L, V>::splat(to_q[lane]));
                let soft = soft_label(lane);
                // SAFETY: the caller's promise; the row's logits are not needed any more.
                let grad = unsafe { grad.row_mut(lane) };
                entries::<L, V, GENERAL>(exponentials, &soft, to_p, to_q, grad);
                for (target, of_target) in of_targets.iter().enumerate().take(1 + usize::from(GENERAL)) {
                    let (class, weight) = (labels.classes[target][lane], labels.hard[target][lane]);
                    if weight != 0.0 {
                        let (e, q) = (of_target[lane].to_f64(), soft.class(class) + weight);
                        grad[class] = L::narrow(target_entry(e, q, found.p_scale[lane], labels.factors[lane]));
                    }
                }
            }
        }
        for lane in lanes(right & finite) {
            let Some(row) = adder.row(labels.own[lane]) else { continue };
            let to_units = found.inverse[lane] * if negate { -L::Real::UNITS.to_f64() } else { L::Real::UNITS.to_f64() };
            let to_units = LanesOf::<L, V>::splat(L::Real::from_f64(to_units));
            let exponentials = &exponentials[lane * padded..(lane + 1) * padded];
            units::<L, V>(exponentials, to_units, row.sums);
        }
        finish(pass, grad, labels, adder, found, finite, losses);
    }
}

/// Losses, times the sample weights; the gradients of rows that take no part or are not finite.
#[inline(always)]
pub(super) fn finish<L: Storage>(
    pass: &Pass<'_>,
    grad: Option<&Lines<L>>,
    labels: &Labels,
    adder: &mut Adder<'_>,
    found: &Softmaxes,
    finite: u32,
    losses: &mut [f64],
) {
    let silent = if pass.divisor == 0.0 { u32::MAX } else { !labels.active };
    for (lane, loss) in losses.iter_mut().enumerate() {
        *loss = if silent & (1 << lane) != 0 { 0.0 } else { labels.weights[lane] * found.loss[lane] };
    }
    for lane in lanes(!finite & ((1u32 << losses.len()) - 1)) {
        if let Some(grad) = grad {
            // SAFETY: those who made the lines promised rows for all losses, which nobody else uses.
            unsafe { grad.row_mut(lane) }.fill(L::narrow(if silent & (1 << lane) != 0 { L::Real::default() } else { L::Real::NAN }));
        }
    }
    adder.skip((labels.active & !finite).count_ones());
}
