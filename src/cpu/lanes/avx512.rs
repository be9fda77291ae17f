//! Vectors of AVX-512 (F, BW, DQ, VL), in one register each.
#![allow(unsafe_code, reason = "intrinsics")]

use core::arch::x86_64::*;

use half::{bf16, f16};

use super::x86::sum4;
use super::{Halves, Lanes, Vectors};

/// Vectors of 512 bits.
pub(crate) struct Avx512;

impl Vectors for Avx512 {
    type F32 = F32x16;
    type F64 = F64x8;
    const MANY_REGISTERS: bool = true;
}

/// Wraps intrinsics of AVX-512 (F, BW, DQ, VL), and of AVX2, FMA and F16C.
macro_rules! avx512 {
    ($($body:tt)*) => {
        // SAFETY: the processor has these extensions, since only `dispatch` gives out the vectors of this module. Addresses come from slices whose
        // length was asserted, or are masked to their length: masked loads and stores touch no byte outside their mask.
        unsafe { $($body)* }
    };
}

/// A mask of the lowest `length` lanes.
#[inline(always)]
fn mask16(length: usize) -> __mmask16 {
    ((1u32 << length) - 1) as __mmask16
}

/// A mask of the lowest `length` lanes.
#[inline(always)]
fn mask8(length: usize) -> __mmask8 {
    ((1u32 << length) - 1) as __mmask8
}

/// Adds eight integers to the first eight numbers of `to`, or to as many as it has.
#[inline(always)]
fn accumulate(units: __m256i, to: &mut [i64]) {
    avx512! {
        let units = _mm512_cvtepi32_epi64(units);
        let address = to.as_mut_ptr();
        if to.len() >= 8 {
            _mm512_storeu_epi64(address, _mm512_add_epi64(_mm512_loadu_epi64(address), units));
        } else {
            let mask = mask8(to.len());
            _mm512_mask_storeu_epi64(address, mask, _mm512_add_epi64(_mm512_maskz_loadu_epi64(mask, address), units));
        }
    }
}

/// 16 lanes of f32.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m512);

impl F32x16 {
    /// Rounds half to even: the conversion does.
    #[inline(always)]
    fn units(self) -> (__m256i, __m256i) {
        avx512! {
            let units = _mm512_cvtps_epi32(self.0);
            (_mm512_castsi512_si256(units), _mm512_extracti64x4_epi64::<1>(units))
        }
    }
}

