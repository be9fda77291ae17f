// The few things that a CUDA compiler and the block emulator of the tests (cuda/tests/emulator.h) spell differently.
#pragma once
#include "arguments.h"

#ifdef OLS_EMULATED
#define DEVICE inline
#define KERNEL(threads) extern "C" void
#define UNROLL
#define UNROLL_NOT
#define UNROLL_BY_FOUR
static inline float half_to_float(unsigned short bits) { return __half2float(cpucuda::unpack<__half>(bits)); }
static inline unsigned short float_to_half(float x) { return (unsigned short)cpucuda::pack(__float2half(x)); }
#define DYNAMIC_SHARED(type, name) DYN_SHARED(type, name)
#else
#define DEVICE __device__ __forceinline__
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads, 1)
#define UNROLL _Pragma("unroll")
#define UNROLL_NOT _Pragma("unroll 1")
#define UNROLL_BY_FOUR _Pragma("unroll 4")
static DEVICE float half_to_float(unsigned short bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}
static DEVICE unsigned short float_to_half(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
#define DYNAMIC_SHARED(type, name)                                                                                                        \
    extern __shared__ __align__(16) unsigned char ols_dynamic_shared[];                                                                  \
    type *name = reinterpret_cast<type *>(ols_dynamic_shared)
#endif

#define WHOLE_WARP 0xffffffffu

static DEVICE void add_i64(i64 *to, i64 value) { atomicAdd(reinterpret_cast<u64 *>(to), (u64)value); }
