//! How logits are stored, and the arithmetic that their rows are computed in.

use half::{bf16, f16};

use super::lanes::{Halves, Lanes, Real, Vectors};

/// The vectors that rows stored as `L` are computed with at a level.
pub(super) type LanesOf<L, V> = <<L as Storage>::Real as Real>::Lanes<V>;

/// How a logit is stored, and the arithmetic that its row is computed in.
pub(super) trait Storage: bytemuck::Pod {
    /// f64 for f64, else f32.
    type Real: Real;
    /// Exact.
    fn widen(self) -> Self::Real;
    /// Rounds once, half to even.
    fn narrow(value: Self::Real) -> Self;
    /// Widens the first numbers of a slice that has a vector's worth or more.
    fn load<V: Vectors>(from: &[Self]) -> LanesOf<Self, V>;
    /// Widens all numbers of a shorter slice; 0 behind them.
    fn load_part<V: Vectors>(from: &[Self]) -> LanesOf<Self, V>;
    /// Rounds once, half to even, to a slice of a vector's worth or more.
    fn store<V: Vectors>(lanes: LanesOf<Self, V>, to: &mut [Self]);
    /// As many lanes as a shorter slice takes.
    fn store_part<V: Vectors>(lanes: LanesOf<Self, V>, to: &mut [Self]);
}

macro_rules! real {
    ($real:ident) => {
        impl Storage for $real {
            type Real = $real;
            #[inline(always)]
            fn widen(self) -> $real {
                self
            }
            #[inline(always)]
            fn narrow(value: $real) -> $real {
                value
            }
            #[inline(always)]
            fn load<V: Vectors>(from: &[$real]) -> LanesOf<$real, V> {
                Lanes::load(from)
            }
            #[inline(always)]
            fn load_part<V: Vectors>(from: &[$real]) -> LanesOf<$real, V> {
                Lanes::load_part(from)
            }
            #[inline(always)]
            fn store<V: Vectors>(lanes: LanesOf<$real, V>, to: &mut [$real]) {
                lanes.store(to);
            }
            #[inline(always)]
            fn store_part<V: Vectors>(lanes: LanesOf<$real, V>, to: &mut [$real]) {
                lanes.store_part(to);
            }
        }
    };
}
real!(f32);
real!(f64);

/// Copies less than 16 numbers by at most four moves of registers, where a copy of any length would be a call.
#[inline(always)]
fn copy_part<T: Copy>(from: &[T], to: &mut [T]) {
    let mut at = 0;
    for size in [8, 4, 2, 1] {
        if from.len() & size != 0 {
            to[at..at + size].copy_from_slice(&from[at..at + size]);
            at += size;
        }
    }
}

macro_rules! half {
    ($half:ident, $from:ident, $to:ident) => {
        impl Storage for $half {
            type Real = f32;
            #[inline(always)]
            fn widen(self) -> f32 {
                self.to_f32()
            }
            #[inline(always)]
            fn narrow(value: f32) -> $half {
                $half::from_f32(value)
            }
            #[inline(always)]
            fn load<V: Vectors>(from: &[$half]) -> V::F32 {
                V::F32::$from(from)
            }
            #[inline(always)]
            fn load_part<V: Vectors>(from: &[$half]) -> V::F32 {
                let mut lanes = [$half::ZERO; 16];
                copy_part(from, &mut lanes);
                V::F32::$from(&lanes)
            }
            #[inline(always)]
            fn store<V: Vectors>(lanes: V::F32, to: &mut [$half]) {
                lanes.$to(to);
            }
            #[inline(always)]
            fn store_part<V: Vectors>(lanes: V::F32, to: &mut [$half]) {
                let mut halves = [$half::ZERO; 16];
                lanes.$to(&mut halves);
                copy_part(&halves[..to.len()], to);
            }
        }
    };
}
half!(bf16, from_bf16, to_bf16);
half!(f16, from_f16, to_f16);
