//! exp for arguments <= 0, and ln, from correctly rounded operations and fused multiply-add alone, so that every machine computes the same bits.
#![expect(clippy::excessive_precision, reason = "constants have all digits that they were computed with")]

use std::hint::black_box;

use super::lanes::{Lanes, Real};

const LOG2_E: f64 = std::f64::consts::LOG2_E;

/// The most coefficients that the polynomial of a type has.
const MAX_COEFFICIENTS: usize = 12;

/// The constants of exp in an arithmetic type.
pub(crate) trait Exponential: Sized + 'static {
    /// Adding it rounds a small number to an integer, and leaves that integer plus the exponent's bias in the lowest bits: 1.5 times the power
    /// of two whose last bit is worth 1, plus the bias.
    const MAGIC: Self;
    const LOG2_E: Self;
    /// -ln 2 in two parts (Cody and Waite): the product of the first and an exponent is exact.
    const MINUS_LN2: [Self; 2];
    /// The polynomial for exp on [-ln 2 / 2, ln 2 / 2], from the highest power down to the square; the coefficients of the last two are 1.
    const COEFFICIENTS: &'static [Self];
    const ONE: Self;
    /// The argument below which results are flushed to 0: it rounds to the exponent whose power of two has the bits of 0.
    const FLUSHED: Self;
}

impl Exponential for f32 {
    const MAGIC: f32 = 12_582_912.0 + 127.0;
    const LOG2_E: f32 = LOG2_E as f32;
    const MINUS_LN2: [f32; 2] = [-0.693_145_752, -1.428_606_765e-6];
    /// Relative error 3e-9, fitted by iteratively reweighted least squares.
    const COEFFICIENTS: &'static [f32] = &[0.001_381_459_86, 0.008_368_716_91, 0.041_668_388_05, 0.166_665_206_3, 0.499_999_934_5];
    const ONE: f32 = 1.0;
    const FLUSHED: f32 = -88.03;
}

impl Exponential for f64 {
    const MAGIC: f64 = 6_755_399_441_055_744.0 + 1023.0;
    const LOG2_E: f64 = LOG2_E;
    const MINUS_LN2: [f64; 2] = [-LN2_HIGH, -LN2_LOW];
    /// 1/13!, 1/12!, ..., 1/2!
    const COEFFICIENTS: &'static [f64] = &[
        1.0 / 6_227_020_800.0,
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
    ];
    const ONE: f64 = 1.0;
    const FLUSHED: f64 = -709.1;
}

/// The constants of exp, as numbers or as vectors of them.
#[derive(Clone, Copy)]
pub(crate) struct Exp<T> {
    log2_e: T,
    magic: T,
    minus_ln2: [T; 2],
    coefficients: [T; MAX_COEFFICIENTS],
    one: T,
    flushed: T,
}

impl<R: Real> Exp<R> {
    /// The numbers. Opaque to the compiler, which would otherwise load the constants from memory for every use.
    #[inline(always)]
    pub fn constants() -> Self {
        let one = black_box(R::ONE);
        let mut coefficients = [one; MAX_COEFFICIENTS];
        let mut index = 0;
        while index < R::COEFFICIENTS.len() {
            coefficients[index] = black_box(R::COEFFICIENTS[index]);
            index += 1;
        }
        let minus_ln2 = [black_box(R::MINUS_LN2[0]), black_box(R::MINUS_LN2[1])];
        Self { log2_e: black_box(R::LOG2_E), magic: black_box(R::MAGIC), minus_ln2, coefficients, one, flushed: black_box(R::FLUSHED) }
    }

    /// The vectors. To be made anew for each chain: otherwise the compiler no longer knows that both registers of an AVX2 vector hold the same
    /// number.
    #[inline(always)]
    pub fn vectors<L: Lanes<R>>(&self) -> Exp<L> {
        let Self { log2_e, magic, minus_ln2: [high, low], one, flushed, .. } = *self;
        let mut coefficients = [L::splat(one); MAX_COEFFICIENTS];
        let mut index = 0;
        while index < R::COEFFICIENTS.len() {
            coefficients[index] = L::splat(self.coefficients[index]);
            index += 1;
        }
        let minus_ln2 = [L::splat(high), L::splat(low)];
        Exp { log2_e: L::splat(log2_e), magic: L::splat(magic), minus_ln2, coefficients, one: L::splat(one), flushed: L::splat(flushed) }
    }
}

