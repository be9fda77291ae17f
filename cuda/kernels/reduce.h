// Sums and maxima over the lanes of a row and over a block. Every tree has one shape, so results do not depend on how threads are scheduled.
#pragma once
#include "batch.h"

// Warps of the largest block.
enum { MOST_WARPS = 32 };

template <class V> DEVICE V warp_sum(V value, int width) {
    for (int step = width / 2; step > 0; step /= 2) value = value + __shfl_xor_sync(WHOLE_WARP, value, step);
    return value;
}

template <class Real> DEVICE Real warp_max(Real value, int width) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    if constexpr (sizeof(Real) == 4)
        if (width == 32) return of_ordered(__reduce_max_sync(WHOLE_WARP, ordered(value)));
#endif
    for (int step = width / 2; step > 0; step /= 2) value = Arithmetic<Real>::max(value, __shfl_xor_sync(WHOLE_WARP, value, step));
    return value;
}

// How many of a warp, for a few each.
static DEVICE unsigned warp_count(unsigned few) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    return __reduce_add_sync(WHOLE_WARP, few);
#else
    return warp_sum(few, 32);
#endif
}

// The sum over a warp of statistics' units, each at most a few more than 2^30.
static DEVICE u64 warp_sum_of_units(unsigned units) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    return ((u64)__reduce_add_sync(WHOLE_WARP, units >> 16) << 16) + __reduce_add_sync(WHOLE_WARP, units & 0xffffu);
#else
    return warp_sum((u64)units, 32);
#endif
}

// The sum over the warps of a block of what each warp has one value of, for all threads; once per launch.
template <class V, class Sum> DEVICE V sum_of_warps(V value, Sum sum) {
    __shared__ V values[MOST_WARPS];
    const unsigned lane = threadIdx.x % 32, warps = blockDim.x / 32;
    if (lane == 0) values[threadIdx.x / 32] = value;
    __syncthreads();
    return sum(lane < warps ? values[lane] : (V)0);
}

// The sum over a block, for all of its threads; once per launch.
static DEVICE double block_sum(double value) {
    const auto sum = [](double share) { return warp_sum(share, 32); };
    return sum_of_warps(sum(value), sum);
}
static DEVICE unsigned block_count(unsigned few) { return sum_of_warps(warp_count(few), warp_count); }

// True in the block that gets here last; all that the others wrote before can then be read, past the L1 cache. Thread 0 releases and acquires for its
// whole block, whose writes the barrier puts before it.
static DEVICE bool is_last_block(unsigned *ticket) {
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
        last = add_in_turn(ticket) == gridDim.x - 1;
        if (last) *ticket = 0; // for the next launch, of a replayed graph too
    }
    __syncthreads();
    return last;
}

// A thread's share of the sum of what other blocks stored, with many loads on their way at once: nothing else runs any more.
static DEVICE double stored_share(const double *stored, unsigned count) {
    enum { AT_ONCE = 8 };
    double share = 0;
    for (unsigned begin = threadIdx.x; begin < count; begin += AT_ONCE * blockDim.x) {
        double part[AT_ONCE];
        UNROLL
        for (int i = 0; i < AT_ONCE; ++i) part[i] = begin + i * blockDim.x < count ? __ldcg(stored + begin + i * blockDim.x) : 0.0;
        UNROLL
        for (int i = 0; i < AT_ONCE; ++i) share = share + part[i];
    }
    return share;
}

// The divisor, and what a sample of weight 1 is multiplied by. Each warp has its own, in shared memory, as it is looked at once per row.
struct Divisor {
    double value, inverse;
    // By all lanes of the warp. `weighted`: it may be any number, and not a count alone.
    DEVICE void set(double found, bool weighted) {
        if (threadIdx.x % 32 == 0) {
            value = found;
            inverse = weighted ? 1.0 / found : reciprocal(found);
        }
        __syncwarp();
    }
};

