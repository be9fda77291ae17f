//! What the vectors of AVX2 and of AVX-512 have in common.
#![allow(unsafe_code, reason = "intrinsics")]

use core::arch::x86_64::*;

/// The sum of four lanes: the upper half is added to the lower one until one lane is left.
#[inline(always)]
pub(super) fn sum4(four: __m256d) -> f64 {
    // SAFETY: AVX is there, since only `dispatch` gives out the vectors whose methods call this.
    unsafe {
        let two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd::<1>(four));
        _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
    }
}
