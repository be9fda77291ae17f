// Runs CUDA kernel source on the CPU, for tests: one fiber per CUDA thread, the blocks of a worker one after the
// other. Detects deadlocks and, as a seed shuffles the order of the threads, missing barriers. Linux on x86-64 and
// aarch64; g++ or clang++; C++17.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#define __shared__ static thread_local

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

namespace cpucuda {

enum { WARP = 32, STACK = 64 * 1024 };

struct Barrier { unsigned arrived = 0, generation = 0; };

// A barrier in shared memory (mbarrier) is as large as on a device; its state is kept by the block.
struct Mbarrier { uint64_t bits; };

// The state of such a barrier, with the copies that it counts. A copy takes place when somebody waits for it; until then
// its destination is spoilt.
struct Counting {
    struct Copy { void *to; const void *from; unsigned bytes; };
    unsigned threads = 0, missing = 0, phase = 0;
    int bytes = 0; // expected and not yet copied
    std::vector<Copy> copies = {};
};

struct Warp {
    Barrier barrier;
    uint64_t slots[2][WARP];
    unsigned members = 0;
};

struct Fiber {
    ucontext_t context;
    jmp_buf jump;
    bool started = false, done = false;
    dim3 index;
    unsigned number = 0, flip = 0, generation = 0;
    const Barrier *waits_for = nullptr;
};

struct Block {
    dim3 index, size, grid;
    Barrier barrier, of_some;
    unsigned live = 0;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::unique_ptr<char[]> stacks;
    std::vector<char> dynamic;
    std::map<const Mbarrier *, Counting> counting;
    Fiber *current = nullptr;
    jmp_buf scheduler;
    std::function<void()> body;
};

inline thread_local Block *block = nullptr;

[[noreturn]] inline void die(const char *what) {
    fprintf(stderr, "emulator: %s at block %u thread %u\n", what, block->index.x, block->current ? block->current->number : 0u);
    abort();
}

inline void yield() {
    if (!_setjmp(block->current->jump)) _longjmp(block->scheduler, 1);
}

inline void release(Barrier &barrier, unsigned need) {
    if (barrier.arrived && barrier.arrived >= need) {
        barrier.arrived = 0;
        ++barrier.generation;
    }
}

inline void wait(Barrier &barrier, unsigned need) {
    Fiber *me = block->current;
    unsigned generation = barrier.generation;
    ++barrier.arrived;
    release(barrier, need);
    if (barrier.generation != generation) return;
    me->waits_for = &barrier;
    me->generation = generation;
    yield();
    me->waits_for = nullptr;
}

// A fiber is reused by the following blocks, since creating fibers takes longer than most blocks do.
inline void entry() {
    for (;;) {
        Block *b = block;
        b->body();
        Fiber *me = b->current;
        me->done = true;
        --b->live;
        Warp &warp = b->warps[me->number / WARP];
        warp.members &= ~(1u << (me->number % WARP));
        release(b->barrier, b->live);
        yield();
    }
}

__attribute__((noinline)) inline void resume(Block &b, Fiber &fiber) {
    if (_setjmp(b.scheduler)) return;
    if (fiber.started) _longjmp(fiber.jump, 1);
    fiber.started = true;
    setcontext(&fiber.context);
}

inline void run_block(Block &b, unsigned seed) {
    unsigned n = b.size.x * b.size.y * b.size.z;
    block = &b;
    b.live = n;
    b.barrier = b.of_some = Barrier();
    b.counting.clear();
    bool first = b.fibers.empty();
    if (first) b.fibers.assign(n, Fiber());
    b.warps.assign((n + WARP - 1) / WARP, Warp());
    if (!b.stacks) b.stacks.reset(new char[size_t(n) * STACK]);
    std::vector<unsigned> order(n);
    for (unsigned i = 0; i < n; ++i) {
        Fiber &fiber = b.fibers[i];
        fiber.number = i;
        fiber.done = false;
        fiber.flip = 0;
        fiber.waits_for = nullptr;
        fiber.index = dim3(i % b.size.x, i / b.size.x % b.size.y, i / (b.size.x * b.size.y));
        b.warps[i / WARP].members |= 1u << (i % WARP);
        order[i] = i;
        if (!first) continue;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = b.stacks.get() + size_t(i) * STACK;
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, entry, 0);
    }
    if (seed) std::shuffle(order.begin(), order.end(), std::mt19937(seed + b.index.x * 7919u));
    while (b.live) {
        bool moved = false;
        for (unsigned i : order) {
            Fiber &fiber = b.fibers[i];
            if (fiber.done || (fiber.waits_for && fiber.waits_for->generation == fiber.generation)) continue;
            moved = true;
            b.current = &fiber;
            resume(b, fiber);
        }
        if (!moved) die("deadlock: a barrier or warp operation was not reached by all its threads");
    }
    block = nullptr;
}

