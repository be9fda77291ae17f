//! exp for arguments <= 0, and log, the same bits on every machine: nothing but correctly rounded operations and fused multiply-add.
#![expect(clippy::excessive_precision, reason = "constants are given with the digits they were computed with")]

use std::hint::black_box;

use super::lanes::Lanes;

const LOG2_E: f64 = std::f64::consts::LOG2_E;

/// Rounds to -127 powers of two, whose factor has the bits of 0: what lies below becomes 0 with it.
const LOWEST_F32: f32 = -88.03;

/// exp with its constants in registers; a compiler that knows them would load them again for every use.
pub(crate) trait Exp<L>: Copy {
    fn new() -> Self;
    /// exp of lanes <= 0 or NaN.
    fn nonpositive(&self, x: L) -> L;
}

#[derive(Clone, Copy)]
pub(crate) struct ExpF32<L> {
    log2_e: L,
    /// 1.5 * 2^23 rounds a small number to an integer and keeps it in the low bits; 127 is the exponent's bias.
    magic: L,
    minus_ln2_high: L,
    minus_ln2_low: L,
    /// Of the polynomial, the highest power first; the last two are 1.
    coefficients: [L; 5],
    one: L,
    lowest: L,
}

impl<L: Lanes<f32>> Exp<L> for ExpF32<L> {
    #[inline(always)]
    fn new() -> Self {
        let constant = |value: f32| black_box(L::splat(value));
        Self {
            log2_e: constant(LOG2_E as f32),
            magic: constant(12_582_912.0 + 127.0),
            minus_ln2_high: constant(-0.693_145_752),
            minus_ln2_low: constant(-1.428_606_765e-6),
            coefficients: [
                constant(0.001_381_459_86),
                constant(0.008_368_716_91),
                constant(0.041_668_388_05),
                constant(0.166_665_206_3),
                constant(0.499_999_934_5),
            ],
            one: constant(1.0),
            lowest: constant(LOWEST_F32),
        }
    }

    /// `exp(x)` for lanes x <= 0, within 1 ulp down to 2^-126; 0 below 2^-127; NaN for NaN.
    ///
    /// x = n*ln 2 + r with |r| <= ln 2 / 2 (Cody and Waite); exp(r) is a polynomial with relative error 3e-9, fitted by iteratively reweighted
    /// least squares; 2^n comes from the bits that adding `magic` leaves.
    #[inline(always)]
    fn nonpositive(&self, x: L) -> L {
        let x = x.max(self.lowest);
        let shifted = x.mul_add(self.log2_e, self.magic);
        let n = shifted.sub(self.magic);
        let r = n.mul_add(self.minus_ln2_low, n.mul_add(self.minus_ln2_high, x));
        let [c6, c5, c4, c3, c2] = self.coefficients;
        let mut p = c6.mul_add(r, c5);
        p = p.mul_add(r, c4);
        p = p.mul_add(r, c3);
        p = p.mul_add(r, c2);
        p = p.mul_add(r, self.one);
        p = p.mul_add(r, self.one);
        p.mul(shifted.power_from_low_bits())
    }
}

/// As [`LOWEST_F32`], for -1023 powers of two.
const LOWEST_F64: f64 = -709.1;

