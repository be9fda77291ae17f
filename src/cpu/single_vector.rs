//! Rows that fit one vector, with one target a sample and no class weights: as [`short_rows`](super::short_rows), bit for bit, with fewer
//! instructions, of which the smallest rows take most of their time.
#![allow(unsafe_code, reason = "rows are read and written through the caller's addresses")]

use super::accumulator::Accumulator;
use super::block::{RowKernel, RowTask};
use super::exp::Exp;
use super::finish::finish_rows;
use super::labels::{LANES, equal_lanes, lanes};
use super::lanes::{Lanes, Vectors};
use super::scratch::RealScratch;
use super::soft_label::{SoftLabel, masked_soft_loss, soft_scale};
use super::storage::{Arithmetic, load_padded, load_padded_f32, store_clipped};
use super::sweeps::target_entry;

/// The kernel, for no more classes than a vector has lanes.
pub(super) struct SingleVector;

impl<R: Arithmetic> RowKernel<R> for SingleVector {
    #[inline(always)]
    unsafe fn run_rows<V: Vectors>(task: RowTask<'_, '_, R>, accumulator: &mut Accumulator<'_>, losses: &mut [f64]) {
        let RowTask { pass, logits, grad, labels, softmaxes, scratch } = task;
        let (width, classes, count) = (R::Lanes::<V>::WIDTH, logits.classes, losses.len());
        let zero = R::Lanes::<V>::splat(R::default());
        let lowest = R::Lanes::<V>::splat(R::MINUS_INFINITY);
        let RealScratch { exponentials, class_weights, .. } = scratch;
        let exponentials = &mut exponentials[..LANES * width];
        let scale = soft_scale(pass, class_weights);
        let (mut maxima, mut dominant_logits) = ([R::default(); LANES], [R::default(); LANES]);
        for lane in 0..count {
            // SAFETY: the caller promises that the rows of all samples can be read; gradients are written after the last use of their logits.
            let z = unsafe { logits.row(lane) };
            maxima[lane] = load_padded::<R, V>(z).keep(classes, lowest).reduce_max();
            dominant_logits[lane] = z[labels.dominant[lane]];
        }
        let mut correct = equal_lanes::<R, V>(&dominant_logits, &maxima);
        for lane in 0..LANES {
            (softmaxes.max[lane], softmaxes.target_logits[0][lane]) = (maxima[lane].to_f64(), dominant_logits[lane].to_f64());
        }

        let exp = Exp::<R>::constants().vectors::<R::Lanes<V>>();
        let (mut dominant_exp, mut dominant_soft) = ([R::default(); LANES], [0f32; LANES]);
        for (lane, e_row) in exponentials.chunks_exact_mut(width).enumerate().take(count) {
            // SAFETY: as above.
            let z = unsafe { logits.row(lane) };
            let soft = pass.soft_labels.row(labels.dominant[lane]);
            // Lanes past the row's end add 0.
            let x = load_padded::<R, V>(z).sub(R::Lanes::<V>::splat(maxima[lane])).keep(classes, zero);
            let e = exp.nonpositive([x])[0].keep(classes, zero);
            e.store(e_row);
            let q = load_padded_f32::<R, V>(soft);
            let sum = |lanes: R::Lanes<V>| R::Lanes::<V>::wide_sum(lanes.wide_add(R::Lanes::<V>::wide_zero()));
            (softmaxes.exp_sum[lane], softmaxes.soft_sum[lane], softmaxes.soft_dot[lane]) = (sum(e), sum(q), sum(q.mul(x)));
            (dominant_exp[lane], dominant_soft[lane]) = (e_row[labels.dominant[lane]], soft[labels.dominant[lane]]);
        }
        let finite = softmaxes.finish::<R>(0..LANES, labels, scale, |lane, max| {
            // SAFETY: as above, since `finish` asks for active lanes alone, which have a sample.
            let z = unsafe { logits.row(lane) };
            masked_soft_loss(&SoftLabel::new(pass, labels, class_weights, lane), max, |class| z[class].to_f64())
        });
        correct &= finite;

        let unit = accumulator.unit::<R>();
        for lane in lanes(correct) {
            // SAFETY: as above; only active lanes are in `finite`.
            let z = unsafe { logits.row(lane) };
            let before = load_padded::<R, V>(z).equal(R::Lanes::<V>::splat(maxima[lane])) & ((1 << labels.dominant[lane]) - 1);
            if before != 0 {
                continue;
            }
            let Some(row) = accumulator.row(labels.dominant[lane]) else { continue };
            let unit_factor = R::Lanes::<V>::splat(R::from_f64(softmaxes.inverse_sum[lane] * unit));
            let units = R::Lanes::<V>::load(&exponentials[lane * width..(lane + 1) * width]).mul(unit_factor);
            // The rows of a thread's private sums have whole vectors.
            if row.sums.len() >= width { units.add_fixed(row.sums) } else { units.add_fixed_part(row.sums) }
        }
        if let Some(grad) = grad {
            let [mut p_factors, mut q_factors, mut target_entries] = [[R::default(); LANES]; 3];
            for lane in 0..LANES {
                let grad_scale = labels.grad_scales[lane];
                let q = f64::from(dominant_soft[lane]) * scale + labels.hard[0][lane];
                p_factors[lane] = R::from_f64(softmaxes.p_scale[lane] * grad_scale);
                q_factors[lane] = R::from_f64(scale * grad_scale);
                target_entries[lane] = target_entry(dominant_exp[lane].to_f64(), q, softmaxes.p_scale[lane], grad_scale);
            }
            for lane in 0..count {
                // SAFETY: the caller promises exclusive access to the gradients' rows; the logits are not used any more.
                let to = unsafe { grad.row_mut(lane) };
                let [p_factor, q_factor] = [p_factors[lane], q_factors[lane]].map(R::Lanes::<V>::splat);
                let q = load_padded_f32::<R, V>(pass.soft_labels.row(labels.dominant[lane]));
                let entries = R::Lanes::<V>::load(&exponentials[lane * width..(lane + 1) * width]).mul_sub(p_factor, q.mul(q_factor));
                store_clipped::<R, V>(entries, to);
                if labels.hard[0][lane] != 0.0 {
                    to[labels.dominant[lane]] = target_entries[lane];
                }
            }
        }
        // SAFETY: the caller promises exclusive access to the gradients' rows.
        unsafe { finish_rows(pass, grad.as_ref(), labels, accumulator, softmaxes, finite, losses) };
    }
}
