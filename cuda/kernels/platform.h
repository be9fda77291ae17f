// The few things that CUDA and the CPU emulator of the tests (cuda/tests/emulator.h) spell differently.
#pragma once
#include "arguments.h"

#ifdef OLS_EMULATED
#define DEVICE inline
#define KERNEL(threads, blocks) extern "C" void
#define UNROLL
#define UNROLL_NOT
#define UNROLL_BY_FOUR
static inline float reciprocal_of_float(float x) { return 1.0f / x; }
static inline void prefetch(const void *) {}
template <class V> DEVICE V *in_register(V *pointer) { return pointer; }
static inline float load_if(bool there, const float *from) { return there ? *from : 0.0f; }
static inline float load_now(const float *from) { return *from; }
template <class V> DEVICE void add_if(bool there, V *to, long long value) {
    if (there) atomicAdd(reinterpret_cast<u64 *>(to), (u64)value);
}
template <bool ONCE, class V> DEVICE V load_once(const V *from) { return *from; }
template <class V> DEVICE void store_once(V *to, V value) { *to = value; }
static inline unsigned add_in_turn(unsigned *to) { return atomicAdd(to, 1u); }
static inline void barrier_of(unsigned threads) { cpucuda::wait(cpucuda::block->of_some, threads); }
static inline float half_to_float(unsigned short bits) { return __half2float(cpucuda::unpack<__half>(bits)); }
static inline unsigned short float_to_half(float x) { return (unsigned short)cpucuda::pack(__float2half(x)); }
#define DYNAMIC_SHARED(type, name) DYN_SHARED(type, name)
#define OLS_COPY_ENGINE
typedef cpucuda::Mbarrier Mbarrier;
static inline void prepare(Mbarrier *barrier, unsigned threads) { cpucuda::prepare(barrier, threads); }
static inline void prepared() {}
static inline void arrive(Mbarrier *barrier) { cpucuda::arrive(barrier); }
static inline void arrive_and_expect(Mbarrier *barrier, unsigned bytes) { cpucuda::arrive(barrier, bytes); }
static inline void copy_to_shared(void *to, const void *from, unsigned bytes, Mbarrier *barrier) { cpucuda::copy(to, from, bytes, barrier); }
static inline void before_copy_to_shared() {}
static inline void wait_until(Mbarrier *barrier, unsigned parity) { cpucuda::wait_until(barrier, parity); }
#else
#define DEVICE __device__ __forceinline__
#define KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define UNROLL _Pragma("unroll")
#define UNROLL_NOT _Pragma("unroll 1")
#define UNROLL_BY_FOUR _Pragma("unroll 4")
// 1/x for normal x, within 1 ulp.
static DEVICE float reciprocal_of_float(float x) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
// Prefetches a 128-byte line into L2.
static DEVICE void prefetch(const void *at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(at))); }
// Returns the pointer unchanged, but opaque to the compiler, which would otherwise recompute the address for each
// access instead of keeping it in registers.
template <class V> DEVICE V *in_register(V *pointer) {
    size_t address = __cvta_generic_to_global(pointer);
    asm("" : "+l"(address));
    return reinterpret_cast<V *>(__cvta_global_to_generic(address));
}
// Predicated load of a value that no kernel writes meanwhile; 0 if not `there`. Inline assembly keeps it branch-free
// and in program order: the compiler would serialise several conditional loads, or sink them to their uses.
static DEVICE float load_if(bool there, const float *from) {
    float value;
    asm volatile("{.reg .pred p; setp.ne.s32 p, %2, 0; mov.f32 %0, 0f00000000; @p ld.global.nc.f32 %0, [%1];}"
        : "=f"(value) : "l"(__cvta_generic_to_global(from)), "r"((int)there));
    return value;
}
// The same without the predicate.
static DEVICE float load_now(const float *from) {
    float value;
    asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(value) : "l"(__cvta_generic_to_global(from)));
    return value;
}
// Predicated atomic add without a result (red).
template <class V> DEVICE void add_if(bool there, V *to, long long value) {
    asm volatile("{.reg .pred p; setp.ne.s32 p, %2, 0; @p red.relaxed.gpu.global.add.u64 [%0], %1;}"
                 ::"l"(__cvta_generic_to_global(to)), "l"(value), "r"((int)there) : "memory");
}
// Streaming (evict-first) accesses for data that is not used again while the kernel runs, so that other data stays in
// L2. load_once<false> is an ordinary load.
template <bool ONCE> DEVICE float load_once(const float *from) { return ONCE ? __ldcs(from) : *from; }
template <bool ONCE> DEVICE double load_once(const double *from) { return ONCE ? __ldcs(from) : *from; }
template <bool ONCE> DEVICE unsigned load_once(const unsigned *from) { return ONCE ? __ldcs(from) : *from; }
template <bool ONCE, class Half> DEVICE Half load_once(const Half *from) { return Half{ONCE ? __ldcs(&from->bits) : from->bits}; }
static DEVICE void store_once(float *to, float value) { __stcs(to, value); }
static DEVICE void store_once(double *to, double value) { __stcs(to, value); }
static DEVICE void store_once(unsigned *to, unsigned value) { __stcs(to, value); }
template <class Half> DEVICE void store_once(Half *to, Half value) { __stcs(&to->bits, value.bits); }
// Adds 1 with acquire-release semantics: whoever increments later sees everything written before.
static DEVICE unsigned add_in_turn(unsigned *to) {
    unsigned before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(__cvta_generic_to_global(to)) : "memory");
    return before;
}
// A barrier of the first `threads` threads of a block, while others are at something else.
static DEVICE void barrier_of(unsigned threads) { asm volatile("bar.sync 1, %0;" ::"r"(threads) : "memory"); }
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
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define OLS_COPY_ENGINE
// A barrier in shared memory that completes a phase when a number of threads have arrived and all bytes that it expects
// have been copied. Phases alternate in parity, beginning with 0.
struct Mbarrier { u64 bits; };
static DEVICE unsigned in_shared(const void *at) { return (unsigned)__cvta_generic_to_shared(at); }
static DEVICE void prepare(Mbarrier *barrier, unsigned threads) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(in_shared(barrier)), "r"(threads) : "memory");
}
// To be called after barriers were prepared, by the same thread.
static DEVICE void prepared() { asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;" ::: "memory"); }
static DEVICE void arrive(Mbarrier *barrier) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(in_shared(barrier)) : "memory"); }
static DEVICE void arrive_and_expect(Mbarrier *barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(in_shared(barrier)), "r"(bytes) : "memory");
}
// Starts to copy 16-byte units from global to shared memory.
static DEVICE void copy_to_shared(void *to, const void *from, unsigned bytes, Mbarrier *barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(in_shared(to)), "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(in_shared(barrier)) : "memory");
}
// Orders the ordinary accesses of a thread to shared memory before asynchronous copies that are started later.
static DEVICE void before_copy_to_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Waits until the phase of this parity has completed.
static DEVICE void wait_until(Mbarrier *barrier, unsigned parity) {
    asm volatile("{.reg .pred done; again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1; @!done bra again;}"
                 ::"r"(in_shared(barrier)), "r"(parity) : "memory");
}
#endif
#define DYNAMIC_SHARED(type, name)                                                                                                        \
    extern __shared__ __align__(16) unsigned char ols_dynamic_shared[];                                                                  \
    type *name = reinterpret_cast<type *>(ols_dynamic_shared)
#endif

#define WHOLE_WARP 0xffffffffu

static DEVICE void add_i64(i64 *to, i64 value) { atomicAdd(reinterpret_cast<u64 *>(to), (u64)value); }

template <bool CONDITION, class A, class B> struct Choose { typedef A Type; };
template <class A, class B> struct Choose<false, A, B> { typedef B Type; };
template <bool VALUE> struct Bool { enum { value = VALUE }; };
template <class A, class B> struct Same { enum { value = false }; };
template <class A> struct Same<A, A> { enum { value = true }; };
