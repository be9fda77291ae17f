// Reductions over the lanes of a row, over a block and over the grid. Each is a tree of fixed shape or an exact
// count, so results do not depend on scheduling.
#pragma once
#include "batch.h"

// Warps in the largest block.
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

// Sum over a warp of small counts.
static DEVICE unsigned warp_count(unsigned few) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    return __reduce_add_sync(WHOLE_WARP, few);
#else
    return warp_sum(few, 32);
#endif
}

// Sum over a warp of statistics in units of 2^-30, each at most a few more than 2^30.
static DEVICE u64 warp_sum_of_units(unsigned units) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    return ((u64)__reduce_add_sync(WHOLE_WARP, units >> 16) << 16) + __reduce_add_sync(WHOLE_WARP, units & 0xffffu);
#else
    return warp_sum((u64)units, 32);
#endif
}

// Combines one value per warp over the block; all threads get the result. Uses one static buffer: calls must be
// separated by a barrier.
template <class V, class Sum> DEVICE V sum_of_warps(V value, Sum sum) {
    __shared__ V values[MOST_WARPS];
    const unsigned lane = threadIdx.x % 32, warps = blockDim.x / 32;
    if (lane == 0) values[threadIdx.x / 32] = value;
    __syncthreads();
    return sum(lane < warps ? values[lane] : (V)0);
}

// Sum over a block, for all of its threads; calls must be separated by a barrier.
static DEVICE double block_sum(double value) {
    const auto sum = [](double share) { return warp_sum(share, 32); };
    return sum_of_warps(sum(value), sum);
}
static DEVICE unsigned block_count(unsigned few) { return sum_of_warps(warp_count(few), warp_count); }

// True in the last block to get here, which may then read what the others have written before, bypassing L1. Thread 0
// releases and acquires on behalf of its block; the barrier orders the writes of the block before the release.
static DEVICE bool is_last_block(unsigned *ticket) {
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
        last = add_in_turn(ticket) == gridDim.x - 1;
        if (last) *ticket = 0; // reset for the next launch or graph replay
    }
    __syncthreads();
    return last;
}

// A thread's part of the sum of what other blocks have stored. Nothing else is running at this point, so keep many
// loads in flight.
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

// The divisor, and the factor of a sample of weight 1. Kept per warp, in shared memory, as it is used only once per
// row.
struct Divisor {
    double value, inverse;
    // Called by all lanes of the warp. `weighted`: the divisor may be any number, not just a count.
    DEVICE void set(double found, bool weighted) {
        if (threadIdx.x % 32 == 0) {
            value = found;
            inverse = weighted ? 1.0 / found : reciprocal(found);
        }
        __syncwarp();
    }
};

// Counts the samples of a large batch that take part: the warps of the grid take slices of the targets dynamically.
// Nobody waits before the result is needed, and then only for slices that a running warp is counting. FLAT:
// pass.inner is 1.
template <bool FLAT> struct TargetCount {
    const Pass &pass;
    bool waits; // the warp does not have the result yet

    DEVICE TargetCount(const Pass &pass) : pass(pass), waits(pass.divisor == DIVISOR_BY_ALL_BLOCKS) {}

    // Counts the next slice, if any. Called by all lanes of a warp.
    template <bool AHEAD> DEVICE void count_slice() {
        const unsigned lane = threadIdx.x % 32, count = (unsigned)pass.count, size = pass.slice;
        unsigned slice = lane == 0 ? atomicAdd(&pass.scratch->next_slice, 1u) : 0u;
        slice = __shfl_sync(WHOLE_WARP, slice, 0);
        if (slice >= pass.slices) return;
        const unsigned begin = slice * size, end = count - begin < size ? count : begin + size;
        const unsigned counted = warp_count(count_targets<FLAT, AHEAD>(pass, begin + lane, end, 32));
        if (lane == 0) atomicAdd(&pass.scratch->counted, (u64)1 << 32 | counted);
    }

    // With enough warps, each of the first `slices` warps counts one slice, and these are spread over the blocks first;
    // with fewer warps, each counts several.
    DEVICE void begin() {
        if (!waits) return;
        const unsigned warps = blockDim.x / 32, rank = threadIdx.x / 32 * gridDim.x + blockIdx.x;
        for (unsigned slice = rank; slice < pass.slices; slice += gridDim.x * warps) count_slice<true>();
    }

    // Called by all lanes of a warp, which get the same result.
    DEVICE void finish(Divisor &divisor) {
        if (!waits) return;
        waits = false;
        u64 counted = 0;
        for (;;) {
            if (threadIdx.x % 32 == 0) counted = *(volatile u64 *)&pass.scratch->counted;
            counted = __shfl_sync(WHOLE_WARP, counted, 0);
            if (counted >> 32 >= pass.slices) break;
            unsigned taken = threadIdx.x % 32 == 0 ? *(volatile unsigned *)&pass.scratch->next_slice : 0u;
            // Uncounted slices remain, and the warps that would have taken them may not be running yet.
            if (__shfl_sync(WHOLE_WARP, taken, 0) < pass.slices) count_slice<false>();
        }
        divisor.set((double)(unsigned)counted, false);
    }
};

// The divisor of the mean for all threads of a block, computed by the block itself or read from the kernel before the
// pass.
template <bool ANY, bool FLAT> DEVICE double find_divisor(const Pass &pass) {
    if (ANY && pass.divisor == DIVISOR_FROM_KERNEL) return pass.scratch->divisor; // launched before general kernels only
    if (pass.divisor != DIVISOR_BY_EACH_BLOCK) return 1.0;
    if (!ANY) return (double)block_count(count_targets<FLAT>(pass, threadIdx.x, (unsigned)pass.count, blockDim.x));
    // 128 lanes whatever the block size, so that the bits depend on the batch alone.
    double share = 0;
    if (threadIdx.x < 128)
        for (i64 index = threadIdx.x; index < pass.count; index += 128) share = share + divisor_share(pass, index);
    return block_sum(share);
}

// The same for a large batch, as a separate kernel before the pass, in blocks of 256 threads.
static DEVICE void divisor_kernel(const Pass &pass) {
    double share = 0;
    i64 step = (i64)gridDim.x * blockDim.x;
    for (i64 index = (i64)blockIdx.x * blockDim.x + threadIdx.x; index < pass.count; index += step) share = share + divisor_share(pass, index);
    share = block_sum(share);
    if (threadIdx.x == 0) pass.scratch->divisors[blockIdx.x] = share;
    if (!is_last_block(&pass.scratch->divisor_ticket)) return;
    double sum = block_sum(stored_share(pass.scratch->divisors, gridDim.x)); // is_last_block has had a barrier in between
    if (threadIdx.x == 0) pass.scratch->divisor = sum;
}

// Ends a tally: the last block decides whether the batch can be taken back, and clears the tally.
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