// Runs the blocks in the order given by the seed, on `workers` threads. The threads are new, so __shared__ memory is
// zero for the first block of each, and afterwards holds the leftovers of another block.
template <class F> void launch(dim3 grid, dim3 size, size_t dynamic, F body, unsigned workers, unsigned seed) {
    unsigned total = grid.x * grid.y * grid.z;
    std::vector<unsigned> order(total);
    for (unsigned i = 0; i < total; ++i) order[i] = i;
    if (seed) std::shuffle(order.begin(), order.end(), std::mt19937(seed));
    std::atomic<unsigned> next{0};
    auto work = [&] {
        Block b;
        b.size = size;
        b.grid = grid;
        b.dynamic.resize(dynamic);
        b.body = body;
        for (unsigned i; (i = next++) < total;) {
            unsigned at = order[i];
            b.index = dim3(at % grid.x, at / grid.x % grid.y, at / (grid.x * grid.y));
            run_block(b, seed);
        }
    };
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < workers; ++i) threads.emplace_back(work);
    for (auto &thread : threads) thread.join();
}

inline Counting &of(const Mbarrier *barrier) {
    auto at = block->counting.find(barrier);
    if (at == block->counting.end()) die("a barrier in shared memory is not prepared");
    return at->second;
}
inline void prepare(const Mbarrier *barrier, unsigned threads) {
    Counting fresh;
    fresh.threads = fresh.missing = threads;
    block->counting[barrier] = fresh;
}
inline void complete(Counting &counting) {
    if (counting.missing || counting.bytes) return;
    counting.missing = counting.threads;
    ++counting.phase;
}
inline void arrive(const Mbarrier *barrier, unsigned bytes = 0) {
    Counting &counting = of(barrier);
    if (!counting.missing) die("more threads arrive at a barrier in shared memory than it counts");
    counting.bytes += int(bytes);
    --counting.missing;
    complete(counting);
}
inline void copy(void *to, const void *from, unsigned bytes, const Mbarrier *barrier) {
    if ((uintptr_t(to) | uintptr_t(from) | bytes) % 16) die("a copy to shared memory is not of whole units");
    memset(to, 0xff, bytes);
    of(barrier).copies.push_back({to, from, bytes});
}
// Returns when the phase of this parity has completed.
inline void wait_until(const Mbarrier *barrier, unsigned parity) {
    Counting &counting = of(barrier);
    for (long tries = 0; counting.phase % 2 == parity; ++tries) {
        if (tries > 1000000) die("deadlock: nobody completes a barrier in shared memory");
        yield();
        for (const Counting::Copy &copy : counting.copies) {
            memcpy(copy.to, copy.from, copy.bytes);
            counting.bytes -= int(copy.bytes);
        }
        if (!counting.copies.empty()) {
            counting.copies.clear();
            complete(counting);
        }
    }
}

