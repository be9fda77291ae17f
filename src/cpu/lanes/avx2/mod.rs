//! Vectors of AVX2, FMA and F16C, in two registers each: what both types have in common.
#![allow(unsafe_code, reason = "intrinsics")]

use core::arch::x86_64::*;

use self::f32x16::F32x16;
use self::f64x8::F64x8;
use super::Vectors;

/// Vectors of twice 256 bits.
pub(crate) struct Avx2;

impl Vectors for Avx2 {
    type F32 = F32x16;
    type F64 = F64x8;
    const MANY_REGISTERS: bool = false;
}

/// Wraps intrinsics of AVX2, FMA and F16C.
macro_rules! avx2 {
    ($($body:tt)*) => {
        // SAFETY: the processor has these extensions, since only `dispatch` gives out the vectors of this module. Addresses come from slices whose
        // length was asserted, or are masked to their length.
        unsafe { $($body)* }
    };
}

/// Adds four integers to the first four numbers of `to`.
#[inline(always)]
fn accumulate(units: __m128i, to: &mut [i64]) {
    assert!(to.len() >= 4);
    avx2! {
        let address = to.as_mut_ptr().cast::<__m256i>();
        _mm256_storeu_si256(address, _mm256_add_epi64(_mm256_loadu_si256(address), _mm256_cvtepi32_epi64(units)));
    }
}

/// The methods that both types implement alike, register by register.
macro_rules! halves {
    ($real:ident, $width:literal, $half:literal, $add:ident, $sub:ident, $mul:ident, $fmadd:ident, $fmsub:ident, $max:ident,
     $set1:ident, $loadu:ident, $storeu:ident, $cmp:ident, $blend:ident, $movemask:ident, $transpose:ident) => {
        #[inline(always)]
        fn splat(value: $real) -> Self {
            avx2!(Self($set1(value), $set1(value)))
        }
        #[inline(always)]
        fn load(from: &[$real]) -> Self {
            assert!(from.len() >= $width);
            avx2!(Self($loadu(from.as_ptr()), $loadu(from.as_ptr().add($half))))
        }
        #[inline(always)]
        fn keep(self, count: usize, otherwise: Self) -> Self {
            let (low, high) = Self::masks(count);
            avx2!(Self($blend(otherwise.0, self.0, low), $blend(otherwise.1, self.1, high)))
        }
        #[inline(always)]
        fn equal(self, other: Self) -> u32 {
            avx2! {
                let (low, high) = ($cmp::<_CMP_EQ_OQ>(self.0, other.0), $cmp::<_CMP_EQ_OQ>(self.1, other.1));
                $movemask(low) as u32 | ($movemask(high) as u32) << $half
            }
        }
        #[inline(always)]
        fn store(self, to: &mut [$real]) {
            assert!(to.len() >= $width);
            avx2! {
                $storeu(to.as_mut_ptr(), self.0);
                $storeu(to.as_mut_ptr().add($half), self.1);
            }
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            avx2!(Self($add(self.0, other.0), $add(self.1, other.1)))
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            avx2!(Self($sub(self.0, other.0), $sub(self.1, other.1)))
        }
        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            avx2!(Self($mul(self.0, other.0), $mul(self.1, other.1)))
        }
        #[inline(always)]
        fn mul_add(self, a: Self, b: Self) -> Self {
            avx2!(Self($fmadd(self.0, a.0, b.0), $fmadd(self.1, a.1, b.1)))
        }
        #[inline(always)]
        fn mul_sub(self, a: Self, b: Self) -> Self {
            avx2!(Self($fmsub(self.0, a.0, b.0), $fmsub(self.1, a.1, b.1)))
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // The instruction gives its second operand where either is NaN.
            avx2!(Self($max(other.0, self.0), $max(other.1, self.1)))
        }
        #[inline(always)]
        fn where_greater(self, limit: Self, other: Self, otherwise: Self) -> Self {
            avx2! {
                let (low, high) = ($cmp::<_CMP_GT_OQ>(self.0, limit.0), $cmp::<_CMP_GT_OQ>(self.1, limit.1));
                Self($blend(otherwise.0, other.0, low), $blend(otherwise.1, other.1, high))
            }
        }
        type Square = [Self; $width];
        #[inline(always)]
        fn square() -> [Self; $width] {
            [Self::splat(0.0); $width]
        }
        #[inline(always)]
        fn transpose(square: [Self; $width]) -> [Self; $width] {
            // Quarter by quarter; the two off the diagonal swap places.
            let mut columns = square;
            let (mut low, mut high) = ([square[0].0; $half], [square[0].0; $half]);
            for i in 0..$half {
                (low[i], high[i]) = (square[i].0, square[i].1);
            }
            let (low, high) = ($transpose(low), $transpose(high));
            for i in 0..$half {
                (columns[i].0, columns[i + $half].0) = (low[i], high[i]);
            }
            let (mut low, mut high) = ([square[0].0; $half], [square[0].0; $half]);
            for i in 0..$half {
                (low[i], high[i]) = (square[i + $half].0, square[i + $half].1);
            }
            let (low, high) = ($transpose(low), $transpose(high));
            for i in 0..$half {
                (columns[i].1, columns[i + $half].1) = (low[i], high[i]);
            }
            columns
        }
        #[inline(always)]
        fn add_fixed_part(self, to: &mut [i64]) {
            let (units, to_len) = (self.units(), to.len());
            let mut quads = to.chunks_exact_mut(4);
            for (quad, units) in (&mut quads).zip(units.chunks_exact(4)) {
                accumulate(avx2!(_mm_loadu_si128(units.as_ptr().cast())), quad);
            }
            let rest = quads.into_remainder();
            let done = $width.min(to_len - rest.len());
            for (to, unit) in rest.iter_mut().zip(&units[done..]) {
                *to = to.wrapping_add(i64::from(*unit));
            }
        }
    };
}

mod f32x16;
mod f64x8;
