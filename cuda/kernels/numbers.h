// Arithmetic that is reproducible bit for bit: correctly rounded operations and explicit fused multiply-adds. The
// only hardware approximation is that of a reciprocal (rcp.approx): the starting value in reciprocal(), and used as it is
// in the logarithm of a float. Compile without contraction (-fmad=false).
#pragma once
#include "platform.h"

// 1/x for x in [1, 2^100], correctly rounded for all but very few x: two Newton steps from a float approximation. A
// division would include branches for operands that do not occur here.
static DEVICE double reciprocal(double x) {
    double r = (double)reciprocal_of_float((float)x);
    r = fma(r, fma(-x, r, 1.0), r);
    return fma(r, fma(-x, r, 1.0), r);
}

// The arithmetic of a row: double for f64 logits, float for all others.
template <class Real> struct Arithmetic;

template <> struct Arithmetic<float> {
    static DEVICE float infinity() { return __int_as_float(0x7f800000); }
    static DEVICE float fma(float a, float b, float c) { return fmaf(a, b, c); }
    static DEVICE float max(float a, float b) { return fmaxf(a, b); }
    // The larger of the two; NaN if x is NaN.
    static DEVICE float at_least(float x, float least) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
        float larger;
        asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(x), "f"(least));
        return larger;
#else
        return x < least ? least : x;
#endif
    }
    static DEVICE bool finite(float x) { return fabsf(x) <= 3.402823466e38f; }

    // exp(x) for x <= 0, within 1.02 ulp down to 2^-126; 0 below 2^-127; NaN for NaN. Range reduction x = n*ln 2 + r
    // with |r| <= ln 2 / 2 (Cody and Waite), then a polynomial for exp(r) with a relative error of 3e-9, evaluated in
    // pairs of terms (Estrin). Same bits as src/cpu/exp.rs.
    static DEVICE float exp(float x) {
        x = at_least(x, -88.03f); // n = -127, for which the scale factor 2^n has the bits of 0
        const float magic = 12582912.0f + 127.0f; // 1.5 * 2^23 rounds to an integer in the low bits; 127: exponent bias
        float shifted = fmaf(x, 1.44269504f, magic);
        float n = shifted - magic;
        float r = fmaf(n, -1.428606765e-6f, fmaf(n, -0.693145752f, x));
        float square = r * r;
        float p = 0.00138145986f;
        p = fmaf(p, square, fmaf(0.00836871691f, r, 0.04166838805f));
        p = fmaf(p, square, fmaf(0.1666652063f, r, 0.4999999345f));
        return (1.0f + fmaf(p, square, r)) * __int_as_float((int)((unsigned)__float_as_int(shifted) << 23));
    }

    // ln(x) for finite x >= 1, within 2 ulp: ln(2^k m) with m = 1 + f in [sqrt(1/2), sqrt(2)], from the series of
    // 2*atanh(f/(2 + f)), arranged so that f itself is added exactly.
    static DEVICE float log(double x) {
        const unsigned high = (unsigned)((u64)__double_as_longlong(x) >> 32);
        const int k = (int)((high + (0x3ff00000u - 0x3fe6a09eu)) >> 20) - 1023; // one power more from sqrt(2) on
        const float f = (float)(__longlong_as_double(__double_as_longlong(x) - ((i64)k << 52)) - 1.0);
        const float s = f * reciprocal_of_float(f + 2.0f), w = s * s, half_square = 0.5f * f * f;
        const float p = w * fmaf(w, fmaf(w, fmaf(w, 0.2280f, 0.285714f), 0.4f), 0.666666687f);
        return fmaf((float)k, 0.693145752f, f - (half_square - fmaf(s, half_square + p, (float)k * 1.42860677e-6f)));
    }
};