impl Lanes<f32> for F32x16 {
    const WIDTH: usize = 16;
    type Wide = __m256d;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        avx512!(Self(_mm512_set1_ps(value)))
    }
    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        assert!(from.len() >= 16);
        avx512!(Self(_mm512_loadu_ps(from.as_ptr())))
    }
    #[inline(always)]
    fn load_part(from: &[f32]) -> Self {
        avx512!(Self(_mm512_maskz_loadu_ps(mask16(from.len().min(16)), from.as_ptr())))
    }
    #[inline(always)]
    fn load_f32(from: &[f32]) -> Self {
        Self::load(from)
    }
    #[inline(always)]
    fn load_f32_part(from: &[f32]) -> Self {
        Self::load_part(from)
    }
    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        assert!(to.len() >= 16);
        avx512!(_mm512_storeu_ps(to.as_mut_ptr(), self.0))
    }
    #[inline(always)]
    fn store_part(self, to: &mut [f32]) {
        avx512!(_mm512_mask_storeu_ps(to.as_mut_ptr(), mask16(to.len().min(16)), self.0))
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        avx512!(Self(_mm512_add_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        avx512!(Self(_mm512_sub_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        avx512!(Self(_mm512_mul_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        avx512!(Self(_mm512_fmadd_ps(self.0, a.0, b.0)))
    }
    #[inline(always)]
    fn mul_sub(self, a: Self, b: Self) -> Self {
        avx512!(Self(_mm512_fmsub_ps(self.0, a.0, b.0)))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // The instruction gives its second operand where either is NaN.
        avx512!(Self(_mm512_max_ps(other.0, self.0)))
    }
    #[inline(always)]
    fn power_from_low_bits(self) -> Self {
        avx512!(Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(self.0)))))
    }
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        avx512!(_mm512_reduce_max_ps(self.0))
    }
    #[inline(always)]
    fn wide_zero() -> Self::Wide {
        avx512!(_mm256_setzero_pd())
    }
    #[inline(always)]
    fn wide_add(self, to: Self::Wide) -> Self::Wide {
        avx512! {
            let eight = _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            _mm256_add_pd(to, _mm256_cvtps_pd(four))
        }
    }
    #[inline(always)]
    fn wide_sum(sum: Self::Wide) -> f64 {
        sum4(sum)
    }
    #[inline(always)]
    fn add_fixed(self, to: &mut [i64]) {
        self.add_fixed_part(&mut to[..16]);
    }
    #[inline(always)]
    fn add_fixed_part(self, to: &mut [i64]) {
        let (low, high) = self.units();
        let (first, second) = to.split_at_mut(to.len().min(8));
        accumulate(low, first);
        if !second.is_empty() {
            accumulate(high, second);
        }
    }
    type Square = [Self; 16];
    #[inline(always)]
    fn square() -> [Self; 16] {
        [Self::splat(0.0); 16]
    }
    #[inline(always)]
    fn transpose(square: [Self; 16]) -> [Self; 16] {
        let mut t = [square[0].0; 16];
        for i in 0..16 {
            t[i] = square[i].0;
        }
        let mut square = square;
        avx512! {
            // Pairs of rows, then pairs of pairs: four rows' worth of each column side by side.
            for i in [0, 2, 4, 6, 8, 10, 12, 14] {
                (t[i], t[i + 1]) = (_mm512_unpacklo_ps(t[i], t[i + 1]), _mm512_unpackhi_ps(t[i], t[i + 1]));
            }
            for i in [0, 4, 8, 12] {
                let (a, b) = (t[i], t[i + 1]);
                let (c, d) = (t[i + 2], t[i + 3]);
                t[i] = _mm512_shuffle_ps::<0x44>(a, c);
                t[i + 1] = _mm512_shuffle_ps::<0xee>(a, c);
                t[i + 2] = _mm512_shuffle_ps::<0x44>(b, d);
                t[i + 3] = _mm512_shuffle_ps::<0xee>(b, d);
            }
            // Vector 4g + c now holds column 4b + c of rows 4g.. in its 128-bit part b.
            for c in [0, 1, 2, 3] {
                let (even, odd) = (_mm512_shuffle_f32x4::<0x88>(t[c], t[c + 4]), _mm512_shuffle_f32x4::<0xdd>(t[c], t[c + 4]));
                let (even2, odd2) = (_mm512_shuffle_f32x4::<0x88>(t[c + 8], t[c + 12]), _mm512_shuffle_f32x4::<0xdd>(t[c + 8], t[c + 12]));
                square[c].0 = _mm512_shuffle_f32x4::<0x88>(even, even2);
                square[c + 8].0 = _mm512_shuffle_f32x4::<0xdd>(even, even2);
                square[c + 4].0 = _mm512_shuffle_f32x4::<0x88>(odd, odd2);
                square[c + 12].0 = _mm512_shuffle_f32x4::<0xdd>(odd, odd2);
            }
        }
        square
    }
    #[inline(always)]
    fn keep(self, count: usize, otherwise: Self) -> Self {
        avx512!(Self(_mm512_mask_blend_ps(mask16(count.min(16)), otherwise.0, self.0)))
    }
    #[inline(always)]
    fn equal(self, other: Self) -> u32 {
        avx512!(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, other.0)).into()
    }
    #[inline(always)]
    fn where_greater(self, limit: Self, other: Self, otherwise: Self) -> Self {
        avx512!(Self(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, limit.0), otherwise.0, other.0)))
    }
}

/// 8 lanes of f64.
#[derive(Clone, Copy)]
pub(crate) struct F64x8(__m512d);

impl Lanes<f64> for F64x8 {
    const WIDTH: usize = 8;
    type Wide = __m256d;