// Of many targets, those that take part are counted by the warps of a grid together, in slices that they take as they come; nobody waits before the
// number is needed, and then but for slices that a running warp counts. FLAT: pass.inner is 1.
template <bool FLAT> struct TargetCount {
    const Pass &pass;
    bool waits; // the warp does not have the number yet

    DEVICE TargetCount(const Pass &pass) : pass(pass), waits(pass.divisor == DIVISOR_BY_ALL_BLOCKS) {}

    // By all lanes of a warp. Counts the next slice, if there is one.
    template <bool AHEAD> DEVICE void count_slice() {
        const unsigned lane = threadIdx.x % 32, count = (unsigned)pass.count, size = pass.slice;
        unsigned slice = lane == 0 ? atomicAdd(&pass.scratch->next_slice, 1u) : 0u;
        slice = __shfl_sync(WHOLE_WARP, slice, 0);
        if (slice >= pass.slices) return;
        const unsigned begin = slice * size, end = count - begin < size ? count : begin + size;
        const unsigned counted = warp_count(count_targets<FLAT, AHEAD>(pass, begin + lane, end, 32));
        if (lane == 0) atomicAdd(&pass.scratch->counted, (u64)1 << 32 | counted);
    }

    // As many warps as there are slices, those of different blocks first, count one each, or if there are fewer warps some each.
    DEVICE void begin() {
        if (!waits) return;
        const unsigned warps = blockDim.x / 32, rank = threadIdx.x / 32 * gridDim.x + blockIdx.x;
        for (unsigned slice = rank; slice < pass.slices; slice += gridDim.x * warps) count_slice<true>();
    }

    // By all lanes of a warp, which get one answer.
    DEVICE void finish(Divisor &divisor) {
        if (!waits) return;
        waits = false;
        u64 counted = 0;
        for (;;) {
            if (threadIdx.x % 32 == 0) counted = *(volatile u64 *)&pass.scratch->counted;
            counted = __shfl_sync(WHOLE_WARP, counted, 0);
            if (counted >> 32 >= pass.slices) break;
            unsigned taken = threadIdx.x % 32 == 0 ? *(volatile unsigned *)&pass.scratch->next_slice : 0u;
            // Whoever was to count it may not be running.
            if (__shfl_sync(WHOLE_WARP, taken, 0) < pass.slices) count_slice<false>();
        }
        divisor.set((double)(unsigned)counted, false);
    }
};

// The mean's divisor where a block finds it by itself or a kernel has found it, for every thread of a block.
template <bool ANY, bool FLAT> DEVICE double find_divisor(const Pass &pass) {
    if (ANY && pass.divisor == DIVISOR_FROM_KERNEL) return pass.scratch->divisor; // usual kernels have none before them
    if (pass.divisor != DIVISOR_BY_EACH_BLOCK) return 1.0;
    if (!ANY) return (double)block_count(count_targets<FLAT>(pass, threadIdx.x, (unsigned)pass.count, blockDim.x));
    // 128 lanes whatever the block, so that the bits depend on the batch alone.
    double share = 0;
    if (threadIdx.x < 128)
        for (i64 index = threadIdx.x; index < pass.count; index += 128) share = share + divisor_share(pass, index);
    return block_sum(share);
}

// The same for many targets, as a kernel before the pass; blocks of 256 threads.
static DEVICE void divisor_kernel(const Pass &pass) {
    double share = 0;
    i64 step = (i64)gridDim.x * blockDim.x;
    for (i64 index = (i64)blockIdx.x * blockDim.x + threadIdx.x; index < pass.count; index += step) share = share + divisor_share(pass, index);
    share = block_sum(share);
    if (threadIdx.x == 0) pass.scratch->divisors[blockIdx.x] = share;
    if (!is_last_block(&pass.scratch->divisor_ticket)) return;
    double sum = block_sum(stored_share(pass.scratch->divisors, gridDim.x)); // behind the barriers of is_last_block
    if (threadIdx.x == 0) pass.scratch->divisor = sum;
}

// Ends a tally: the last block says whether the batch can be taken back, and clears the tally.
static DEVICE void finish_tally(const Pass &pass) {
    if (pass.statistics != STATISTICS_TALLY || !is_last_block(&pass.scratch->tally_ticket)) return;
    __shared__ unsigned short_of;
    __shared__ u64 wanted;
    if (threadIdx.x == 0) {
        short_of = 0;
        wanted = 0;
    }
    __syncthreads();
    for (int k = threadIdx.x; k < pass.classes; k += (int)blockDim.x) {
        volatile i64 *tally = pass.tally + k;
        i64 rows = *tally;
        if (rows > pass.state.counts[k]) atomicAdd(&short_of, 1u);
        if (rows) atomicAdd(&wanted, (u64)rows);
        *tally = 0;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        pass.scratch->refused = short_of ? 1u : 0u;
        if (short_of) add_i64(pass.state.counters + COUNTER_REFUSED, (i64)wanted);
    }
}
