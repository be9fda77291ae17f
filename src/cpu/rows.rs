//! Rows of many classes, one after the other; of very many, three at a time, each in another sweep.
//!
//! The sweeps ask different things of the processor (loads; arithmetic; stores), so the maximum of one row, the exponentials of the row before and
//! the gradient of the row before that go on chain by chain in turns, where memory is what they wait for. Which rows go together changes no bit.
#![allow(unsafe_code, reason = "rows are read and written through groups of the caller's addresses")]
// No vector may be made in a closure that is called twice: it would be compiled for the target's lowest level.

use super::adder::Adder;
use super::labels::Labels;
use super::lanes::{Real, Vectors};
use super::memory::{Group, Layout};
use super::pass::Pass;
use super::row::{Ahead, ExpSweep, Hard, LastSweep, MaxSweep, SoftLabel, Softmax, chain, is_right};
use super::scratch::RealScratch;
use super::storage::Storage;
use crate::samples::Place;

/// From this many classes on the sweeps of three rows go on in turns; the rows of fewer fit the first cache one by one, but not together.
const TOGETHER: usize = 2048;

/// Computes up to [`LANES`] samples from `first` on: losses, times the sample weights, to `losses`; the gradient where it is wanted; p to the
/// statistics.
///
/// # Safety
/// As `pass::run`, for samples that share an outer index or have none but it; `logits` and `grad` are theirs.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "views in, views out")]
pub(super) unsafe fn run<L: Storage, V: Vectors, const GENERAL: bool>(
    pass: &Pass<'_>,
    first: Place,
    logits: &Group<L>,
    grad: Option<&Group<L>>,
    scratch: &mut RealScratch<L::Real>,
    gathered: &mut [u64],
    adder: &mut Adder<'_>,
    losses: &mut [f64],
) {
    let classes = logits.classes;
    // SAFETY: the caller's promise.
    let labels = unsafe { Labels::read(pass, first, losses.len()) };
    // Rows that do not lie as the kernel needs them are copied, and their gradients take their places.
    let copied = logits.layout != Layout::Rows || grad.is_some_and(|grad| grad.layout != Layout::Rows);
    let copies: &mut [L] = if copied { bytemuck::cast_slice_mut(gathered) } else { &mut [] };
    if copied {
        logits.gather(copies, classes);
    }
    let copies = copies.as_mut_ptr();
    let address = |group: &Group<L>, lane: usize| if copied { copies.wrapping_add(lane * classes) } else { group.start(lane) };
    // SAFETY: the caller's promise; the rows of other samples are others, and each one's logits are not used any more once its gradient is
    // written.
    let row = |lane: usize| unsafe { std::slice::from_raw_parts(address(logits, lane).cast_const(), classes) };
    // SAFETY: as above.
    let grad_row = |lane: usize| grad.map(|grad| unsafe { std::slice::from_raw_parts_mut(address(grad, lane), classes) });
    let RealScratch { exponentials, class_weights, .. } = scratch;
    let soft_label = |lane: usize| SoftLabel {
        first: pass.soft_labels.row(labels.classes[0][lane]),
        first_scale: L::Real::from_f64(labels.lams[0][lane]),
        second: pass.soft_labels.row(labels.classes[1][lane]),
        second_scale: L::Real::from_f64(labels.lams[1][lane]),
        weights: &class_weights.scaled,
        scale: (1.0 - pass.alpha) * class_weights.scale,
    };
    let hard = |lane: usize| Hard {
        classes: [labels.classes[0][lane], labels.classes[1][lane]],
        weights: [labels.hard[0][lane], labels.hard[1][lane]],
    };
    let chains = classes / chain::<L, V>();
    let rest = chains * chain::<L, V>();
    let negates = adder.negates();
    let (sums, sums_stride) = adder.addresses();
    let ahead = |lane: usize, next: usize, right: bool| {
        let z = row(lane).as_ptr();
        let next = next.min(labels.count - 1);
        Ahead {
            grad: grad.map_or(z, |grad| address(grad, lane)),
            sums: if right { sums.wrapping_add(labels.own[lane] * sums_stride) } else { z.cast() },
            next_logits: row(next).as_ptr(),
            next_soft: pass.soft_labels.row(labels.classes[0][next]).as_ptr(),
        }
    };
    let mut not_finite = 0u32;
    if classes < TOGETHER {
        for (lane, loss) in losses.iter_mut().enumerate().filter(|(lane, _)| labels.is_active(*lane)) {
            let mut first = MaxSweep::<L, V>::new(row(lane));
            for index in 0..chains {
                first.chain(index);
            }
            first.rest(rest);
            let Some(max) = first.finish() else {
                not_finite |= 1 << lane;
                continue;
            };
            let right = is_right::<L, V>(row(lane), labels.own[lane], max);
            let mut second = ExpSweep::<L, V, GENERAL>::new(row(lane), soft_label(lane), max, exponentials, ahead(lane, lane + 1, right));
            for index in 0..chains {
                second.chain(index);
            }
            second.rest(rest);
            let Some(softmax) = second.finish() else {
                not_finite |= 1 << lane;
                continue;
            };
            *loss = softmax.loss(row(lane), &hard(lane));
            let mut added = if right { adder.row(labels.own[lane]) } else { None };
            let (hard, factor, sums) = (hard(lane), labels.factors[lane], added.as_mut().map(|row| &mut *row.sums));
            let mut last =
                LastSweep::<L, V, GENERAL>::new(&softmax, exponentials, soft_label(lane), &hard, factor, grad_row(lane), sums, negates);
            for index in 0..chains {
                last.gradient_chain(index);
            }
            for index in 0..chains {
                last.sums_chain(index);
            }
            last.rest(rest);
            last.finish(&softmax, &hard, factor);
        }
    } else {
        let half = exponentials.len() / 2;
        let (mut current, mut done) = exponentials.split_at_mut(half);
        // What the sweeps before have found of the row that comes to the next one.
        let mut with_max: Option<(usize, L::Real, bool)> = None;
        let mut with_sums: Option<(usize, Softmax<L::Real>, bool)> = None;
        for step in 0..losses.len() + 2 {
            let mut row_of_sums = with_sums.and_then(|(lane, _, right)| if right { adder.row(labels.own[lane]) } else { None });
            let mut last = with_sums.map(|(lane, softmax, _)| {
                let sums = row_of_sums.as_mut().map(|row| &mut *row.sums);
                let (hard, factor) = (hard(lane), labels.factors[lane]);
                LastSweep::<L, V, GENERAL>::new(&softmax, done, soft_label(lane), &hard, factor, grad_row(lane), sums, negates)
            });
            let mut second = with_max.map(|(lane, max, right)| {
                ExpSweep::<L, V, GENERAL>::new(row(lane), soft_label(lane), max, current, ahead(lane, lane + 2, right))
            });
            let starting = (step < losses.len() && labels.is_active(step)).then_some(step);
            let mut first = starting.map(|lane| MaxSweep::<L, V>::new(row(lane)));
            for index in 0..chains {
                if let Some(last) = &mut last {
                    last.chain(index);
                }
                if let Some(second) = &mut second {
                    second.chain(index);
                }
                if let Some(first) = &mut first {
                    first.chain(index);
                }
            }
            if let (Some(last), Some((lane, softmax, _))) = (&mut last, &with_sums) {
                last.rest(rest);
                last.finish(softmax, &hard(*lane), labels.factors[*lane]);
            }
            drop(row_of_sums);
            with_sums = None;
            if let (Some(second), Some((lane, _, right))) = (&mut second, with_max) {
                second.rest(rest);
                match second.finish() {
                    Some(softmax) => {
                        losses[lane] = softmax.loss(row(lane), &hard(lane));
                        with_sums = Some((lane, softmax, right));
                    }
                    None => not_finite |= 1 << lane,
                }
            }
            std::mem::swap(&mut current, &mut done);
            with_max = None;
            if let (Some(first), Some(lane)) = (&mut first, starting) {
                first.rest(rest);
                match first.finish() {
                    Some(max) => with_max = Some((lane, max, is_right::<L, V>(row(lane), labels.own[lane], max))),
                    None => not_finite |= 1 << lane,
                }
            }
        }
    }
    for (lane, loss) in losses.iter_mut().enumerate() {
        let silent = !labels.is_active(lane) || pass.divisor == 0.0;
        let normal = labels.is_active(lane) && not_finite & (1 << lane) == 0;
        if !normal && let Some(grad) = grad_row(lane) {
            grad.fill(L::narrow(if silent { L::Real::default() } else { L::Real::NAN }));
        }
        *loss = if silent {
            0.0
        } else if normal {
            labels.weights[lane] * *loss
        } else {
            f64::NAN
        };
    }
    (0..not_finite.count_ones()).for_each(|_| adder.skip());
    if copied && let Some(grad) = grad {
        // SAFETY: the caller's promise.
        unsafe { grad.scatter(std::slice::from_raw_parts(copies, losses.len() * classes), classes) };
    }
}
