//! The last step of every kernel: losses, and what is written where a gradient cannot be computed.
#![allow(unsafe_code, reason = "gradients are the caller's memory")]

use super::accumulator::Accumulator;
use super::labels::{Labels, lanes};
use super::lanes::Real;
use super::memory::ContiguousRows;
use super::pass::Pass;
use super::softmax::Softmaxes;
use super::storage::Storage;

/// Writes the losses, times the sample weights, and counts the rows that are not finite. Those that are have a bit in `finite`.
#[inline(always)]
pub(super) fn write_losses(
    pass: &Pass<'_>,
    labels: &Labels,
    softmaxes: &Softmaxes,
    finite: u32,
    accumulator: &mut Accumulator<'_>,
    losses: &mut [f64],
) {
    let silent = labels.silent(pass);
    for (lane, loss) in losses.iter_mut().enumerate() {
        *loss = if silent & (1 << lane) != 0 { 0.0 } else { labels.weights[lane] * softmaxes.loss[lane] };
    }
    accumulator.skip((labels.active & !finite).count_ones());
}

/// The entries of a gradient that cannot be computed, and the lanes of such gradients among the first `count`: 0 for a sample without influence on
/// the loss, NaN for a row that is not finite.
#[inline(always)]
pub(super) fn without_gradient<R: Real>(pass: &Pass<'_>, labels: &Labels, finite: u32, count: usize) -> impl Iterator<Item = (usize, R)> {
    let silent = labels.silent(pass);
    lanes(!finite & ((1u32 << count) - 1)).map(move |lane| (lane, if silent & (1 << lane) != 0 { R::default() } else { R::NAN }))
}

/// The last step of a kernel for rows: losses, and the gradients that cannot be computed.
///
/// # Safety
/// `grad` has rows for as many samples as `losses`, which can be written and which nothing else accesses.
#[inline(always)]
pub(super) unsafe fn finish_rows<L: Storage>(
    pass: &Pass<'_>,
    grad: Option<&ContiguousRows<L>>,
    labels: &Labels,
    accumulator: &mut Accumulator<'_>,
    softmaxes: &Softmaxes,
    finite: u32,
    losses: &mut [f64],
) {
    if let Some(grad) = grad {
        for (lane, entry) in without_gradient(pass, labels, finite, losses.len()) {
            // SAFETY: the caller promises exclusive access to these rows.
            unsafe { grad.row_mut(lane) }.fill(L::narrow(entry));
        }
    }
    write_losses(pass, labels, softmaxes, finite, accumulator, losses);
}
