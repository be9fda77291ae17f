//! Rows of many classes, one after the other; of very many, three at a time, each in another sweep.
//!
//! The sweeps ask different things of the processor (loads; arithmetic; stores), so the maximum of one row, the exponentials of the row before and
//! the gradient of the row before that go on chain by chain in turns, where memory is what they wait for. Which rows go together changes no bit.
#![allow(unsafe_code, reason = "rows are read and written through groups of the caller's addresses")]
// No vector may be made in a closure that is called twice: it would be compiled for the target's lowest level.

use super::adder::Adder;
use super::block::{LineKernel, LineTask};
use super::exp::Exp;
use super::finish::finish_rows;
use super::labels::Labels;
use super::lanes::{Real, Vectors};
use super::row::{Ahead, ExpSweep, Factors, LastSweep, MaxSweep, SoftLabel, chain, distance_with_masked};
use super::scratch::RealScratch;
use super::softmax::Softmaxes;
use super::storage::Storage;

/// From this many classes on the sweeps of three rows go on in turns; the rows of fewer fit the first cache one by one, but not together.
const TOGETHER: usize = 2048;

/// The kernel, for any number of classes; with class weights or second targets where `GENERAL` says so.
pub(super) struct Rows<const GENERAL: bool>;

impl<L: Storage, const GENERAL: bool> LineKernel<L> for Rows<GENERAL> {
    #[inline(always)]
    unsafe fn run_lines<V: Vectors>(task: LineTask<'_, '_, L>, adder: &mut Adder<'_>, losses: &mut [f64]) {
        let LineTask { pass, logits, grad, labels, found, scratch } = task;
        let classes = logits.classes;
        // SAFETY: the caller's promise, for both.
        let row = |lane: usize| unsafe { logits.row(lane) };
        // SAFETY: as above; each row's logits are not used any more once its gradient is written.
        let grad_row = |lane: usize| grad.map(|grad| unsafe { grad.row_mut(lane) });
        let RealScratch { exponentials, class_weights, .. } = scratch;
        let scale = (1.0 - pass.alpha) * class_weights.scale;
        let soft_label = |lane: usize| SoftLabel {
            first: pass.soft_labels.row(labels.classes[0][lane]),
            first_scale: L::Real::from_f64(labels.lams[0][lane]),
            second: pass.soft_labels.row(labels.classes[1][lane]),
            second_scale: L::Real::from_f64(labels.lams[1][lane]),
            weights: &class_weights.scaled,
            scale,
        };
        let masked = |lane: usize, max: f64| {
            let (soft, z) = (soft_label(lane), row(lane));
            distance_with_masked(&soft, max, |class| z[class].widen().to_f64())
        };
        let chains = classes / chain::<L, V>();
        let rest = chains * chain::<L, V>();
        let unit = adder.unit::<L::Real>();
        let factors = |found: &Softmaxes, lane: usize| Factors {
            p_scale: found.p_scale[lane],
            inverse: found.inverse[lane],
            factor: labels.factors[lane],
            unit,
        };
        let (sums, sums_stride) = adder.addresses();
        let ahead = |lane: usize, next: usize, right: bool| {
            let (z, adds) = (row(lane).as_ptr(), right && !sums.is_null());
            let next = next.min(labels.count - 1);
            Ahead {
                grad: grad.map_or(z, |grad| grad.start(lane)),
                // Else this row's logits and what lies behind them, mostly the next row's.
                sums: if adds { sums.wrapping_add(labels.own[lane] * sums_stride) } else { z.cast() },
                next_logits: row(next).as_ptr(),
                next_soft: pass.soft_labels.row(labels.classes[0][next]).as_ptr(),
            }
        };
        let note = |found: &mut Softmaxes, lane: usize, max: L::Real, sums: [f64; 3]| {
            [found.sum[lane], found.mass[lane], found.distance[lane]] = sums;
            found.max[lane] = max.to_f64();
            for target in 0..2 {
                found.target_logits[target][lane] = row(lane)[labels.classes[target][lane]].widen().to_f64();
            }
        };
        let constants = Exp::<L::Real>::constants();
        let mut finite = 0u32;
        if classes < TOGETHER {
            for lane in (0..losses.len()).filter(|lane| labels.is_active(*lane)) {
                let mut first = MaxSweep::<L, V>::new(row(lane), labels.own[lane]);
                for index in 0..chains {
                    first.chain(index);
                }
                first.rest(rest);
                let Some((max, right)) = first.finish() else {
                    found.loss[lane] = f64::NAN;
                    continue;
                };
                let ahead = ahead(lane, lane + 1, right);
                let mut second = ExpSweep::<L, V, GENERAL>::new(row(lane), soft_label(lane), max, exponentials, constants);
                for index in 0..chains {
                    second.chain(index, &ahead);
                }
                second.rest(rest);
                note(found, lane, max, second.finish());
                if found.finish::<L::Real>(lane..lane + 1, labels, scale, masked) == 0 {
                    continue;
                }
                finite |= 1 << lane;
                let mut added = if right { adder.row(labels.own[lane]) } else { None };
                let sums = added.as_mut().map(|row| &mut *row.sums);
                let mut last = LastSweep::<L, V, GENERAL>::new(exponentials, soft_label(lane), grad_row(lane), sums, factors(found, lane));
                for index in 0..chains {
                    last.gradient_chain(index);
                }
                for index in 0..chains {
                    last.sums_chain(index);
                }
                last.rest(rest);
                finish_targets(&mut last, labels, lane);
            }
        } else {
            let half = exponentials.len() / 2;
            let (mut current, mut done) = exponentials.split_at_mut(half);
            // What the sweeps before have found of the row that comes to the next one.
            let mut with_max: Option<(usize, L::Real, bool)> = None;
            let mut with_sums: Option<(usize, bool)> = None;
            for step in 0..losses.len() + 2 {
                let mut row_of_sums = with_sums.and_then(|(lane, right)| if right { adder.row(labels.own[lane]) } else { None });
                let mut last = with_sums.map(|(lane, _)| {
                    let sums = row_of_sums.as_mut().map(|row| &mut *row.sums);
                    LastSweep::<L, V, GENERAL>::new(done, soft_label(lane), grad_row(lane), sums, factors(found, lane))
                });
                let mut second = with_max.map(|(lane, max, right)| {
                    (ExpSweep::<L, V, GENERAL>::new(row(lane), soft_label(lane), max, current, constants), ahead(lane, lane + 2, right))
                });
                let starting = (step < losses.len() && labels.is_active(step)).then_some(step);
                let mut first = starting.map(|lane| MaxSweep::<L, V>::new(row(lane), labels.own[lane]));
                for index in 0..chains {
                    if let Some(last) = &mut last {
                        last.chain(index);
                    }
                    if let Some((second, ahead)) = &mut second {
                        second.chain(index, ahead);
                    }
                    if let Some(first) = &mut first {
                        first.chain(index);
                    }
                }
                if let (Some(last), Some((lane, _))) = (&mut last, with_sums) {
                    last.rest(rest);
                    finish_targets(last, labels, lane);
                }
                drop(row_of_sums);
                with_sums = None;
                if let (Some((second, _)), Some((lane, max, right))) = (&mut second, with_max) {
                    second.rest(rest);
                    note(found, lane, max, second.finish());
                    let found_finite = found.finish::<L::Real>(lane..lane + 1, labels, scale, masked);
                    finite |= found_finite;
                    with_sums = (found_finite != 0).then_some((lane, right));
                }
                std::mem::swap(&mut current, &mut done);
                with_max = None;
                if let (Some(first), Some(lane)) = (&mut first, starting) {
                    first.rest(rest);
                    match first.finish() {
                        Some((max, right)) => with_max = Some((lane, max, right)),
                        None => found.loss[lane] = f64::NAN,
                    }
                }
            }
        }
        // SAFETY: the caller promises exclusive access to the gradients' rows, none of which is borrowed any more.
        unsafe { finish_rows(pass, grad.as_ref(), labels, adder, found, finite, losses) };
    }
}

/// The entries of a row's targets.
#[inline(always)]
fn finish_targets<L: Storage, V: Vectors, const GENERAL: bool>(last: &mut LastSweep<'_, L, V, GENERAL>, labels: &Labels, lane: usize) {
    for target in 0..1 + usize::from(labels.two) {
        if labels.hard[target][lane] != 0.0 {
            last.target(labels.classes[target][lane], labels.hard[target][lane]);
        }
    }
}
