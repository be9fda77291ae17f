// Exact accumulation of A, c and the counters, in integers, so that the order of the additions does not matter.
#pragma once
#include "reduce.h"

// A probability in units of 2^-30, rounded half to even; `units` exceeds 2^30 by a few at most.
static DEVICE int round_units(float units) { return __float2int_rn(units); }
static DEVICE int round_units(double units) { return __double2int_rn(units); }

// Units widened for addition. They are negative only when taken back, which usual kernels do not do.
template <bool ANY> DEVICE i64 signed_units(int units) { return ANY ? (i64)units : (i64)(unsigned)units; }

// What the pass does to the statistics. A batch that may not be taken back leaves them alone.
template <bool ANY> DEVICE int statistics_of(const Pass &pass) {
    if (!ANY) return pass.statistics; // LEAVE or ADD
    return pass.statistics == STATISTICS_TAKE_BACK && pass.scratch->refused ? (int)STATISTICS_LEAVE : pass.statistics;
}

// Counts a row that was skipped because it is not finite; for one thread per row.
template <bool ANY> DEVICE void count_skipped(const Pass &pass, int statistics) {
    i64 *skipped = pass.state.counters + COUNTER_SKIPPED;
    if (statistics == STATISTICS_ADD) add_i64(skipped, 1);
    if (!ANY || statistics != STATISTICS_TAKE_BACK) return;
    u64 *bits = reinterpret_cast<u64 *>(skipped);
    u64 seen = *(volatile u64 *)bits;
    while ((i64)seen > 0) { // never below 0
        u64 found = atomicCAS(bits, seen, seen - 1);
        if (found == seen) break;
        seen = found;
    }
}

// Whether the class may become full during this pass, so that each sample has to check. `seen`: its count at any time
// during the pass.
static DEVICE bool may_fill(const Pass &pass, i64 seen) { return seen > OLS_FULL_CLASS - pass.count || seen < 0; }

// Adds one sample to a class that may be full, and returns whether it was accepted; for one thread per row.
static DEVICE bool count_if_not_full(const Pass &pass, int counted) {
    i64 *count = pass.state.counts + counted;
    i64 before = (i64)atomicAdd(reinterpret_cast<u64 *>(count), (u64)1);
    if (before < OLS_FULL_CLASS) return true;
    add_i64(count, -1);
    return false;
}

// Calls each(row, column) for the entries of a K x K matrix, K <= 32. Called by all threads of a block: one warp per
// row, one lane per column.
template <class Each> DEVICE void for_matrix(int classes, Each each) {
    const int lane = threadIdx.x % 32;
    for (int row = threadIdx.x / 32; row < classes; row += (int)blockDim.x / 32)
        if (lane < classes) each(row, lane);
}

// Statistics of a block over few classes, kept in shared memory until the block ends: in segmentation, global atomics
// would all contend for a few hundred addresses. Shared memory has native 32-bit atomics, so each value is added as
// two halves and no carry has to be propagated.
template <int MOST> struct PrivateStatistics {
    enum { HALF = 16 };
    // The low half of one sample is below 2^16, so the sum of this many fits into 32 bits.
    enum { SAMPLES = 1 << 16 };
    unsigned low[MOST][MOST + 1], high[MOST][MOST + 1], counts[MOST];

    DEVICE void clear(int classes) {
        for_matrix(classes, [&](int row, int column) { low[row][column] = high[row][column] = 0; });
        for (int k = threadIdx.x; k < classes; k += blockDim.x) counts[k] = 0;
        __syncthreads();
    }
    // Adds the units of one sample, or the sum over the samples of a warp.
    DEVICE void add(int row, int column, u64 units) {
        atomicAdd(&low[row][column], (unsigned)units & ((1u << HALF) - 1));
        atomicAdd(&high[row][column], (unsigned)(units >> HALF));
    }
    // Adds to the global statistics and clears what it has added. Called by all threads of a block, before it has
    // added more than SAMPLES samples since the last flush.
    DEVICE void flush(const Pass &pass, int statistics) {
        __syncthreads();
        if (statistics != STATISTICS_ADD && statistics != STATISTICS_TAKE_BACK) return;
        i64 sign = statistics == STATISTICS_ADD ? 1 : -1;
        for_matrix(pass.classes, [&](int row, int column) {
            const i64 sum = ((i64)high[row][column] << HALF) + low[row][column];
            low[row][column] = high[row][column] = 0;
            add_if(sum != 0, pass.state.sums + row * pass.state.sums_stride + column, sign * sum);
        });
        for (int k = threadIdx.x; k < pass.classes; k += blockDim.x) {
            if (counts[k]) add_i64(pass.state.counts + k, sign * (i64)counts[k]);
            counts[k] = 0;
        }
        __syncthreads();
    }
};
