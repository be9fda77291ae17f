//! Fixed-width vectors in plain Rust: 16 lanes of f32, 8 of f64.
//!
//! Every level of the instruction set runs this one source; compiled for AVX-512 or AVX2 a vector becomes one or two registers. Since each
//! lane's operations and the order of every sum are written down here, the bits are the same at every level. Multiply-add is always fused.

use super::exp;
use crate::statistics::FRACTION_BITS;

/// The arithmetic of a row: f32, or f64 for f64 logits.
pub(crate) trait Real: Copy + PartialOrd + Default + Send + Sync + 'static {
    /// Its vectors.
    type Lanes: Lanes<Self>;
    /// The identity of max.
    const LOWEST: Self;
    const NAN: Self;
    /// Rounds once.
    fn from_f64(value: f64) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
    /// `self * a + b`, rounded once.
    fn mul_add(self, a: Self, b: Self) -> Self;
    fn mul(self, a: Self) -> Self;
    fn is_finite(self) -> bool;
}

/// A vector of `WIDTH` numbers. Small on purpose.
pub(crate) trait Lanes<R>: Copy {
    const WIDTH: usize;
    /// One f64 per lane: where long sums are kept.
    type Wide: Copy;

    fn splat(value: R) -> Self;
    /// The first `WIDTH` numbers of a slice that has them.
    fn load(from: &[R]) -> Self;
    /// All numbers of a shorter slice, then `fill`.
    fn load_part(from: &[R], fill: R) -> Self;
    /// As `load`, widened from f32.
    fn load_f32(from: &[f32]) -> Self;
    /// As `load_part` with 0, widened from f32.
    fn load_f32_part(from: &[f32]) -> Self;
    fn store(self, to: &mut [R]);
    /// Stores as many lanes as the shorter slice takes.
    fn store_part(self, to: &mut [R]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self * a + b`, rounded once.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// The larger one; a NaN in `other` leaves `self`.
    fn max(self, other: Self) -> Self;
    /// `exp` for lanes <= 0 or NaN.
    fn exp_nonpositive(self) -> Self;
    /// The largest lane.
    fn reduce_max(self) -> R;
    fn wide_zero() -> Self::Wide;
    /// Adds each lane to its wide sum.
    fn wide_add(self, to: Self::Wide) -> Self::Wide;
    /// Adds the lanes up: halves onto each other until one is left.
    fn wide_sum(sum: Self::Wide) -> f64;
    /// Adds each lane, a probability, to `to` in units of 2^-30, rounded half to even; `negate` subtracts.
    fn add_fixed(self, to: &mut [i64], negate: bool);
}

macro_rules! real {
    ($real:ident, $lanes:ident, $width:literal, $exp:path) => {
        /// Lanes of the type in its name.
        #[derive(Clone, Copy)]
        #[repr(align(64))]
        pub(crate) struct $lanes([$real; $width]);

        impl Real for $real {
            type Lanes = $lanes;
            const LOWEST: Self = $real::NEG_INFINITY;
            const NAN: Self = $real::NAN;
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $real
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                $real::mul_add(self, a, b)
            }
            #[inline(always)]
            fn mul(self, a: Self) -> Self {
                self * a
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                $real::is_finite(self)
            }
        }

        impl $lanes {
            #[inline(always)]
            fn zip(mut self, other: Self, op: impl Fn($real, $real) -> $real) -> Self {
                for lane in 0..$width {
                    self.0[lane] = op(self.0[lane], other.0[lane]);
                }
                self
            }
        }

        impl Lanes<$real> for $lanes {
            const WIDTH: usize = $width;
            type Wide = [f64; $width];

            #[inline(always)]
            fn splat(value: $real) -> Self {
                Self([value; $width])
            }
            #[inline(always)]
            fn load(from: &[$real]) -> Self {
                let mut lanes = [0.0; $width];
                lanes.copy_from_slice(&from[..$width]);
                Self(lanes)
            }
            #[inline(always)]
            fn load_part(from: &[$real], fill: $real) -> Self {
                let mut lanes = [fill; $width];
                lanes[..from.len()].copy_from_slice(from);
                Self(lanes)
            }
            #[inline(always)]
            fn load_f32(from: &[f32]) -> Self {
                let from = &from[..$width];
                let mut lanes = [0.0; $width];
                for lane in 0..$width {
                    lanes[lane] = $real::from(from[lane]);
                }
                Self(lanes)
            }
            #[inline(always)]
            fn load_f32_part(from: &[f32]) -> Self {
                let mut lanes = [0.0; $width];
                for (lane, &value) in lanes.iter_mut().zip(from) {
                    *lane = $real::from(value);
                }
                Self(lanes)
            }
            #[inline(always)]
            fn store(self, to: &mut [$real]) {
                to[..$width].copy_from_slice(&self.0);
            }
            #[inline(always)]
            fn store_part(self, to: &mut [$real]) {
                to.copy_from_slice(&self.0[..to.len()]);
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.zip(other, |a, b| a + b)
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.zip(other, |a, b| a - b)
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self.zip(other, |a, b| a * b)
            }
            #[inline(always)]
            fn mul_add(mut self, a: Self, b: Self) -> Self {
                for lane in 0..$width {
                    self.0[lane] = self.0[lane].mul_add(a.0[lane], b.0[lane]);
                }
                self
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                self.zip(other, |a, b| if b > a { b } else { a })
            }
            #[inline(always)]
            fn exp_nonpositive(mut self) -> Self {
                for lane in 0..$width {
                    self.0[lane] = $exp(self.0[lane]);
                }
                self
            }
            #[inline(always)]
            fn reduce_max(self) -> $real {
                self.0.iter().fold($real::NEG_INFINITY, |a, &b| if b > a { b } else { a })
            }
            #[inline(always)]
            fn wide_zero() -> [f64; $width] {
                [0.0; $width]
            }
            #[inline(always)]
            fn wide_add(self, mut to: [f64; $width]) -> [f64; $width] {
                for lane in 0..$width {
                    to[lane] += f64::from(self.0[lane]);
                }
                to
            }
            #[inline(always)]
            fn wide_sum(mut sum: [f64; $width]) -> f64 {
                let mut half = $width / 2;
                while half > 0 {
                    for lane in 0..half {
                        sum[lane] += sum[lane + half];
                    }
                    half /= 2;
                }
                sum[0]
            }
            #[inline(always)]
            fn add_fixed(self, to: &mut [i64], negate: bool) {
                // A probability times 2^30 fits an i32, so the conversion is one instruction everywhere.
                const ONE: $real = (1u32 << FRACTION_BITS) as $real;
                let mut units = [0i32; $width];
                for lane in 0..$width {
                    units[lane] = (self.0[lane] * ONE).round_ties_even() as i32;
                }
                if negate {
                    units = units.map(|unit| -unit);
                }
                for (to, unit) in to.iter_mut().zip(units) {
                    *to += i64::from(unit);
                }
            }
        }
    };
}

real!(f32, F32x16, 16, exp::exp_f32);
real!(f64, F64x8, 8, exp::exp_f64);
