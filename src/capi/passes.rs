//! What is done with a batch: forward, backward, statistics alone.

use super::args::{Region, check_pointer, read_struct};
use super::batch::ols_batch_t;
use super::boundary::boundary;
use super::criterion::{lock, ols_criterion_t};
use super::status::ols_status_t;
use super::tensor::ols_tensor_t;
use crate::batch::RawBatch;
use crate::error::{Result, fail};
use crate::tensor::RawTensor;

/// A tensor that is an argument of its own.
///
/// # Safety
/// `tensor` is NULL or points to a readable `ols_tensor_t`.
pub(super) unsafe fn read_tensor(name: &str, tensor: *const ols_tensor_t) -> Result<RawTensor> {
    check_pointer(name, tensor)?;
    // SAFETY: neither NULL nor misaligned; the rest is the caller's promise.
    unsafe { tensor.read() }.to_raw(name)
}

/// As [`read_tensor`], where NULL is an answer.
///
/// # Safety
/// As [`read_tensor`].
unsafe fn read_optional_tensor(name: &str, tensor: *const ols_tensor_t) -> Result<Option<RawTensor>> {
    // SAFETY: the caller's promise.
    if tensor.is_null() { Ok(None) } else { unsafe { read_tensor(name, tensor) }.map(Some) }
}

/// A batch of the caller's.
///
/// # Safety
/// `batch` is NULL or points to an initialised `ols_batch_t`.
unsafe fn read_batch(batch: *const ols_batch_t) -> Result<(RawBatch, usize)> {
    // SAFETY: the caller's promise.
    let batch = unsafe { read_struct("batch", batch)? };
    Ok((batch.to_raw()?, batch.struct_size))
}

/// Refuses outputs that would write over the descriptions of a call. (Overlaps of the tensors themselves are the core's to find.)
fn check_outputs(outputs: &[(&str, Option<&RawTensor>)], descriptions: &[Region<'_>]) -> Result<()> {
    outputs
        .iter()
        .filter_map(|(name, tensor)| Some(Region::tensor(name, (*tensor)?)))
        .try_for_each(|output| output.check_apart(descriptions))
}

/// Computes the loss of a batch and its gradient with respect to the logits and, in training mode,
/// updates the statistics, all in one pass over the logits.
///
/// `loss` and `grad` describe the outputs. Each may be NULL if it is not wanted; if both are NULL,
/// only the statistics are updated. The memory of outputs and batch remains the property of the
/// caller and is used until the call returns (on CUDA: until the enqueued work has completed). Safe
/// to call from any thread; calls on the same criterion are serialised. On failure outputs and state
/// are unchanged.
///
/// `loss` is f32 (f64 for f64 logits): a single value (`ndim` 0 or shape (1)) or, with
/// `OLS_REDUCTION_NONE`, of the shape of the targets. `grad` has the shape and dtype of the logits.
/// It may be the logits themselves (same data, shape and strides), which are then overwritten by the
/// gradient. No other overlap with inputs, state or another output is allowed. With `q` and `p` as
/// defined under "What is computed" and `Q[n] = sum_k q[n,k]`,
///
/// ```text
///     loss[n]   = -sum_k q[n,k] * log p[n,k]
///     grad[n,k] = Q[n]*p[n,k] - q[n,k]
/// ```
///
/// each multiplied by the sample weight and by the factor of the reduction, and the gradient also by
/// `grad_loss` (Zhang et al. 2021, equations 3 to 6). A sample is classified correctly if the argmax
/// of its logits is its target; the first index wins a tie. With two targets, the one of larger
/// weight counts (the first if `lam` is 0.5). Such a sample adds p to the sums of its class.
///
/// Fails on wrong dtypes, devices, shapes and strides; on overlapping memory; on weights that are
/// negative or not finite; on `lam` outside [0, 1]; with `OLS_STATUS_TARGET_OUT_OF_RANGE`; and with
/// `OLS_STATUS_INVALID_STATE` if a batch to be taken back has more samples of a class than were
/// added.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `batch` is NULL or points to an
/// initialised `ols_batch_t`; `loss` and `grad` are NULL or point to tensors. All memory that the
/// tensors refer to is readable, that of `loss` and `grad` is writable, and nothing else uses it
/// during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_forward(
    criterion: *mut ols_criterion_t,
    batch: *const ols_batch_t,
    loss: *const ols_tensor_t,
    grad: *const ols_tensor_t,
) -> ols_status_t {
    boundary("ols_forward", || {
        // SAFETY: the caller's promise.
        let (mut criterion, (raw, size), loss_raw, grad_raw) =
            unsafe { (lock(criterion)?, read_batch(batch)?, read_optional_tensor("loss", loss)?, read_optional_tensor("grad", grad)?) };
        let descriptions = [
            Region::bytes("batch", batch.cast(), size),
            Region::of("the description of loss", loss),
            Region::of("the description of grad", grad),
        ];
        check_outputs(&[("loss", loss_raw.as_ref()), ("grad", grad_raw.as_ref())], &descriptions)?;
        // SAFETY: the caller's promise.
        unsafe { criterion.forward_raw(&raw, loss_raw, grad_raw) }
    })
}