template <class T> inline uint64_t pack(T value) {
    static_assert(sizeof(T) <= 8, "a lane exchanges 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    return bits;
}

template <class T> inline T unpack(uint64_t bits) {
    T value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Each lane in the mask contributes a value; afterwards each may read all of them.
inline const uint64_t *exchange(unsigned mask, uint64_t value) {
    Fiber *me = block->current;
    unsigned lane = me->number % WARP;
    Warp &warp = block->warps[me->number / WARP];
    if (!(mask >> lane & 1)) die("a warp operation by a lane outside its mask");
    uint64_t *slots = warp.slots[me->flip ^= 1];
    slots[lane] = value;
    wait(warp.barrier, unsigned(__builtin_popcount(mask & warp.members)));
    return slots;
}

template <class T, class O> T update(T *p, O operation) {
    T old, fresh;
    __atomic_load(p, &old, __ATOMIC_RELAXED);
    do fresh = operation(old);
    while (!__atomic_compare_exchange(p, &old, &fresh, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}

} // namespace cpucuda

#define threadIdx (cpucuda::block->current->index)
#define blockIdx (cpucuda::block->index)
#define blockDim (cpucuda::block->size)
#define gridDim (cpucuda::block->grid)
#define DYN_SHARED(T, name) T *name = reinterpret_cast<T *>(cpucuda::block->dynamic.data())

inline void __syncthreads() { cpucuda::wait(cpucuda::block->barrier, cpucuda::block->live); }
inline int __syncthreads_or(int flag) {
    static thread_local int any;
    __syncthreads();
    any = 0;
    __syncthreads();
    if (flag) any = 1;
    __syncthreads();
    return any;
}
template <class T> T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    int lane = cpucuda::block->current->number % 32;
    return cpucuda::unpack<T>(cpucuda::exchange(mask, cpucuda::pack(value))[(lane & ~(width - 1)) | (from & (width - 1))]);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int with) {
    int lane = cpucuda::block->current->number % 32;
    return cpucuda::unpack<T>(cpucuda::exchange(mask, cpucuda::pack(value))[lane ^ with]);
}
inline unsigned __ballot_sync(unsigned mask, int vote) {
    auto slots = cpucuda::exchange(mask, vote != 0);
    unsigned votes = 0;
    for (int lane = 0; lane < 32; ++lane)
        if (mask >> lane & 1) votes |= unsigned(slots[lane]) << lane;
    return votes;
}
inline void __syncwarp() { cpucuda::exchange(~0u, 0); }
inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(unsigned mask, int vote) { return __ballot_sync(mask, !vote) == 0; }
template <class T> T atomicAdd(T *p, T value) { return cpucuda::update(p, [value](T old) { return T(old + value); }); }
template <class T> T atomicOr(T *p, T bits) { return cpucuda::update(p, [bits](T old) { return T(old | bits); }); }
template <class T> T atomicExch(T *p, T value) { return cpucuda::update(p, [value](T) { return value; }); }
template <class T> T atomicCAS(T *p, T compare, T value) { return cpucuda::update(p, [compare, value](T old) { return old == compare ? value : old; }); }
template <class T> T __ldg(const T *p) { return *p; }
template <class T> T __ldcg(const T *p) { return *const_cast<const volatile T *>(p); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __float_as_int(float x) { return cpucuda::unpack<int>(cpucuda::pack(x)); }
inline float __int_as_float(int x) { return cpucuda::unpack<float>(cpucuda::pack(x)); }
inline long long __double_as_longlong(double x) { return cpucuda::unpack<long long>(cpucuda::pack(x)); }
inline double __longlong_as_double(long long x) { return cpucuda::unpack<double>(cpucuda::pack(x)); }
inline int __float2int_rn(float x) { return (int)nearbyintf(x); }
inline int __double2int_rn(double x) { return (int)nearbyint(x); }
inline long long __double2ll_rn(double x) { return llrint(x); }
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
struct __half { _Float16 value; };
inline float __half2float(__half x) { return float(x.value); }
inline __half __float2half(float x) { return {_Float16(x)}; }
