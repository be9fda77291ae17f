// Kernels for the end of an epoch, for setting soft labels, and for accumulating statistics from given probabilities.
#pragma once
#include "statistics.h"

// Reads the counts and counters of the epoch that ends, writes its report and clears the counters. One block of 256
// threads; runs before epoch_rows.
static DEVICE void epoch_begin(const Epoch &epoch) {
    __shared__ u64 accumulated;
    __shared__ unsigned full, saturated;
    if (threadIdx.x == 0) {
        accumulated = 0;
        full = saturated = 0;
    }
    __syncthreads();
    bool any = false;
    for (int k = threadIdx.x; k < epoch.classes; k += blockDim.x) {
        i64 count = epoch.state.counts[k];
        any = any || count != 0;
        if (count >= OLS_FULL_CLASS) atomicAdd(&full, 1u);
        u64 before = atomicAdd(&accumulated, (u64)count);
        // Only counts that the caller wrote can overflow.
        if (count > 0 && before + (u64)count > (u64)0x7fffffffffffffffll) atomicAdd(&saturated, 1u);
    }
    any = __syncthreads_or(any) != 0;
    if (threadIdx.x != 0) return;
    i64 *report = epoch.scratch->report;
    for (int at = 0; at <= REPORT_NOTHING; ++at) report[at] = 0;
    i64 *counters = epoch.state.counters;
    report[REPORT_EPOCH] = epoch.epoch + 1;
    report[REPORT_ACCUMULATED] = saturated ? 0x7fffffffffffffffll : (i64)accumulated;
    report[REPORT_SKIPPED] = counters[COUNTER_SKIPPED];
    report[REPORT_FULL] = full;
    report[REPORT_OUT_OF_RANGE] = counters[COUNTER_OUT_OF_RANGE];
    report[REPORT_REFUSED] = counters[COUNTER_REFUSED];
    report[REPORT_NOTHING] = !any;
    if (!any) report[REPORT_KEPT] = epoch.classes;
    for (int at = 0; at < COUNTERS; ++at) counters[at] = 0;
}

// Computes the new soft label of each class in f64, rounded once to f32, and clears A and c. One block of 256 threads
// per class (grid-stride).
static DEVICE void epoch_rows(const Epoch &epoch) {
    const bool nothing = epoch.scratch->report[REPORT_NOTHING] != 0;
    for (int k = blockIdx.x; k < epoch.classes; k += gridDim.x) {
        float *row = epoch.state.soft_labels + (i64)k * epoch.state.soft_labels_stride;
        i64 *sums = epoch.state.sums + (i64)k * epoch.state.sums_stride;
        if (!nothing) {
            __shared__ u64 total;
            if (threadIdx.x == 0) total = 0;
            bool frozen = false;
            u64 share = 0;
            for (int at = threadIdx.x; at < epoch.classes; at += blockDim.x) {
                frozen = frozen || (double)row[at] >= epoch.freeze_above;
                share += (u64)sums[at];
            }
            frozen = __syncthreads_or(frozen) != 0;
            share = warp_sum(share, 32);
            if (threadIdx.x % 32 == 0) atomicAdd(&total, share);
            __syncthreads();
            const i64 sum = (i64)total;
            const bool measured = epoch.state.counts[k] >= epoch.min_count && sum > 0;
            const bool kept = frozen || (!measured && epoch.policy == POLICY_KEEP);
            if (threadIdx.x == 0) {
                int what = frozen ? (int)REPORT_FROZEN : measured ? (int)REPORT_MEASURED : epoch.policy_report;
                add_i64(epoch.scratch->report + what, 1);
            }
            for (int at = threadIdx.x; at < epoch.classes && !kept; at += blockDim.x) {
                double fresh;
                if (measured) fresh = (double)sums[at] / (double)sum;
                else if (epoch.policy == POLICY_MATRIX) fresh = (double)epoch.initial[(i64)k * epoch.classes + at];
                else fresh = at == k ? epoch.own : epoch.other;
                row[at] = (float)(epoch.momentum * (double)row[at] + (1.0 - epoch.momentum) * fresh);
            }
            __syncthreads(); // counts[k] must be read before it is cleared, and total before it is reused
        }
        for (int at = threadIdx.x; at < epoch.classes; at += blockDim.x) sums[at] = 0;
        if (threadIdx.x == 0) epoch.state.counts[k] = 0;
    }
}

