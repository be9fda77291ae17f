//! Vectors of a fixed width, 16 lanes of f32 or 8 of f64, for every instruction set.
//!
//! The traits fix what each operation does to a lane, and the order in which lanes are summed, so that every implementation gives the same bits:
//! `portable` in plain Rust, `avx2` with two registers per vector, `avx512` with one. Multiply-add is always fused.
//!
//! # Soundness
//!
//! The methods of the AVX vectors run instructions that a processor may lack, and are safe all the same, because no code outside of this module can
//! name those vectors. It is given them by [`dispatch`] alone, as the type parameter of [`Vectorized::call`], and `dispatch` takes a [`Level`],
//! of which only detection makes values.
//!
//! All operations are `#[inline(always)]`, so that they become part of the function that `dispatch` compiles for the level.
#![allow(unsafe_code, reason = "a function compiled for a level is called on a processor that was found to have it")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
use self::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use self::avx512::Avx512;
pub(super) use self::portable::Portable;
use super::exp::Exponential;
use super::level::{InstructionSet, Level};
use crate::statistics::FRACTION_BITS;

/// A function that is written once, for the vectors of any level.
///
/// It has parameters, and not a struct of them, because the compiler knows of references that are parameters, but not of those that are fields, that
/// they neither alias nor dangle: 8 % of the time of a batch of images.
pub(super) trait Vectorized<A, B, C, D, E> {
    /// The function. Implementations, and all that they call with vectors, are `#[inline(always)]`: what is not inlined is compiled for the
    /// target's baseline, which gives the same bits, slowly.
    ///
    /// # Safety
    /// That of the implementation.
    unsafe fn call<V: Vectors>(a: A, b: B, c: C, d: D, e: E);
}

/// Calls `F` with the vectors of a level, compiled for it.
///
/// # Safety
/// That of `F`.
pub(super) unsafe fn dispatch<F: Vectorized<A, B, C, D, E>, A, B, C, D, E>(level: Level, a: A, b: B, c: C, d: D, e: E) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn avx512<F: Vectorized<A, B, C, D, E>, A, B, C, D, E>(a: A, b: B, c: C, d: D, e: E) {
        // SAFETY: the caller promises what `F` demands.
        unsafe { F::call::<Avx512>(a, b, c, d, e) }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2<F: Vectorized<A, B, C, D, E>, A, B, C, D, E>(a: A, b: B, c: C, d: D, e: E) {
        // SAFETY: the caller promises what `F` demands.
        unsafe { F::call::<Avx2>(a, b, c, d, e) }
    }
    // SAFETY: a `Level` exists only for an instruction set that was detected, and these are the features that `Level::best` looks for; the caller
    // promises what `F` demands.
    unsafe {
        match level.instruction_set() {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => avx512::<F, A, B, C, D, E>(a, b, c, d, e),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => avx2::<F, A, B, C, D, E>(a, b, c, d, e),
            InstructionSet::Portable => F::call::<Portable>(a, b, c, d, e),
        }
    }
}

/// The vectors of a level.
pub(crate) trait Vectors {
    /// 16 lanes.
    type F32: Lanes<f32> + Halves;
    /// 8 lanes.
    type F64: Lanes<f64>;
    /// Whether there are registers for the constants of exp and the accumulators of its sums at once: 32 of them.
    const MANY_REGISTERS: bool;
}

/// The arithmetic of a row: f64 for logits in f64, otherwise f32.
pub(crate) trait Real: Exponential + Copy + PartialOrd + Default + Send + Sync + 'static {
    /// The vectors of a level.
    type Lanes<V: Vectors>: Lanes<Self>;
    /// The lanes of a vector, at every level.
    const LANES: usize;
    /// The neutral element of the maximum.
    const MINUS_INFINITY: Self;
    const NAN: Self;
    /// 1 in the units of the statistics: 2^30.
    const UNITS: Self;
    /// Rounds once.
    fn from_f64(value: f64) -> Self;
    /// Widens exactly.
    fn to_f64(self) -> f64;
    fn is_finite(self) -> bool;
}

/// A vector of `WIDTH` numbers.
pub(crate) trait Lanes<R>: Copy {
    const WIDTH: usize;
    /// Four sums in f64.
    type Wide: Copy;

    fn splat(value: R) -> Self;
    /// The first `WIDTH` numbers of a slice, which has as many.
    fn load(from: &[R]) -> Self;
    /// All numbers of a shorter slice, followed by 0.
    fn load_part(from: &[R]) -> Self;
    /// As `load`, widened from f32.
    fn load_f32(from: &[f32]) -> Self;
    /// As `load_part`, widened from f32.
    fn load_f32_part(from: &[f32]) -> Self;
    fn store(self, to: &mut [R]);
    /// Stores as many lanes as a shorter slice has room for.
    fn store_part(self, to: &mut [R]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self * a + b`, rounded once.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// `self * a - b`, rounded once.
    fn mul_sub(self, a: Self, b: Self) -> Self;
    /// The larger one of each lane; where `other` is NaN, that of `self`.
    fn max(self, other: Self) -> Self;
    /// 2^n for lanes whose lowest bits hold n plus the exponent's bias: shifts these to the exponent.
    fn power_from_low_bits(self) -> Self;
    /// The largest lane.
    fn reduce_max(self) -> R;
    fn wide_zero() -> Self::Wide;
    /// Adds the upper half of the lanes to the lower one until four are left, and those to the four sums `to`.
    fn wide_add(self, to: Self::Wide) -> Self::Wide;
    /// The total of four sums: the upper two are added to the lower two, then the second to the first.
    fn wide_sum(sum: Self::Wide) -> f64;
    /// Rounds each lane, at most 2^30 in magnitude, half to even, and adds it to a number of `to`, which has at least `WIDTH`.
    fn add_fixed(self, to: &mut [i64]);
    /// As `add_fixed`, the lanes that a shorter slice has room for.
    fn add_fixed_part(self, to: &mut [i64]);
    /// A square tile of `WIDTH` vectors.
    type Square: AsMut<[Self]> + AsRef<[Self]>;
    /// A tile of zeros.
    fn square() -> Self::Square;
    /// Lane j of vector i becomes lane i of vector j.
    fn transpose(square: Self::Square) -> Self::Square;
    /// The first `count` lanes, followed by those of `otherwise`.
    fn keep(self, count: usize, otherwise: Self) -> Self;
    /// A bit for each lane that is equal to that of `other`.
    fn equal(self, other: Self) -> u32;
    /// The lanes of `other` where `self` is greater than `limit`, and those of `otherwise` elsewhere.
    fn where_greater(self, limit: Self, other: Self, otherwise: Self) -> Self;
}

/// Conversions of 16 lanes from 16-bit numbers, exact, and to them, rounded half to even.
pub(crate) trait Halves: Sized {
    fn from_bf16(from: &[bf16]) -> Self;
    fn to_bf16(self, to: &mut [bf16]);
    fn from_f16(from: &[f16]) -> Self;
    fn to_f16(self, to: &mut [f16]);
}

macro_rules! real {
    ($real:ident, $member:ident, $lanes:literal) => {
        impl Real for $real {
            type Lanes<V: Vectors> = V::$member;
            const LANES: usize = $lanes;
            const MINUS_INFINITY: Self = $real::NEG_INFINITY;
            const NAN: Self = $real::NAN;
            const UNITS: Self = (1u32 << FRACTION_BITS) as $real;
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $real
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                $real::is_finite(self)
            }
        }
    };
}
real!(f32, F32, 16);
real!(f64, F64, 8);
