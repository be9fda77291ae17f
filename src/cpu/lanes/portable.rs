//! Vectors in plain Rust, for every processor. Where the target lacks fused multiply-add, it is emulated in software: exactly, but slowly.

use half::{bf16, f16};

use super::{Halves, Lanes, Vectors};

/// Vectors as arrays.
pub(crate) struct Portable;

impl Vectors for Portable {
    type F32 = F32x16;
    type F64 = F64x8;
    const MANY_REGISTERS: bool = false;
}

macro_rules! lanes {
    ($lanes:ident, $real:ident, $width:literal, $exponent_at:literal) => {
        /// Lanes of the type in its name.
        #[derive(Clone, Copy)]
        pub(crate) struct $lanes([$real; $width]);

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
            type Wide = [f64; 4];

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
            fn load_part(from: &[$real]) -> Self {
                let mut lanes = [0.0; $width];
                lanes[..from.len()].copy_from_slice(from);
                Self(lanes)
            }
            #[inline(always)]
            fn load_f32(from: &[f32]) -> Self {
                Self::load_f32_part(&from[..$width])
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
            fn mul_sub(mut self, a: Self, b: Self) -> Self {
                for lane in 0..$width {
                    self.0[lane] = self.0[lane].mul_add(a.0[lane], -b.0[lane]);
                }
                self
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                self.zip(other, |a, b| if b > a { b } else { a })
            }
            #[inline(always)]
            fn power_from_low_bits(mut self) -> Self {
                for lane in &mut self.0 {
                    *lane = $real::from_bits(lane.to_bits() << $exponent_at);
                }
                self
            }
            #[inline(always)]
            fn reduce_max(self) -> $real {
                self.0.iter().fold($real::NEG_INFINITY, |a, &b| if b > a { b } else { a })
            }
            #[inline(always)]
            fn wide_zero() -> [f64; 4] {
                [0.0; 4]
            }
            #[inline(always)]
            fn wide_add(mut self, mut to: [f64; 4]) -> [f64; 4] {
                let mut half = $width / 2;
                while half >= 4 {
                    for lane in 0..half {
                        self.0[lane] += self.0[lane + half];
                    }
                    half /= 2;
                }
                for lane in 0..4 {
                    to[lane] += f64::from(self.0[lane]);
                }
                to
            }
            #[inline(always)]
            fn wide_sum([a, b, c, d]: [f64; 4]) -> f64 {
                (a + c) + (b + d)
            }
            #[inline(always)]
            fn add_fixed(self, to: &mut [i64]) {
                self.add_fixed_part(&mut to[..$width]);
            }
            #[inline(always)]
            fn add_fixed_part(self, to: &mut [i64]) {
                for (to, lane) in to.iter_mut().zip(self.0) {
                    *to = to.wrapping_add(lane.round_ties_even() as i64);
                }
            }
            type Square = [Self; $width];
            #[inline(always)]
            fn square() -> [Self; $width] {
                [Self([0.0; $width]); $width]
            }
            #[inline(always)]
            fn transpose(mut square: [Self; $width]) -> [Self; $width] {
                for row in 0..$width {
                    for column in 0..row {
                        (square[row].0[column], square[column].0[row]) = (square[column].0[row], square[row].0[column]);
                    }
                }
                square
            }
            #[inline(always)]
            fn keep(mut self, count: usize, otherwise: Self) -> Self {
                for lane in 0..$width {
                    self.0[lane] = if lane < count { self.0[lane] } else { otherwise.0[lane] };
                }
                self
            }
            #[inline(always)]
            fn equal(self, other: Self) -> u32 {
                (0..$width).fold(0, |bits, lane| bits | u32::from(self.0[lane] == other.0[lane]) << lane)
            }
            #[inline(always)]
            fn where_greater(self, limit: Self, mut other: Self, otherwise: Self) -> Self {
                for lane in 0..$width {
                    other.0[lane] = if self.0[lane] > limit.0[lane] { other.0[lane] } else { otherwise.0[lane] };
                }
                other
            }
        }
    };
}

lanes!(F32x16, f32, 16, 23);
lanes!(F64x8, f64, 8, 52);

macro_rules! halves {
    ($half:ident, $from:ident, $to:ident) => {
        #[inline(always)]
        fn $from(from: &[$half]) -> Self {
            let mut lanes = [0.0; 16];
            for (lane, half) in lanes.iter_mut().zip(&from[..16]) {
                *lane = half.to_f32();
            }
            Self(lanes)
        }
        #[inline(always)]
        fn $to(self, to: &mut [$half]) {
            for (half, &lane) in to[..16].iter_mut().zip(&self.0) {
                *half = $half::from_f32(lane);
            }
        }
    };
}

impl Halves for F32x16 {
    halves!(bf16, from_bf16, to_bf16);
    halves!(f16, from_f16, to_f16);
}
