//! Rows of few classes, 16 at a time: each step is done for all rows before the next one, which hides latencies, and lets divisions and
//! logarithms be vectorised over the rows.
#![allow(unsafe_code, reason = "rows are read and written through the caller's addresses")]

use super::accumulator::Accumulator;
use super::block::{RowKernel, RowTask};
use super::exp::Exp;
use super::finish::finish_rows;
use super::labels::{LANES, equal_lanes, lanes};
use super::lanes::{Lanes, Vectors};
use super::scratch::RealScratch;
use super::soft_label::{SoftLabel, masked_soft_loss, soft_scale};
use super::storage::Arithmetic;
use super::sums::WideSums;
use super::sweeps::{add_probabilities, gradient_entries, last_vector, occurs_before, short_chain, target_entry};

/// The kernel, for no more classes than a chain has. With `GENERAL` samples may have second targets, and classes weights.
pub(super) struct ShortRows<const GENERAL: bool>;

impl<R: Arithmetic, const GENERAL: bool> RowKernel<R> for ShortRows<GENERAL> {
    #[inline(always)]
    unsafe fn run_rows<V: Vectors>(task: RowTask<'_, '_, R>, accumulator: &mut Accumulator<'_>, losses: &mut [f64]) {
        let RowTask { pass, logits, grad, labels, softmaxes, scratch } = task;
        let (width, classes, count) = (R::Lanes::<V>::WIDTH, logits.classes, losses.len());
        let padded = classes.next_multiple_of(width);
        let RealScratch { exponentials, class_weights, .. } = scratch;
        let scale = soft_scale(pass, class_weights);
        let soft_label = |lane: usize| SoftLabel::new(pass, labels, class_weights, lane);
        let targets = 1 + usize::from(GENERAL);
        let mut maxima = [R::default(); LANES];
        let mut dominant_logits = [R::default(); LANES];
        for lane in 0..count {
            // SAFETY: the caller promises that the rows of all samples can be read; gradients are written after the last use of their logits.
            let z = unsafe { logits.row(lane) };
            let mut max = [R::Lanes::<V>::splat(R::MINUS_INFINITY); 2];
            for z in z.chunks_exact(width) {
                max = [max[1], max[0].max(R::Lanes::<V>::load(z))];
            }
            maxima[lane] = max[0].max(max[1]).max(last_vector::<R, V>(z)).reduce_max();
            dominant_logits[lane] = z[labels.dominant[lane]];
            for target in 0..targets {
                softmaxes.target_logits[target][lane] = z[labels.classes[target][lane]].to_f64();
            }
        }

        let exp = Exp::<R>::constants().vectors::<R::Lanes<V>>();
        // The exponentials of the targets.
        let mut target_exps = [[R::default(); LANES]; 2];
        for lane in 0..count {
            let exponentials = &mut exponentials[lane * padded..(lane + 1) * padded];
            // SAFETY: as above.
            let z = unsafe { logits.row(lane) };
            let sums = short_chain::<R, V, GENERAL>(&exp, maxima[lane], z, &soft_label(lane), exponentials);
            [softmaxes.exp_sum[lane], softmaxes.soft_sum[lane], softmaxes.soft_dot[lane]] = WideSums::of(&sums).finish();
            for (target_exp, classes) in target_exps.iter_mut().zip(&labels.classes).take(targets) {
                target_exp[lane] = exponentials[classes[lane]];
            }
        }
        let mut correct = equal_lanes::<R, V>(&dominant_logits, &maxima);
        for (wide, max) in softmaxes.max.iter_mut().zip(&maxima) {
            *wide = max.to_f64();
        }
        let finite = softmaxes.finish::<R>(0..LANES, labels, scale, |lane, max| {
            // SAFETY: as above, since `finish` asks for active lanes alone, which have a sample.
            let z = unsafe { logits.row(lane) };
            masked_soft_loss(&soft_label(lane), max, |class| z[class].to_f64())
        });
        for lane in lanes(correct & finite) {
            // SAFETY: as above; only active lanes are in `finite`.
            if occurs_before::<R, V>(unsafe { logits.row(lane) }, labels.dominant[lane], maxima[lane]) {
                correct &= !(1 << lane);
            }
        }

        let unit = accumulator.unit::<R>();
        if let Some(grad) = grad {
            let (mut p_factor, mut q_factor) = ([R::default(); LANES], [R::default(); LANES]);
            for lane in 0..LANES {
                p_factor[lane] = R::from_f64(softmaxes.p_scale[lane] * labels.grad_scales[lane]);
                q_factor[lane] = R::from_f64(scale * labels.grad_scales[lane]);
            }
            for lane in 0..count {
                let exponentials = &exponentials[lane * padded..(lane + 1) * padded];
                let (p_factor, q_factor) = (R::Lanes::<V>::splat(p_factor[lane]), R::Lanes::<V>::splat(q_factor[lane]));
                let soft = soft_label(lane);
                // SAFETY: the caller promises exclusive access to the gradients' rows; the row's logits are not used any more.
                let grad = unsafe { grad.row_mut(lane) };
                gradient_entries::<R, V, GENERAL>(exponentials, &soft, p_factor, q_factor, grad);
                for (target, target_exp) in target_exps.iter().enumerate().take(targets) {
                    let (class, weight) = (labels.classes[target][lane], labels.hard[target][lane]);
                    if weight != 0.0 {
                        let (e, q) = (target_exp[lane].to_f64(), soft.class(class) + weight);
                        grad[class] = target_entry(e, q, softmaxes.p_scale[lane], labels.grad_scales[lane]);
                    }
                }
            }
        }
        for lane in lanes(correct & finite) {
            let Some(row) = accumulator.row(labels.dominant[lane]) else { continue };
            let unit_factor = R::Lanes::<V>::splat(R::from_f64(softmaxes.inverse_sum[lane] * unit));
            let exponentials = &exponentials[lane * padded..(lane + 1) * padded];
            add_probabilities::<R, V>(exponentials, unit_factor, row.sums);
        }
        // SAFETY: the caller promises exclusive access to the gradients' rows.
        unsafe { finish_rows(pass, grad.as_ref(), labels, accumulator, softmaxes, finite, losses) };
    }
}