impl<L> Exp<L> {
    /// `exp(x)` for lanes x <= 0, within 1.02 ulp (f32) or 2 ulp (f64) down to the smallest normal number; 0 below half of that; NaN for NaN.
    ///
    /// x = n*ln 2 + r with |r| <= ln 2 / 2. exp(r) is `1 + (r + r^2 * p(r))`, with p by Estrin's scheme, which has short dependency chains. 2^n
    /// is made from the bits that adding the magic number leaves. `N` vectors advance step by step together, to hide latencies.
    #[inline(always)]
    pub fn nonpositive<R: Real, const N: usize>(&self, x: [L; N]) -> [L; N]
    where
        L: Lanes<R>,
    {
        let (mut r, mut shifted, mut square, mut p) = (x, x, x, x);
        let mut i = 0;
        while i < N {
            r[i] = x[i].max(self.flushed);
            shifted[i] = r[i].mul_add(self.log2_e, self.magic);
            i += 1;
        }
        i = 0;
        while i < N {
            let n = shifted[i].sub(self.magic);
            r[i] = n.mul_add(self.minus_ln2[1], n.mul_add(self.minus_ln2[0], r[i]));
            square[i] = r[i].mul(r[i]);
            i += 1;
        }
        let count = R::COEFFICIENTS.len();
        let c = &self.coefficients;
        i = 0;
        while i < N {
            p[i] = if count % 2 == 1 { c[0] } else { c[0].mul_add(r[i], c[1]) };
            i += 1;
        }
        let mut at = 2 - count % 2;
        while at < count {
            i = 0;
            while i < N {
                p[i] = p[i].mul_add(square[i], c[at].mul_add(r[i], c[at + 1]));
                i += 1;
            }
            at += 2;
        }
        i = 0;
        while i < N {
            p[i] = self.one.add(p[i].mul_add(square[i], r[i])).mul(shifted[i].power_from_low_bits());
            i += 1;
        }
        p
    }
}

/// ln 2 with 11 trailing zero bits, so that its product with an exponent is exact.
const LN2_HIGH: f64 = 6.931_471_803_691_238_164_90e-1;
/// ln 2 - LN2_HIGH.
const LN2_LOW: f64 = 1.908_214_929_270_587_700_02e-10;

/// `1 / odd + w / (odd + 2)`.
#[inline(always)]
fn pair(w: f64, odd: f64) -> f64 {
    w.mul_add(1.0 / (odd + 2.0), 1.0 / odd)
}

