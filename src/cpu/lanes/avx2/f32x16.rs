//! 16 lanes of f32 in two registers of AVX2, and their conversions from and to 16 bits.
#![allow(unsafe_code, reason = "intrinsics")]

use core::arch::x86_64::*;

use half::{bf16, f16};

use super::super::x86::sum4;
use super::super::{Halves, Lanes};
use super::accumulate;

/// 16 lanes of f32.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(pub(super) __m256, pub(super) __m256);

/// Lane masks: the mask of the first n lanes starts n elements before the middle.
static MASKS_F32: [i32; 32] =
    [-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

impl F32x16 {
    /// The masks of the first `length` lanes.
    #[inline(always)]
    fn masks(length: usize) -> (__m256, __m256) {
        let masks = &MASKS_F32[16 - length.min(16)..][..16];
        avx2!((_mm256_loadu_ps(masks.as_ptr().cast()), _mm256_loadu_ps(masks.as_ptr().add(8).cast())))
    }
    /// Rounds half to even: the conversion does.
    #[inline(always)]
    fn units(self) -> [i32; 16] {
        let mut units = [0; 16];
        avx2! {
            let address = units.as_mut_ptr().cast::<__m256i>();
            _mm256_storeu_si256(address, _mm256_cvtps_epi32(self.0));
            _mm256_storeu_si256(address.add(1), _mm256_cvtps_epi32(self.1));
        }
        units
    }
}

impl Lanes<f32> for F32x16 {
    const WIDTH: usize = 16;
    type Wide = __m256d;

    halves!(
        f32,
        16,
        8,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_mul_ps,
        _mm256_fmadd_ps,
        _mm256_fmsub_ps,
        _mm256_max_ps,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_cmp_ps,
        _mm256_blendv_ps,
        _mm256_movemask_ps,
        transpose8
    );

    #[inline(always)]
    fn load_part(from: &[f32]) -> Self {
        let (low, high) = Self::masks(from.len());
        let address = from.as_ptr();
        avx2! {
            let (low, high) = (_mm256_castps_si256(low), _mm256_castps_si256(high));
            Self(_mm256_maskload_ps(address, low), _mm256_maskload_ps(address.wrapping_add(8), high))
        }
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
    fn store_part(self, to: &mut [f32]) {
        // Masked stores are slow on some processors, so a part is stored by up to four whole stores.
        let (length, mut address) = (to.len(), to.as_mut_ptr());
        avx2! {
            let mut eight = self.0;
            if length & 8 != 0 {
                _mm256_storeu_ps(address, eight);
                (eight, address) = (self.1, address.add(8));
            }
            let mut four = _mm256_castps256_ps128(eight);
            if length & 4 != 0 {
                _mm_storeu_ps(address, four);
                (four, address) = (_mm256_extractf128_ps::<1>(eight), address.add(4));
            }
            if length & 2 != 0 {
                _mm_storel_epi64(address.cast(), _mm_castps_si128(four));
                (four, address) = (_mm_movehl_ps(four, four), address.add(2));
            }
            if length & 1 != 0 {
                _mm_store_ss(address, four);
            }
        }
    }
    #[inline(always)]
    fn power_from_low_bits(self) -> Self {
        avx2! {
            let (low, high) = (_mm256_castps_si256(self.0), _mm256_castps_si256(self.1));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(low)), _mm256_castsi256_ps(_mm256_slli_epi32::<23>(high)))
        }
    }
    #[inline(always)]
    fn reduce_max(self) -> f32 {
        avx2! {
            let eight = _mm256_max_ps(self.0, self.1);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    fn wide_zero() -> Self::Wide {
        avx2!(_mm256_setzero_pd())
    }
    #[inline(always)]
    fn wide_add(self, to: Self::Wide) -> Self::Wide {
        avx2! {
            let eight = _mm256_add_ps(self.0, self.1);
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
        let (first, second) = to[..16].split_at_mut(8);
        for (half, to) in [(self.0, first), (self.1, second)] {
            avx2! {
                let units = _mm256_cvtps_epi32(half);
                let (low, high) = to.split_at_mut(4);
                accumulate(_mm256_castsi256_si128(units), low);
                accumulate(_mm256_extracti128_si256::<1>(units), high);
            }
        }
    }
}

/// Lane j of vector i becomes lane i of vector j.
#[inline(always)]
fn transpose8(rows: [__m256; 8]) -> [__m256; 8] {
    let mut t = rows;
    avx2! {
        for i in [0, 2, 4, 6] {
            (t[i], t[i + 1]) = (_mm256_unpacklo_ps(t[i], t[i + 1]), _mm256_unpackhi_ps(t[i], t[i + 1]));
        }
        for i in [0, 4] {
            let (a, b) = (t[i], t[i + 1]);
            let (c, d) = (t[i + 2], t[i + 3]);
            t[i] = _mm256_shuffle_ps::<0x44>(a, c);
            t[i + 1] = _mm256_shuffle_ps::<0xee>(a, c);
            t[i + 2] = _mm256_shuffle_ps::<0x44>(b, d);
            t[i + 3] = _mm256_shuffle_ps::<0xee>(b, d);
        }
        for i in [0, 1, 2, 3] {
            (t[i], t[i + 4]) = (_mm256_permute2f128_ps::<0x20>(t[i], t[i + 4]), _mm256_permute2f128_ps::<0x31>(t[i], t[i + 4]));
        }
    }
    t
}

impl Halves for F32x16 {
    #[inline(always)]
    fn from_bf16(from: &[bf16]) -> Self {
        assert!(from.len() >= 16);
        avx2! {
            let address = from.as_ptr().cast::<__m128i>();
            let (low, high) = (_mm256_cvtepu16_epi32(_mm_loadu_si128(address)), _mm256_cvtepu16_epi32(_mm_loadu_si128(address.add(1))));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)))
        }
    }
    #[inline(always)]
    fn to_bf16(self, to: &mut [bf16]) {
        assert!(to.len() >= 16);
        let (low, high) = (round_to_bf16(self.0), round_to_bf16(self.1));
        avx2! {
            // Packing interleaves 128-bit parts; the permutation restores their order.
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low, high));
            _mm256_storeu_si256(to.as_mut_ptr().cast(), packed);
        }
    }
    #[inline(always)]
    fn from_f16(from: &[f16]) -> Self {
        assert!(from.len() >= 16);
        avx2! {
            let address = from.as_ptr().cast::<__m128i>();
            Self(_mm256_cvtph_ps(_mm_loadu_si128(address)), _mm256_cvtph_ps(_mm_loadu_si128(address.add(1))))
        }
    }
    #[inline(always)]
    fn to_f16(self, to: &mut [f16]) {
        assert!(to.len() >= 16);
        avx2! {
            let address = to.as_mut_ptr().cast::<__m128i>();
            _mm_storeu_si128(address, _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
            _mm_storeu_si128(address.add(1), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.1));
        }
    }
}

/// The upper 16 bits of each lane, rounded half to even, in the lower ones.
#[inline(always)]
fn round_to_bf16(lanes: __m256) -> __m256i {
    avx2! {
        let bits = _mm256_castps_si256(lanes);
        // Half of the last place, less one unit where that place is even.
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff));
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(lanes, lanes));
        _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan))
    }
}