template <> struct Arithmetic<double> {
    static DEVICE double infinity() { return __longlong_as_double(0x7ff0000000000000ll); }
    static DEVICE double fma(double a, double b, double c) { return ::fma(a, b, c); }
    static DEVICE double max(double a, double b) { return fmax(a, b); }
    static DEVICE bool finite(double x) { return fabs(x) <= 1.7976931348623157e308; }

    // exp(x) for x <= 0, within 2 ulp down to 2^-1022; 0 below 2^-1023; NaN for NaN. Range reduction x = n*ln 2 + r
    // with |r| <= ln 2 / 2 (Cody and Waite), then the Taylor polynomial of degree 13 for exp(r), evaluated in pairs
    // of terms (Estrin).
    static DEVICE double exp(double x) {
        x = x < -709.1 ? -709.1 : x;
        const double magic = 6755399441055744.0 + 1023.0;
        double shifted = ::fma(x, 1.4426950408889634, magic);
        double n = shifted - magic;
        double r = ::fma(n, -1.90821492927058770002e-10, ::fma(n, -6.93147180369123816490e-1, x));
        double square = r * r;
        double p = ::fma(1.0 / 6227020800.0, r, 1.0 / 479001600.0);
        p = ::fma(p, square, ::fma(1.0 / 39916800.0, r, 1.0 / 3628800.0));
        p = ::fma(p, square, ::fma(1.0 / 362880.0, r, 1.0 / 40320.0));
        p = ::fma(p, square, ::fma(1.0 / 5040.0, r, 1.0 / 720.0));
        p = ::fma(p, square, ::fma(1.0 / 120.0, r, 1.0 / 24.0));
        p = ::fma(p, square, ::fma(1.0 / 6.0, r, 0.5));
        return (1.0 + ::fma(p, square, r)) * __longlong_as_double((i64)((u64)__double_as_longlong(shifted) << 52));
    }

    // As for float.
    static DEVICE double log(double x) {
        i64 bits = __double_as_longlong(x);
        double m = __longlong_as_double((bits & 0x000fffffffffffffll) | 0x3ff0000000000000ll);
        double k = (double)((bits >> 52) - 1023);
        if (m > 1.4142135623730951) {
            m *= 0.5;
            k += 1.0;
        }
        double f = m - 1.0;
        double s = f * reciprocal(f + 2.0);
        double w = s * s;
        // 1/3 + w/5 + ... + w^9/21, as two independent chains of every other term.
        double w2 = w * w;
        double even = ::fma(w2, ::fma(w2, ::fma(w2, ::fma(w2, 1.0 / 19.0, 1.0 / 15.0), 1.0 / 11.0), 1.0 / 7.0), 1.0 / 3.0);
        double odd = ::fma(w2, ::fma(w2, ::fma(w2, ::fma(w2, 1.0 / 21.0, 1.0 / 17.0), 1.0 / 13.0), 1.0 / 9.0), 1.0 / 5.0);
        double p = ::fma(w, odd, even);
        double tail = ::fma(s, 2.0 * w * p - f, k * 1.90821492927058770002e-10);
        return ::fma(k, 6.93147180369123816490e-1, f + tail);
    }
};

// A lane's part of a long sum, in the row's own type with Kahan compensation. A plain float sum could lose 20,000
// equal terms next to a large one.
template <class Real> struct LaneSum {
    Real sum, excess;
    DEVICE LaneSum() : sum(0), excess(0) {}
    DEVICE void add(Real part) {
        Real corrected = part - excess;
        Real next = sum + corrected;
        excess = (next - sum) - corrected;
        sum = next;
    }
    DEVICE double value() const { return (double)sum - (double)excess; }
};

// Maps a float to an integer with the same order; not for NaN.
static DEVICE int ordered(float x) {
    const int bits = __float_as_int(x);
    return bits ^ (bits >> 31 & 0x7fffffff);
}
static DEVICE float of_ordered(int order) { return __int_as_float(order ^ (order >> 31 & 0x7fffffff)); }

// q * (max - z), where q = 0 gives 0 even if max - z is infinite; max and z are in the row's type.
template <class Real> DEVICE double hard_term(double q, Real of_max, Real of_z) {
    const double max = (double)of_max, z = (double)of_z;
    double distance = max - z;
    if (q == 0.0) return 0.0;
    // The difference of two doubles can overflow where the products do not.
    if (sizeof(Real) == 8 && !Arithmetic<double>::finite(distance) && Arithmetic<double>::finite(z)) return q * max - q * z;
    return q * distance;
}

// Storage types of logits and gradients: loads are exact, stores round once, half to even.
template <class T> struct Storage;
template <> struct Storage<float> {
    typedef float Real;
    static DEVICE float load(const float *p) { return *p; }
    static DEVICE void store(float *p, float x) { *p = x; }
};
template <> struct Storage<double> {
    typedef double Real;
    static DEVICE double load(const double *p) { return *p; }
    static DEVICE void store(double *p, double x) { *p = x; }
};
struct bf16 { unsigned short bits; };
template <> struct Storage<bf16> {
    typedef float Real;
    static DEVICE float load(const bf16 *p) { return __int_as_float((int)((unsigned)p->bits << 16)); }
    static DEVICE void store(bf16 *p, float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(p->bits) : "f"(x));
#else
        unsigned bits = (unsigned)__float_as_int(x);
        unsigned rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
        p->bits = (unsigned short)(x != x ? 0x7fffu : rounded);
#endif
    }
};
struct f16 { unsigned short bits; };
template <> struct Storage<f16> {
    typedef float Real;
    static DEVICE float load(const f16 *p) { return half_to_float(p->bits); }
    static DEVICE void store(f16 *p, float x) { p->bits = float_to_half(x); }
};

// Whether shared memory holds exponentials in place of the logits from the second sweep on: they have the same size.
template <class T> struct ExponentialsInPlace { enum { value = sizeof(T) == sizeof(typename Storage<T>::Real) }; };

// Packs and unpacks two adjacent 16-bit values, the first in the lower half; never called for other types.
template <class T> DEVICE T as_stored(unsigned bits) {
    if constexpr (sizeof(T) == 2) return T{(unsigned short)bits};
    else return T();
}
template <class T> DEVICE unsigned both_of(T first, T second) {
    if constexpr (sizeof(T) == 2) return (unsigned)first.bits | (unsigned)second.bits << 16;
    else return 0;
}
// The same for two floats, each rounded to the storage type.
template <class T> DEVICE unsigned both_stored(float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    unsigned both;
    if constexpr (Same<T, bf16>::value) asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
    else asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
    return both;
#else
    T entries[2];
    Storage<T>::store(&entries[0], first);
    Storage<T>::store(&entries[1], second);
    return both_of(entries[0], entries[1]);
#endif
}
