// Sums and maxima over the lanes of a row and over a block. Every tree has one shape, so results do not depend on how threads are scheduled.
#pragma once
#include "batch.h"

template <class V> DEVICE V warp_sum(V value, int width) {
    for (int step = width / 2; step > 0; step /= 2) value = value + __shfl_xor_sync(WHOLE_WARP, value, step);
    return value;
}

template <class Real> DEVICE Real warp_max(Real value, int width) {
    for (int step = width / 2; step > 0; step /= 2) value = Arithmetic<Real>::max(value, __shfl_xor_sync(WHOLE_WARP, value, step));
    return value;
}

// The sum over a block of THREADS threads, for all of them.
template <int THREADS> DEVICE double block_sum(double value) {
    __shared__ double sums[THREADS / 32];
    value = warp_sum(value, 32);
    __syncthreads(); // an earlier result may still be read
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    __syncthreads();
    double sum = 0;
    for (int warp = 0; warp < THREADS / 32; ++warp) sum = sum + sums[warp];
    return sum;
}

// True in the block that gets here last; all that the others wrote before can then be read, past the L1 cache. The fence of thread 0 stands for its whole
// block, whose writes the barrier puts before it.
static DEVICE bool is_last_block(unsigned *ticket) {
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicAdd(ticket, 1u) == gridDim.x - 1;
        if (last) {
            *ticket = 0; // for the next launch, of a replayed graph too
            __threadfence();
        }
    }
    __syncthreads();
    return last;
}

// A thread's share of the sum of what other blocks stored, with eight loads on their way at once: nothing else runs any more.
template <int THREADS> DEVICE double stored_share(const double *stored, unsigned count) {
    double share = 0;
    for (unsigned begin = threadIdx.x; begin < count; begin += 8 * THREADS) {
        double part[8];
        UNROLL
        for (int i = 0; i < 8; ++i) part[i] = begin + i * THREADS < count ? __ldcg(stored + begin + i * THREADS) : 0.0;
        UNROLL
        for (int i = 0; i < 8; ++i) share = share + part[i];
    }
    return share;
}

// The mean's divisor, for every thread of a block.
template <int THREADS> DEVICE double find_divisor(const Pass &pass) {
    if (pass.divisor == DIVISOR_ONE) return 1.0;
    if (pass.divisor == DIVISOR_FROM_KERNEL) return pass.scratch->divisor;
    // 128 lanes whatever the block, so that the bits depend on the batch alone.
    double share = 0;
    if (threadIdx.x < 128)
        for (i64 index = threadIdx.x; index < pass.count; index += 128) share = share + divisor_share(pass, index);
    return block_sum<THREADS>(share);
}

// The same for many targets, as a kernel before the pass; blocks of 256 threads.
static DEVICE void divisor_kernel(const Pass &pass) {
    double share = 0;
    i64 step = (i64)gridDim.x * blockDim.x;
    for (i64 index = (i64)blockIdx.x * blockDim.x + threadIdx.x; index < pass.count; index += step) share = share + divisor_share(pass, index);
    share = block_sum<256>(share);
    if (threadIdx.x == 0) pass.scratch->divisors[blockIdx.x] = share;
    if (!is_last_block(&pass.scratch->divisor_ticket)) return;
    double sum = block_sum<256>(stored_share<256>(pass.scratch->divisors, gridDim.x));
    if (threadIdx.x == 0) pass.scratch->divisor = sum;
}

// Ends a pass: the last block adds the slots up and writes the reduced loss.
template <int THREADS> DEVICE void reduce_loss(const Pass &pass, unsigned slots, double divisor) {
    if (pass.reduction == REDUCTION_NONE || !pass.loss.data) return;
    if (!is_last_block(&pass.scratch->loss_ticket)) return;
    double sum = block_sum<THREADS>(stored_share<THREADS>(pass.scratch->loss, slots));
    if (threadIdx.x == 0) write_real(pass.loss, Place{0, 0}, divisor == 0.0 ? 0.0 : sum / divisor);
}

// Ends a tally: the last block says whether the batch can be taken back, and clears the tally.
template <int THREADS> DEVICE void finish_tally(const Pass &pass) {
    if (pass.statistics != STATISTICS_TALLY || !is_last_block(&pass.scratch->tally_ticket)) return;
    __shared__ unsigned short_of;
    __shared__ u64 wanted;
    if (threadIdx.x == 0) {
        short_of = 0;
        wanted = 0;
    }
    __syncthreads();
    for (int k = threadIdx.x; k < pass.classes; k += THREADS) {
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
