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
    for (int step = width / 2; step > 0; step /= 2) value = Arithmetic<Real>::max(value, __shfl_xor_sync(WHOLE_WARP, value, step));
    return value;
}

// The sum over a warp of statistics' units, each at most a few more than 2^30.
static DEVICE u64 warp_sum_of_units(unsigned units) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    return ((u64)__reduce_add_sync(WHOLE_WARP, units >> 16) << 16) + __reduce_add_sync(WHOLE_WARP, units & 0xffffu);
#else
    return warp_sum((u64)units, 32);
#endif
}

// The sum over the warps of a block of what each warp has one value of; for all threads.
template <class V> DEVICE V sum_of_warps(V value) {
    __shared__ V values[MOST_WARPS];
    const unsigned lane = threadIdx.x % 32, warps = blockDim.x / 32;
    __syncthreads(); // an earlier result may still be read
    if (lane == 0) values[threadIdx.x / 32] = value;
    __syncthreads();
    return warp_sum(lane < warps ? values[lane] : (V)0, 32);
}

// The sum over a block, for all of its threads.
template <class V> DEVICE V block_sum(V value) { return sum_of_warps(warp_sum(value, 32)); }

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
    // By all lanes of the warp.
    DEVICE void set(double found) {
        if (threadIdx.x % 32 == 0) {
            value = found;
            inverse = 1.0 / found;
        }
        __syncwarp();
    }
};

// Of many targets, those that take part are counted by the warps of a grid together, in slices that they take as they come; nobody waits before the
// number is needed, and then but for slices that a running warp counts. FLAT: pass.inner is 1.
template <bool FLAT> struct TargetCount {
    const Pass &pass;
    unsigned size, slices;
    bool waits; // the warp does not have the number yet

    DEVICE TargetCount(const Pass &pass) : pass(pass), waits(pass.divisor == DIVISOR_TOGETHER) {
        const unsigned least = ((unsigned)pass.count - 1) / OLS_SLICES + 1;
        size = least < OLS_SLICE ? OLS_SLICE : least;
        slices = ((unsigned)pass.count - 1) / size + 1;
    }

    // By all lanes of a warp. Counts the next slice; whether there was one.
    DEVICE bool count_slice() {
        const unsigned lane = threadIdx.x % 32, count = (unsigned)pass.count;
        unsigned slice = lane == 0 ? atomicAdd(&pass.scratch->next_slice, 1u) : 0u;
        slice = __shfl_sync(WHOLE_WARP, slice, 0);
        if (slice >= slices) return false;
        const unsigned begin = slice * size, end = count - begin < size ? count : begin + size;
        const unsigned counted = warp_sum(count_targets<FLAT>(pass, begin + lane, end, 32), 32);
        if (lane == 0) atomicAdd(&pass.scratch->counted, (u64)1 << 32 | counted);
        return true;
    }

    // As many warps as there are slices, those of different blocks first, count one each, or if there are fewer warps some each.
    DEVICE void begin() {
        if (!waits) return;
        const unsigned warps = blockDim.x / 32, rank = threadIdx.x / 32 * gridDim.x + blockIdx.x;
        for (unsigned slice = rank; slice < slices; slice += gridDim.x * warps) count_slice();
    }

    // By all lanes of a warp, which get one answer.
    DEVICE void finish(Divisor &divisor) {
        if (!waits) return;
        waits = false;
        u64 counted = 0;
        for (;;) {
            if (threadIdx.x % 32 == 0) counted = *(volatile u64 *)&pass.scratch->counted;
            counted = __shfl_sync(WHOLE_WARP, counted, 0);
            if (counted >> 32 >= slices) break;
            unsigned taken = threadIdx.x % 32 == 0 ? *(volatile unsigned *)&pass.scratch->next_slice : 0u;
            // Whoever was to count it may not be running.
            if (__shfl_sync(WHOLE_WARP, taken, 0) < slices) count_slice();
        }
        divisor.set((double)(unsigned)counted);
    }
};

// The mean's divisor where a block finds it by itself or a kernel has found it, for every thread of a block.
template <bool ANY, bool FLAT> DEVICE double find_divisor(const Pass &pass) {
    if (pass.divisor == DIVISOR_FROM_KERNEL) return pass.scratch->divisor;
    if (pass.divisor != DIVISOR_IN_BLOCK) return 1.0;
    if (!ANY) return (double)block_sum(count_targets<FLAT>(pass, threadIdx.x, (unsigned)pass.count, blockDim.x));
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
    double sum = block_sum(stored_share(pass.scratch->divisors, gridDim.x));
    if (threadIdx.x == 0) pass.scratch->divisor = sum;
}

// Ends a pass: writes the reduced loss. Where the grid is one block that has a row in each of its groups at most, `own` is the loss of a thread's row
// (0 but in one lane of each); else the last block adds the slots up.
static DEVICE void reduce_loss(const Pass &pass, unsigned slots, bool one_block, double own, double divisor) {
    const bool wanted = pass.reduction != REDUCTION_NONE && pass.loss.data, together = pass.divisor == DIVISOR_TOGETHER;
    if (!wanted && !together) return;
    if (!one_block) {
        if (!is_last_block(&pass.scratch->loss_ticket)) return;
        if (together && threadIdx.x == 0) {
            divisor = (double)(unsigned)__ldcg(&pass.scratch->counted); // this block's first warp may have had no row
            pass.scratch->next_slice = 0;
            pass.scratch->counted = 0;
        }
        if (!wanted) return;
        own = stored_share(pass.scratch->loss, slots);
    }
    const double sum = block_sum(own);
    if (threadIdx.x == 0) write_real(pass.loss, Place{0, 0}, divisor == 0.0 ? 0.0 : sum / divisor);
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
