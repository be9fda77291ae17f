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

/// The loss of a batch, its gradient with respect to the logits, and in training mode the statistics, in one pass over the logits.
///
/// `loss` and `grad` may each be NULL; both NULL: statistics alone. They are written through; their memory, like that of the batch, stays the
/// caller's and is used until the call returns (on CUDA: until the enqueued work has run). Safe from any thread; calls on one criterion wait for
/// each other. On failure neither outputs nor state are touched.
///
/// `loss`: f32 (f64 for f64 logits); one value (`ndim` 0, or shape (1)), or with `OLS_REDUCTION_NONE` the shape of the targets. `grad`: shape and
/// dtype of the logits, and it may be the logits themselves (same data, shape and strides), which then hold the gradient. No other overlap is
/// allowed: not with inputs, each other, or the state. In the notation of the manual above, with
/// `q[n,k] = alpha*w[y]*[k==y] + (1-alpha)*w[k]*S[y,k]` and `Q[n] = sum_k q[n,k]`,
///
/// ```text
///     loss[n]   = -sum_k q[n,k] * log p[n,k]
///     grad[n,k] = Q[n]*p[n,k] - q[n,k]
/// ```
///
/// times the sample weight, the factor of the reduction, and for the gradient `grad_loss` (Zhang et al. 2021, equations 3 to 6). A sample that is
/// classified right (argmax of its logits is its target, the first index winning a tie) adds p to the statistics of its class.
///
/// Errors: wrong dtypes, devices, shapes and strides; overlaps; weights that are negative or not finite; `lam` outside [0, 1];
/// `OLS_STATUS_TARGET_OUT_OF_RANGE`; `OLS_STATUS_INVALID_STATE` for taking back more than was added.
///
/// # Safety
/// `criterion` is NULL or a live criterion; `batch` is NULL or points to an initialised `ols_batch_t`; `loss` and `grad` are NULL or point to
/// tensors; what the tensors name can be read, and that of `loss` and `grad` written, with nobody else using it meanwhile.
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
        let mut descriptions = vec![Region::bytes("batch", batch.cast(), size)];
        descriptions.extend(loss_raw.map(|_| Region::of("the description of loss", loss)));
        descriptions.extend(grad_raw.map(|_| Region::of("the description of grad", grad)));
        check_outputs(&[("loss", loss_raw.as_ref()), ("grad", grad_raw.as_ref())], &descriptions)?;
        // SAFETY: the caller's promise.
        unsafe { criterion.forward_raw(&raw, loss_raw, grad_raw) }
    })
}

/// The gradient of a batch alone, recomputed from its logits: bit for bit what `ols_forward` gives. No state is touched.
///
/// `grad_loss` is the gradient of the whole with respect to the loss, as in the batch; NULL: the batch's own (or 1); given in both places is an
/// error. Ownership, threads, failure, dtypes, shapes and overlaps: as `ols_forward`; `grad` may be the logits themselves. The flag
/// `OLS_BATCH_TAKE_BACK` is an error here. Any number of forwards may lie between a forward and its backward, but S, alpha and the batch must be
/// the same for the gradients to agree: not across `ols_next_epoch`.
///
/// # Safety
/// As `ols_forward`.
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
        let mut descriptions = vec![Region::bytes("batch", batch.cast(), size), Region::of("the description of grad", grad)];
        descriptions.extend(given.map(|_| Region::of("the description of grad_loss", grad_loss)));
        check_outputs(&[("grad", Some(&grad_raw))], &descriptions)?;
        raw.grad_loss = given.or(raw.grad_loss);
        // SAFETY: the caller's promise.
        unsafe { criterion.backward_raw(&raw, grad_raw) }
    })
}

/// Adds to the statistics from given probabilities, for those who have them already: `batch->logits` holds p, entries in [0, 1].
///
/// Obeys the mode, the flags, targets, weights and `lam` as `ols_forward` does: a sample counts when the largest of its probabilities is that of
/// its target. Ownership, threads, failure, dtypes and shapes: as `ols_forward`. A row with NaN is skipped and counted as such. `grad_loss` in the
/// batch is an error.
///
/// # Safety
/// As `ols_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_accumulate(criterion: *mut ols_criterion_t, batch: *const ols_batch_t) -> ols_status_t {
    boundary("ols_accumulate", || {
        // SAFETY: the caller's promise.
        let (mut criterion, (raw, _)) = unsafe { (lock(criterion)?, read_batch(batch)?) };
        if raw.grad_loss.is_some() {
            fail!(InvalidArgument, "grad_loss is given, but there is no loss");
        }
        // SAFETY: the caller's promise.
        unsafe { criterion.accumulate_raw(&raw) }
    })
}
