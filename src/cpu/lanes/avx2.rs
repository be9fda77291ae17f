//! Vectors of AVX2, FMA and F16C: two registers each.
#![allow(unsafe_code, reason = "intrinsics")]

use core::arch::x86_64::*;

use half::{bf16, f16};

use super::{Halves, Lanes, Vectors};

/// Vectors of two times 256 bits.
pub(crate) struct Avx2;

impl Vectors for Avx2 {
    type F32 = F32x16;
    type F64 = F64x8;
}

/// Wraps intrinsics of AVX2, FMA and F16C.
macro_rules! avx2 {
    ($($body:tt)*) => {
        // SAFETY: the processor has these extensions, since only `dispatch` gives out the vectors of this module. Addresses come from slices whose
        // length was asserted, or are masked to their length.
        unsafe { $($body)* }
    };
}

/// Adds four units to the first four numbers of `to`.
#[inline(always)]
fn accumulate(units: __m128i, to: &mut [i64]) {
    assert!(to.len() >= 4);
    avx2! {
        let address = to.as_mut_ptr().cast::<__m256i>();
        _mm256_storeu_si256(address, _mm256_add_epi64(_mm256_loadu_si256(address), _mm256_cvtepi32_epi64(units)));
    }
}

/// Adds four lanes up: the upper half onto the lower one until one is left.
#[inline(always)]
fn sum4(four: __m256d) -> f64 {
    avx2! {
        let two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd::<1>(four));
        _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
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

/// What both vectors do alike, half by half.
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
            // Quarter by quarter; those off the diagonal change places.
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

/// 16 lanes of f32.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m256, __m256);

/// Bits of the lanes that are there, then of those that are not: a part of a vector is masked by what starts so far before the middle as it is long.
static MASKS_F32: [i32; 32] =
    [-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
static MASKS_F64: [i64; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

impl F32x16 {
    /// Masks of the first `length` lanes, at most all.
    #[inline(always)]
    fn masks(length: usize) -> (__m256, __m256) {
        let masks = &MASKS_F32[16 - length.min(16)..][..16];
        avx2!((_mm256_loadu_ps(masks.as_ptr().cast()), _mm256_loadu_ps(masks.as_ptr().add(8).cast())))
    }
    /// Units of the statistics: one conversion, which rounds half to even.
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
        // Masked stores are slow on some processors; a part is at most four whole ones.
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

/// 8 lanes of f64.
#[derive(Clone, Copy)]
pub(crate) struct F64x8(__m256d, __m256d);

impl F64x8 {
    /// Masks of the first `length` lanes, at most all.
    #[inline(always)]
    fn masks(length: usize) -> (__m256d, __m256d) {
        let masks = &MASKS_F64[8 - length.min(8)..][..8];
        avx2!((_mm256_loadu_pd(masks.as_ptr().cast()), _mm256_loadu_pd(masks.as_ptr().add(4).cast())))
    }
    /// Units of the statistics: one conversion, which rounds half to even.
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
            // Packing takes 128-bit parts in turns; the permutation puts them in order.
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
