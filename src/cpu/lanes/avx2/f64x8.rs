//! 8 lanes of f64 in two registers of AVX2.
#![allow(unsafe_code, reason = "intrinsics")]

use core::arch::x86_64::*;

use super::super::Lanes;
use super::super::x86::sum4;
use super::accumulate;
use super::f32x16::F32x16;

/// 8 lanes of f64.
#[derive(Clone, Copy)]
pub(crate) struct F64x8(__m256d, __m256d);

/// Lane masks: the mask of the first n lanes starts n elements before the middle.
static MASKS_F64: [i64; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

impl F64x8 {
    /// The masks of the first `length` lanes.
    #[inline(always)]
    fn masks(length: usize) -> (__m256d, __m256d) {
        let masks = &MASKS_F64[8 - length.min(8)..][..8];
        avx2!((_mm256_loadu_pd(masks.as_ptr().cast()), _mm256_loadu_pd(masks.as_ptr().add(4).cast())))
    }
    /// Rounds half to even: the conversion does.
    #[inline(always)]
    fn units(self) -> [i32; 8] {
        let mut units = [0; 8];
        avx2! {
            let address = units.as_mut_ptr().cast::<__m128i>();
            _mm_storeu_si128(address, _mm256_cvtpd_epi32(self.0));
            _mm_storeu_si128(address.add(1), _mm256_cvtpd_epi32(self.1));
        }
        units
    }
}

impl Lanes<f64> for F64x8 {
    const WIDTH: usize = 8;
    type Wide = __m256d;

    halves!(
        f64,
        8,
        4,
        _mm256_add_pd,
        _mm256_sub_pd,
        _mm256_mul_pd,
        _mm256_fmadd_pd,
        _mm256_fmsub_pd,
        _mm256_max_pd,
        _mm256_set1_pd,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_cmp_pd,
        _mm256_blendv_pd,
        _mm256_movemask_pd,
        transpose4
    );

    #[inline(always)]
    fn load_part(from: &[f64]) -> Self {
        let (low, high) = Self::masks(from.len());
        let address = from.as_ptr();
        avx2! {
            let (low, high) = (_mm256_castpd_si256(low), _mm256_castpd_si256(high));
            Self(_mm256_maskload_pd(address, low), _mm256_maskload_pd(address.wrapping_add(4), high))
        }
    }
    #[inline(always)]
    fn load_f32(from: &[f32]) -> Self {
        assert!(from.len() >= 8);
        avx2!(Self(_mm256_cvtps_pd(_mm_loadu_ps(from.as_ptr())), _mm256_cvtps_pd(_mm_loadu_ps(from.as_ptr().add(4)))))
    }
    #[inline(always)]
    fn load_f32_part(from: &[f32]) -> Self {
        let F32x16(lanes, _) = F32x16::load_part(from);
        avx2!(Self(_mm256_cvtps_pd(_mm256_castps256_ps128(lanes)), _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(lanes))))
    }
    #[inline(always)]
    fn store_part(self, to: &mut [f64]) {
        let (length, mut address) = (to.len(), to.as_mut_ptr());
        avx2! {
            let mut four = self.0;
            if length & 4 != 0 {
                _mm256_storeu_pd(address, four);
                (four, address) = (self.1, address.add(4));
            }
            let mut two = _mm256_castpd256_pd128(four);
            if length & 2 != 0 {
                _mm_storeu_pd(address, two);
                (two, address) = (_mm256_extractf128_pd::<1>(four), address.add(2));
            }
            if length & 1 != 0 {
                _mm_store_sd(address, two);
            }
        }
    }
    #[inline(always)]
    fn power_from_low_bits(self) -> Self {
        avx2! {
            let (low, high) = (_mm256_castpd_si256(self.0), _mm256_castpd_si256(self.1));
            Self(_mm256_castsi256_pd(_mm256_slli_epi64::<52>(low)), _mm256_castsi256_pd(_mm256_slli_epi64::<52>(high)))
        }
    }
    #[inline(always)]
    fn reduce_max(self) -> f64 {
        avx2! {
            let four = _mm256_max_pd(self.0, self.1);
            let two = _mm_max_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd::<1>(four));
            _mm_cvtsd_f64(_mm_max_sd(two, _mm_unpackhi_pd(two, two)))
        }
    }
    #[inline(always)]
    fn wide_zero() -> Self::Wide {
        avx2!(_mm256_setzero_pd())
    }
    #[inline(always)]
    fn wide_add(self, to: Self::Wide) -> Self::Wide {
        avx2!(_mm256_add_pd(to, _mm256_add_pd(self.0, self.1)))
    }
    #[inline(always)]
    fn wide_sum(sum: Self::Wide) -> f64 {
        sum4(sum)
    }
    #[inline(always)]
    fn add_fixed(self, to: &mut [i64]) {
        let (low, high) = to[..8].split_at_mut(4);
        accumulate(avx2!(_mm256_cvtpd_epi32(self.0)), low);
        accumulate(avx2!(_mm256_cvtpd_epi32(self.1)), high);
    }
}

/// Lane j of vector i becomes lane i of vector j.
#[inline(always)]
fn transpose4(rows: [__m256d; 4]) -> [__m256d; 4] {
    let mut t = rows;
    avx2! {
        for i in [0, 2] {
            (t[i], t[i + 1]) = (_mm256_unpacklo_pd(t[i], t[i + 1]), _mm256_unpackhi_pd(t[i], t[i + 1]));
        }
        for i in [0, 1] {
            (t[i], t[i + 2]) = (_mm256_permute2f128_pd::<0x20>(t[i], t[i + 2]), _mm256_permute2f128_pd::<0x31>(t[i], t[i + 2]));
        }
    }
    t
}