/// `ln(x)` for finite x >= 1, within 2 ulp: ln(2^k m) with m in [sqrt(1/2), sqrt(2)] by the series of 2*atanh((m - 1)/(m + 1)).
#[inline(always)]
pub(crate) fn ln_f64(x: f64) -> f64 {
    let mut m = f64::from_bits((x.to_bits() & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    // The exponent as the lowest bits of 2^52, whose last bit is worth 1: AVX2 cannot convert vectors of 64-bit integers.
    let mut k = f64::from_bits((x.to_bits() >> 52) | 0x4330_0000_0000_0000) - (4_503_599_627_370_496.0 + 1023.0);
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        k += 1.0;
    }
    let f = m - 1.0;
    let s = f / (f + 2.0);
    let w = s * s;
    // 1/3 + w/5 + ... + w^9/21 by Estrin's scheme.
    let (w2, w4) = (w * w, (w * w) * (w * w));
    let low = w2.mul_add(pair(w, 7.0), pair(w, 3.0));
    let high = w4.mul_add(pair(w, 19.0), w2.mul_add(pair(w, 15.0), pair(w, 11.0)));
    let p = w4.mul_add(high, low);
    // 2s + 2s*w*p, where 2s = f - s*f, and f is added last so that none of its bits is lost.
    let tail = s.mul_add((2.0 * w) * p - f, k * LN2_LOW);
    k.mul_add(LN2_HIGH, f + tail)
}

#[cfg(test)]
mod tests {
    use super::super::lanes::{Portable, Vectors};
    use super::*;

    /// exp of one number.
    fn exp_f32(x: f32) -> f32 {
        let mut first = [0.0];
        Exp::constants().vectors().nonpositive([<Portable as Vectors>::F32::splat(x)])[0].store_part(&mut first);
        first[0]
    }

    /// exp of one number.
    fn exp_f64(x: f64) -> f64 {
        let mut first = [0.0];
        Exp::constants().vectors().nonpositive([<Portable as Vectors>::F64::splat(x)])[0].store_part(&mut first);
        first[0]
    }

    /// The largest error over all arguments is 1.0193 ulp.
    const WORST_F32: f64 = 1.02;

    /// exp is less than 2^-126 below this.
    const LOWEST_NORMAL: f32 = -87.336_54;

    /// The error in units of the last place of the correctly rounded result.
    fn ulps(value: f64, exact: f64, mantissa_bits: i32) -> f64 {
        (value - exact).abs() / 2f64.powi(exact.abs().log2().floor() as i32) * 2f64.powi(mantissa_bits)
    }

    #[test]
    fn exp_f32_is_accurate() {
        let mut worst = 0f64;
        let mut bits = (-0f32).to_bits();
        while f32::from_bits(bits) > LOWEST_NORMAL {
            let x = f32::from_bits(bits);
            worst = worst.max(ulps(f64::from(exp_f32(x)), f64::from(x).exp(), 23));
            bits += 1009;
        }
        assert!(worst <= WORST_F32, "{worst} ulp");
    }

    /// Every f32 that a row can hold once its maximum is subtracted. Takes half a minute in release: `cargo test --release -- --ignored exp`.
    #[test]
    #[ignore = "exhaustive: over a thousand million arguments"]
    fn exp_f32_is_accurate_everywhere() {
        let mut worst = 0f64;
        for bits in (-0f32).to_bits()..LOWEST_NORMAL.to_bits() {
            let x = f32::from_bits(bits);
            worst = worst.max(ulps(f64::from(exp_f32(x)), f64::from(x).exp(), 23));
        }
        println!("worst: {worst} ulp");
        assert!(worst <= WORST_F32, "{worst} ulp");
    }

    #[test]
    fn exp_f64_is_within_two_ulp() {
        let mut worst = 0f64;
        for step in 0..1_000_000 {
            let x = -700.0 * (f64::from(step) / 1e6).powi(3);
            worst = worst.max(ulps(exp_f64(x), x.exp(), 52));
        }
        assert!(worst <= 2.0, "{worst} ulp");
    }

    #[test]
    fn exp_at_the_edges() {
        assert_eq!((exp_f32(0.0), exp_f32(-0.0), exp_f64(0.0)), (1.0, 1.0, 1.0));
        assert_eq!((exp_f32(f32::NEG_INFINITY), exp_f32(f32::MIN), exp_f32(-88.0)), (0.0, 0.0, 0.0));
        assert_eq!((exp_f64(f64::NEG_INFINITY), exp_f64(f64::MIN), exp_f64(-709.0)), (0.0, 0.0, 0.0));
        assert!(exp_f32(f32::NAN).is_nan() && exp_f64(f64::NAN).is_nan());
        // In the range of subnormal results: 0 or the right number.
        let mut x = LOWEST_NORMAL;
        while x > f32::FLUSHED {
            assert!(exp_f32(x) == 0.0 || ulps(f64::from(exp_f32(x)), f64::from(x).exp(), 22) <= 2.0, "{x}: {}", exp_f32(x));
            x = x.next_down();
        }
    }

    #[test]
    fn ln_is_within_two_ulp() {
        let mut worst = 0f64;
        for step in 1..1_000_000 {
            for x in [1.0 + f64::from(step) * 1e-6, 1.0 + f64::from(step) * 0.37, 1.0 + f64::from(step) * 1e-13] {
                worst = worst.max(ulps(ln_f64(x), x.ln(), 52));
            }
        }
        assert_eq!(ln_f64(1.0), 0.0);
        assert!(worst <= 2.0, "{worst} ulp");
    }
}
