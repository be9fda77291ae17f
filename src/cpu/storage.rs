//! How logits are stored, and the arithmetic that their rows are computed in.

use half::{bf16, f16};

use super::lanes::Real;

/// How a logit is stored, and the arithmetic that its row is computed in.
pub(super) trait Storage: Copy + 'static {
    /// f64 for f64, else f32.
    type Real: Real;
    /// Exact.
    fn widen(self) -> Self::Real;
    /// Rounds once, half to even.
    fn narrow(value: Self::Real) -> Self;
}

impl Storage for f32 {
    type Real = f32;
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(value: f32) -> f32 {
        value
    }
}

impl Storage for f64 {
    type Real = f64;
    #[inline(always)]
    fn widen(self) -> f64 {
        self
    }
    #[inline(always)]
    fn narrow(value: f64) -> f64 {
        value
    }
}

impl Storage for bf16 {
    type Real = f32;
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn narrow(value: f32) -> bf16 {
        bf16::from_f32(value)
    }
}

impl Storage for f16 {
    type Real = f32;
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn narrow(value: f32) -> f16 {
        f16::from_f32(value)
    }
}