static DEVICE float fill_value(const Fill &fill, int row, int column) {
    if (!fill.from) return (float)(row == column ? fill.own : fill.other);
    i64 at = (i64)row * fill.from_row + (i64)column * fill.from_column;
    if (fill.from_dtype == DTYPE_F64) return (float)reinterpret_cast<const double *>(fill.from)[at];
    return reinterpret_cast<const float *>(fill.from)[at];
}

// Detects soft labels that are negative or not finite.
static DEVICE void check_soft_labels(const Fill &fill) {
    bool bad = false;
    for (int row = blockIdx.x; row < fill.classes; row += gridDim.x)
        for (int at = threadIdx.x; at < fill.classes; at += blockDim.x) {
            float value = fill_value(fill, row, at);
            bad = bad || !(value >= 0.0f && value <= 3.402823466e38f);
        }
    if (bad) {
        atomicExch(&fill.scratch->bad_soft_labels, 1u);
        fill.scratch->report[REPORT_BAD_SOFT_LABELS] = 1; // sticky: cleared by the report only
    }
}

// Writes all soft labels, or none if they were checked and one was bad.
static DEVICE void fill_soft_labels(const Fill &fill) {
    if (fill.checked && *(volatile unsigned *)&fill.scratch->bad_soft_labels) return;
    for (int row = blockIdx.x; row < fill.classes; row += gridDim.x)
        for (int at = threadIdx.x; at < fill.classes; at += blockDim.x) fill.to[(i64)row * fill.to_stride + at] = fill_value(fill, row, at);
}

// Accumulates statistics from given probabilities, which take the place of the logits. One block of 128 threads per
// row (grid-stride).
template <class T> DEVICE void accumulate(const Pass &pass) {
    const int statistics = statistics_of<true>(pass);
    for (i64 index = blockIdx.x; index < pass.count; index += gridDim.x) {
        const Place at = place_of<true>(pass, index);
        const Sample sample = begin_sample<true>(pass, true, at, 0, threadIdx.x == 0);
        if (!sample.takes_part) continue; // uniform over the block
        const T *row = row_at<const T>(pass.logits, at);
        const i64 step = pass.logits.step;
        const int counted = sample.counted();
        const double own = (double)Storage<T>::load(row + counted * step);
        bool bad = sample.invalid, beaten = false;
        for (int k = threadIdx.x; k < pass.classes; k += blockDim.x) {
            double p = (double)Storage<T>::load(row + k * step);
            bad = bad || !(p >= 0.0 && p <= 1.0);
            beaten = beaten || (k < counted ? p >= own : p > own);
        }
        bad = __syncthreads_or(bad) != 0;
        beaten = __syncthreads_or(beaten) != 0;
        if (bad) {
            if (threadIdx.x == 0) count_skipped<true>(pass, statistics);
            continue;
        }
        if (beaten || statistics == STATISTICS_LEAVE) continue;
        if (statistics == STATISTICS_TALLY) {
            if (threadIdx.x == 0) add_i64(pass.tally + counted, 1);
            continue;
        }
        __shared__ int taken;
        if (threadIdx.x == 0) {
            taken = 1;
            if (statistics == STATISTICS_ADD) taken = count_if_not_full(pass, counted);
            else add_i64(pass.state.counts + counted, -1);
        }
        __syncthreads();
        const bool adds = taken != 0;
        __syncthreads(); // all threads have read `taken` before the next row overwrites it
        if (!adds) continue;
        const i64 sign = statistics == STATISTICS_TAKE_BACK ? -1 : 1;
        i64 *sums = pass.state.sums + (i64)counted * pass.state.sums_stride;
        for (int k = threadIdx.x; k < pass.classes; k += blockDim.x)
            add_i64(sums + k, sign * (i64)__double2int_rn((double)Storage<T>::load(row + k * step) * OLS_FRACTION_ONE));
    }
    finish_tally(pass);
}
