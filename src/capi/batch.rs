//! The batch that a call works on.

use std::ffi::c_void;
use std::mem::offset_of;

use safer_ffi::prelude::*;

use super::args::{Growing, OutputStruct};
use super::boundary::boundary;
use super::status::ols_status_t;
use super::tensor::ols_tensor_t;
use crate::batch::{RawBatch, Update};
use crate::error::{Result, fail};
use crate::stream::CudaStream;

/// Flag of `ols_batch_t`: do not update the statistics, even in training mode. For a second pass
/// over a batch that has been counted already.
pub const OLS_BATCH_NO_UPDATE: u32 = 1;
/// Flag of `ols_batch_t`: subtract a batch that was added earlier, exactly undoing its effect on the
/// statistics.
///
/// Logits, targets, `targets2`, `lam` and `sample_weights` must be the same as when the batch was
/// added, so the logits must not have been overwritten by the gradient. Works in both modes. Cannot
/// be combined with `OLS_BATCH_NO_UPDATE`, nor with a gradient in place of the logits.
pub const OLS_BATCH_TAKE_BACK: u32 = 2;

/// A batch of N samples, or of N x inner samples such as the pixels of N images. Initialise the
/// struct with `ols_batch_init`, then set `logits`, `targets` and any optional members.
///
/// The struct itself is copied by the call. The memory that its tensors refer to is used until the
/// call returns (on CUDA: until the enqueued work has completed).
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ols_batch_t {
    /// Size of this struct in bytes: `sizeof(ols_batch_t)`.
    pub struct_size: usize,
    /// Logits z: f32, f64, f16 or bf16 of shape (N, K) or (N, K, inner), with any strides; data of
    /// shape (N, inner, K) is described by permuting the strides. A row that contains NaN or +inf,
    /// or that is -inf throughout, has a NaN loss and gradient and adds nothing to the statistics.
    /// An entry of -inf in any other row masks its class.
    pub logits: ols_tensor_t,
    /// Targets y: i64, i32 or u8 of shape (N) or (N, inner). Each is in [target_offset,
    /// target_offset + K) or equal to the ignore index.
    pub targets: ols_tensor_t,
    /// Sample weights v: f32 or f64, of the shape of the targets, finite and >= 0. A sample of
    /// weight 0 is ignored. Optional; the default is 1 for every sample.
    pub sample_weights: ols_tensor_t,
    /// Second targets y2, for Mixup and CutMix: as `targets`. The target distribution is then
    /// `lam*q(y) + (1-lam)*q(y2)`. Optional; requires `lam`.
    pub targets2: ols_tensor_t,
    /// Weight of the first target, in [0, 1]: f32 or f64, of the shape of the targets or a single
    /// value for all samples (`ndim` 0 or shape (1)). Required with `targets2`, and not allowed
    /// without it.
    pub lam: ols_tensor_t,
    /// Upstream gradient, by which the gradient is multiplied: f32 or f64, a single value (`ndim` 0
    /// or shape (1)) or, with `OLS_REDUCTION_NONE`, of the shape of the targets. Optional; the
    /// default is 1. A loss scale belongs here, because it is applied before a 16-bit gradient is
    /// rounded.
    pub grad_loss: ols_tensor_t,
    /// Value of the first class: the class is `target - target_offset`, so use 1 for one-based
    /// labels. The ignore index is compared with the target as given. Default: 0.
    pub target_offset: i64,
    /// The `cudaStream_t` on which the work is enqueued. Ignored on the CPU.
    pub stream: *mut c_void,
    /// 0, `OLS_BATCH_NO_UPDATE` or `OLS_BATCH_TAKE_BACK`.
    pub flags: u32,
    /// Must be 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, begins with a `usize`, has no padding (asserted below), and holds numbers and addresses alone.
unsafe impl Growing for ols_batch_t {
    const NAME: &str = "ols_batch_t";
    const FIRST_SIZE: usize = offset_of!(Self, reserved) + size_of::<u32>();
    const DEFAULT: Self = Self {
        struct_size: 0,
        logits: ols_tensor_t::ABSENT,
        targets: ols_tensor_t::ABSENT,
        sample_weights: ols_tensor_t::ABSENT,
        targets2: ols_tensor_t::ABSENT,
        lam: ols_tensor_t::ABSENT,
        grad_loss: ols_tensor_t::ABSENT,
        target_offset: 0,
        stream: std::ptr::null_mut(),
        flags: 0,
        reserved: 0,
    };
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<ols_batch_t>() == 8 + 6 * 80 + 8 + 8 + 4 + 4, "no padding");

impl ols_batch_t {
    /// The batch as the core takes it.
    pub(super) fn to_raw(self) -> Result<RawBatch> {
        let update = match self.flags {
            0 => Update::Add,
            OLS_BATCH_NO_UPDATE => Update::None,
            OLS_BATCH_TAKE_BACK => Update::TakeBack,
            flags if flags == OLS_BATCH_NO_UPDATE | OLS_BATCH_TAKE_BACK => {
                fail!(InvalidArgument, "batch.flags has both OLS_BATCH_NO_UPDATE and OLS_BATCH_TAKE_BACK, which are mutually exclusive")
            }
            flags => fail!(InvalidArgument, "batch.flags = {flags:#x} has bits outside {:#x}", OLS_BATCH_NO_UPDATE | OLS_BATCH_TAKE_BACK),
        };
        if self.reserved != 0 {
            fail!(InvalidArgument, "batch.reserved = {} is not 0", self.reserved);
        }
        Ok(RawBatch {
            logits: self.logits.to_raw("logits")?,
            targets: self.targets.to_raw("targets")?,
            sample_weights: self.sample_weights.to_optional_raw("sample_weights")?,
            targets2: self.targets2.to_optional_raw("targets2")?,
            lam: self.lam.to_optional_raw("lam")?,
            grad_loss: self.grad_loss.to_optional_raw("grad_loss")?,
            target_offset: self.target_offset,
            update,
            // SAFETY: whoever hands a batch over promises that its stream is one.
            stream: unsafe { CudaStream::from_raw(self.stream) },
        })
    }
}

/// Initialises a batch: no tensors, no flags, an offset of 0.
///
/// Call it as `ols_batch_init(&batch, sizeof batch)`. A batch owns no memory and needs no cleanup.
/// Safe to call from any thread. On failure (`batch` is NULL, or `struct_size` is not a size that
/// this struct can have) nothing is written.
///
/// # Safety
/// `batch` is NULL or points to `struct_size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ols_batch_init(batch: *mut ols_batch_t, struct_size: usize) -> ols_status_t {
    boundary("ols_batch_init", || {
        // SAFETY: the caller's promise.
        let batch = unsafe { OutputStruct::uninitialised("batch", batch, struct_size)? };
        batch.write(ols_batch_t::DEFAULT);
        Ok(())
    })
}