// 1/13!, 1/12!, ..., 1/2!
const COEFFICIENTS_F64: [f64; 12] = [
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

#[derive(Clone, Copy)]
pub(crate) struct ExpF64<L> {
    log2_e: L,
    magic: L,
    minus_ln2_high: L,
    minus_ln2_low: L,
    coefficients: [L; 12],
    one: L,
    lowest: L,
}

impl<L: Lanes<f64>> Exp<L> for ExpF64<L> {
    #[inline(always)]
    fn new() -> Self {
        let mut coefficients = [L::splat(0.0); 12];
        let mut i = 0;
        while i < coefficients.len() {
            coefficients[i] = L::splat(COEFFICIENTS_F64[i]);
            i += 1;
        }
        Self {
            log2_e: L::splat(LOG2_E),
            magic: L::splat(6_755_399_441_055_744.0 + 1023.0),
            minus_ln2_high: L::splat(-LN2_HIGH),
            minus_ln2_low: L::splat(-LN2_LOW),
            coefficients,
            one: L::splat(1.0),
            lowest: L::splat(LOWEST_F64),
        }
    }

    /// `exp(x)` for lanes x <= 0, within 1 ulp down to 2^-1022; 0 below 2^-1023; NaN for NaN. As for f32, with the Taylor polynomial of degree 13.
    #[inline(always)]
    fn nonpositive(&self, x: L) -> L {
        let x = x.max(self.lowest);
        let shifted = x.mul_add(self.log2_e, self.magic);
        let n = shifted.sub(self.magic);
        let r = n.mul_add(self.minus_ln2_low, n.mul_add(self.minus_ln2_high, x));
        let mut p = self.coefficients[0];
        let mut i = 1;
        while i < self.coefficients.len() {
            p = p.mul_add(r, self.coefficients[i]);
            i += 1;
        }
        p = p.mul_add(r, self.one);
        p = p.mul_add(r, self.one);
        p.mul(shifted.power_from_low_bits())
    }
}

/// ln 2 with 11 zero bits at its end, so that its product with an exponent is exact.
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
    let mut k = (x.to_bits() >> 52) as i64 - 1023;
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        k += 1;
    }
    let (f, k) = (m - 1.0, k as f64);
    let s = f / (f + 2.0);
    let w = s * s;
    // 1/3 + w/5 + ... + w^9/21, in pairs (Estrin), so that no step waits for more than a few others.
    let (w2, w4) = (w * w, (w * w) * (w * w));
    let low = w2.mul_add(pair(w, 7.0), pair(w, 3.0));
    let high = w4.mul_add(pair(w, 19.0), w2.mul_add(pair(w, 15.0), pair(w, 11.0)));
    let p = w4.mul_add(high, low);
    // 2s + 2s*w*p, with 2s = f - s*f kept apart from f so that f's own bits survive.
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
        ExpF32::new().nonpositive(<Portable as Vectors>::F32::splat(x)).store_part(&mut first);
        first[0]
    }

    /// exp of one number.
    fn exp_f64(x: f64) -> f64 {
        let mut first = [0.0];
        ExpF64::new().nonpositive(<Portable as Vectors>::F64::splat(x)).store_part(&mut first);
        first[0]
    }

    /// exp of what lies below is less than 2^-126.
    const LOWEST_NORMAL: f32 = -87.336_54;

    /// Distance in units of the last place of the correctly rounded result.
    fn ulps(value: f64, exact: f64, mantissa_bits: i32) -> f64 {
        (value - exact).abs() / 2f64.powi(exact.abs().log2().floor() as i32) * 2f64.powi(mantissa_bits)
    }

    #[test]
    fn exp_f32_is_within_one_ulp() {
        let mut worst = 0f64;
        let mut bits = (-0f32).to_bits();
        while f32::from_bits(bits) > LOWEST_NORMAL {
            let x = f32::from_bits(bits);
            worst = worst.max(ulps(f64::from(exp_f32(x)), f64::from(x).exp(), 23));
            bits += 1009;
        }
        assert!(worst <= 1.0, "{worst} ulp");
    }

    /// Every f32 that a row can hold once its maximum is subtracted. Takes half a minute in release: `cargo test --release -- --ignored exp`.
    #[test]
    #[ignore = "exhaustive: over a thousand million arguments"]
    fn exp_f32_is_within_one_ulp_everywhere() {
        let mut worst = 0f64;
        for bits in (-0f32).to_bits()..LOWEST_NORMAL.to_bits() {
            let x = f32::from_bits(bits);
            worst = worst.max(ulps(f64::from(exp_f32(x)), f64::from(x).exp(), 23));
        }
        println!("worst: {worst} ulp");
        assert!(worst <= 1.0, "{worst} ulp");
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
        // Between: 0, or the number that it is, but never a wrong one.
        let mut x = LOWEST_NORMAL;
        while x > LOWEST_F32 {
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