    #[inline(always)]
    fn splat(value: f64) -> Self {
        avx512!(Self(_mm512_set1_pd(value)))
    }
    #[inline(always)]
    fn load(from: &[f64]) -> Self {
        assert!(from.len() >= 8);
        avx512!(Self(_mm512_loadu_pd(from.as_ptr())))
    }
    #[inline(always)]
    fn load_part(from: &[f64]) -> Self {
        avx512!(Self(_mm512_maskz_loadu_pd(mask8(from.len().min(8)), from.as_ptr())))
    }
    #[inline(always)]
    fn load_f32(from: &[f32]) -> Self {
        assert!(from.len() >= 8);
        avx512!(Self(_mm512_cvtps_pd(_mm256_loadu_ps(from.as_ptr()))))
    }
    #[inline(always)]
    fn load_f32_part(from: &[f32]) -> Self {
        avx512!(Self(_mm512_cvtps_pd(_mm256_maskz_loadu_ps(mask8(from.len().min(8)), from.as_ptr()))))
    }
    #[inline(always)]
    fn store(self, to: &mut [f64]) {
        assert!(to.len() >= 8);
        avx512!(_mm512_storeu_pd(to.as_mut_ptr(), self.0))
    }
    #[inline(always)]
    fn store_part(self, to: &mut [f64]) {
        avx512!(_mm512_mask_storeu_pd(to.as_mut_ptr(), mask8(to.len().min(8)), self.0))
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        avx512!(Self(_mm512_add_pd(self.0, other.0)))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        avx512!(Self(_mm512_sub_pd(self.0, other.0)))
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        avx512!(Self(_mm512_mul_pd(self.0, other.0)))
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        avx512!(Self(_mm512_fmadd_pd(self.0, a.0, b.0)))
    }
    #[inline(always)]
    fn mul_sub(self, a: Self, b: Self) -> Self {
        avx512!(Self(_mm512_fmsub_pd(self.0, a.0, b.0)))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        avx512!(Self(_mm512_max_pd(other.0, self.0)))
    }
    #[inline(always)]
    fn power_from_low_bits(self) -> Self {
        avx512!(Self(_mm512_castsi512_pd(_mm512_slli_epi64::<52>(_mm512_castpd_si512(self.0)))))
    }
    #[inline(always)]
    fn reduce_max(self) -> f64 {
        avx512!(_mm512_reduce_max_pd(self.0))
    }
    #[inline(always)]
    fn wide_zero() -> Self::Wide {
        avx512!(_mm256_setzero_pd())
    }
    #[inline(always)]
    fn wide_add(self, to: Self::Wide) -> Self::Wide {
        avx512!(_mm256_add_pd(to, _mm256_add_pd(_mm512_castpd512_pd256(self.0), _mm512_extractf64x4_pd::<1>(self.0))))
    }
    #[inline(always)]
    fn wide_sum(sum: Self::Wide) -> f64 {
        sum4(sum)
    }
    #[inline(always)]
    fn add_fixed(self, to: &mut [i64]) {
        self.add_fixed_part(&mut to[..8]);
    }
    #[inline(always)]
    fn add_fixed_part(self, to: &mut [i64]) {
        accumulate(avx512!(_mm512_cvtpd_epi32(self.0)), to);
    }
    type Square = [Self; 8];
    #[inline(always)]
    fn square() -> [Self; 8] {
        [Self::splat(0.0); 8]
    }
    #[inline(always)]
    fn transpose(square: [Self; 8]) -> [Self; 8] {
        let mut t = [square[0].0; 8];
        for i in 0..8 {
            t[i] = square[i].0;
        }
        let mut square = square;
        avx512! {
            for i in [0, 2, 4, 6] {
                (t[i], t[i + 1]) = (_mm512_unpacklo_pd(t[i], t[i + 1]), _mm512_unpackhi_pd(t[i], t[i + 1]));
            }
            // Vector 2g + c now holds column 2b + c of rows 2g.. in its 128-bit part b.
            for c in [0, 1] {
                let (even, odd) = (_mm512_shuffle_f64x2::<0x88>(t[c], t[c + 2]), _mm512_shuffle_f64x2::<0xdd>(t[c], t[c + 2]));
                let (even2, odd2) = (_mm512_shuffle_f64x2::<0x88>(t[c + 4], t[c + 6]), _mm512_shuffle_f64x2::<0xdd>(t[c + 4], t[c + 6]));
                square[c].0 = _mm512_shuffle_f64x2::<0x88>(even, even2);
                square[c + 4].0 = _mm512_shuffle_f64x2::<0xdd>(even, even2);
                square[c + 2].0 = _mm512_shuffle_f64x2::<0x88>(odd, odd2);
                square[c + 6].0 = _mm512_shuffle_f64x2::<0xdd>(odd, odd2);
            }
        }
        square
    }
    #[inline(always)]
    fn keep(self, count: usize, otherwise: Self) -> Self {
        avx512!(Self(_mm512_mask_blend_pd(mask8(count.min(8)), otherwise.0, self.0)))
    }
    #[inline(always)]
    fn equal(self, other: Self) -> u32 {
        avx512!(_mm512_cmp_pd_mask::<_CMP_EQ_OQ>(self.0, other.0)).into()
    }
    #[inline(always)]
    fn where_greater(self, limit: Self, other: Self, otherwise: Self) -> Self {
        avx512!(Self(_mm512_mask_blend_pd(_mm512_cmp_pd_mask::<_CMP_GT_OQ>(self.0, limit.0), otherwise.0, other.0)))
    }
}

impl Halves for F32x16 {
    #[inline(always)]
    fn from_bf16(from: &[bf16]) -> Self {
        assert!(from.len() >= 16);
        avx512! {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)))
        }
    }
    #[inline(always)]
    fn to_bf16(self, to: &mut [bf16]) {
        assert!(to.len() >= 16);
        avx512! {
            let bits = _mm512_castps_si512(self.0);
            // Half of the last place, less one unit where that place is even.
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
            let quiet = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x0040_0000));
            _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(quiet)));
        }
    }
    #[inline(always)]
    fn from_f16(from: &[f16]) -> Self {
        assert!(from.len() >= 16);
        avx512!(Self(_mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast()))))
    }
    #[inline(always)]
    fn to_f16(self, to: &mut [f16]) {
        assert!(to.len() >= 16);
        avx512!(_mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0)))
    }
}
