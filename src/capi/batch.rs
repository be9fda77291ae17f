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

/// `ols_batch_t.flags`: in training mode too, leave the statistics as they are. For a second pass over a batch that was counted before.
pub const OLS_BATCH_NO_UPDATE: u32 = 1;
/// `ols_batch_t.flags`: take a batch back that was added before, exactly. Logits, targets, `targets2`, `lam` and `sample_weights` must be the same
/// as then, so not after a gradient has taken the place of the logits. Works in both modes; not together with `OLS_BATCH_NO_UPDATE`.
pub const OLS_BATCH_TAKE_BACK: u32 = 2;

/// A batch: N samples over K classes, or N x inner of them, as the pixels of N images. Set it up with `ols_batch_init`, then fill in `logits`,
/// `targets` and what else there is. A call copies the struct, and uses the memory that its tensors name until it returns (on CUDA: until the
/// enqueued work has run).
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ols_batch_t {
    /// Bytes of this struct: `sizeof(ols_batch_t)`.
    pub struct_size: usize,
    /// z: f32, f64, f16 or bf16 of shape (N, K) or (N, K, inner); with the class last, as (N, inner, K) in memory, by strides. Read as they lie.
    /// A row with NaN, +inf, or nothing but -inf has a loss and gradient of NaN and adds nothing to the statistics; -inf in part of a row masks
    /// these classes.
    pub logits: ols_tensor_t,
    /// y: i64, i32 or u8 of shape (N) or (N, inner), in [target_offset, target_offset + K), or the ignore index: such a sample takes no part.
    pub targets: ols_tensor_t,
    /// v: f32 or f64 of the shape of the targets, finite and >= 0. A sample that weighs 0 takes no part. Not given: 1 each.
    pub sample_weights: ols_tensor_t,
    /// The second targets of Mixup and CutMix, as `targets`. Not given: none. Given together with `lam` only.
    pub targets2: ols_tensor_t,
    /// The weight of the first target in [0, 1], f32 or f64: of the shape of the targets, or one value (`ndim` 0 or shape (1)) for all.
    pub lam: ols_tensor_t,
    /// The gradient of the whole with respect to the loss, f32 or f64: one value (`ndim` 0 or shape (1)), or with `OLS_REDUCTION_NONE` of the
    /// shape of the targets. Not given: 1. A loss scale belongs here: it is multiplied in before a 16-bit gradient is rounded.
    pub grad_loss: ols_tensor_t,
    /// The class is `target - target_offset`: 1 for labels that count from 1. The ignore index is compared before.
    pub target_offset: i64,
    /// A `cudaStream_t` on which the work is enqueued; the CPU does not look at it.
    pub stream: *mut c_void,
    /// 0, `OLS_BATCH_NO_UPDATE` or `OLS_BATCH_TAKE_BACK`.
    pub flags: u32,
    /// Always 0.
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
                fail!(InvalidArgument, "batch.flags has OLS_BATCH_NO_UPDATE and OLS_BATCH_TAKE_BACK, which exclude each other")
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

/// Sets up a batch: no tensor given, no flags, no offset.
///
/// Call it as `ols_batch_init(&batch, sizeof batch)`. Owns nothing: a batch needs no clean-up. Safe from any thread. On failure (`batch` is NULL,
/// or `struct_size` is no size of the struct) nothing is written.
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