/// Computes only the gradient of a batch, from its logits. The result is bitwise identical to that
/// of `ols_forward`. No state is changed.
///
/// `grad_loss` is the upstream gradient, as in the batch. If it is NULL, the one in the batch is
/// used, or 1; it is an error to give both. `grad` may be the logits themselves. The flag
/// `OLS_BATCH_TAKE_BACK` is an error here. Ownership, threads, failure, dtypes, shapes and overlaps
/// are as for `ols_forward`.
///
/// Any number of forward passes may come between a forward pass and its backward pass. The gradients
/// agree as long as S, alpha and the batch are the same, so `ols_next_epoch` must not come between
/// them.
///
/// # Safety
/// As for `ols_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_backward(
    criterion: *mut ols_criterion_t,
    batch: *const ols_batch_t,
    grad_loss: *const ols_tensor_t,
    grad: *const ols_tensor_t,
) -> ols_status_t {
    boundary("ols_backward", || {
        // SAFETY: the caller's promise.
        let (mut criterion, (mut raw, size), given, grad_raw) =
            unsafe { (lock(criterion)?, read_batch(batch)?, read_optional_tensor("grad_loss", grad_loss)?, read_tensor("grad", grad)?) };
        if given.is_some() && raw.grad_loss.is_some() {
            fail!(InvalidArgument, "grad_loss is given twice, as an argument and in the batch");
        }
        let descriptions = [
            Region::bytes("batch", batch.cast(), size),
            Region::of("the description of grad_loss", grad_loss),
            Region::of("the description of grad", grad),
        ];
        check_outputs(&[("grad", Some(&grad_raw))], &descriptions)?;
        raw.grad_loss = given.or(raw.grad_loss);
        // SAFETY: the caller's promise.
        unsafe { criterion.backward_raw(&raw, grad_raw) }
    })
}

/// Updates the statistics from probabilities that the caller has computed already: `batch->logits`
/// holds p, with entries in [0, 1].
///
/// The mode, the flags, targets, weights and `lam` have the same effect as in `ols_forward`; a
/// sample is classified correctly if its largest probability is that of its target. A row that
/// contains NaN or an infinity is skipped and counted as such; in any other row an entry outside [0,
/// 1] is an error. It is an error to set `grad_loss` in the batch. Ownership, threads, failure,
/// dtypes and shapes are as for `ols_forward`.
///
/// # Safety
/// As for `ols_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_accumulate(criterion: *mut ols_criterion_t, batch: *const ols_batch_t) -> ols_status_t {
    boundary("ols_accumulate", || {
        // SAFETY: the caller's promise.
        let (mut criterion, (raw, _)) = unsafe { (lock(criterion)?, read_batch(batch)?) };
        if raw.grad_loss.is_some() {
            fail!(InvalidArgument, "grad_loss is given, but no loss is computed");
        }
        // SAFETY: the caller's promise.
        unsafe { criterion.accumulate_raw(&raw) }
    })
}
