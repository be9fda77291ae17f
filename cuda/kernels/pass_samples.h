// A thread per sample, for few classes whose logits lie apart while those of neighbouring samples lie together: the pixels of (N, K, inner).
// A thread walks its row as eight lanes of pass_rows.h would, so that both give the same bits.
#pragma once
#include "row.h"

template <class Real> struct EightLanes {
    double lanes[8];
    // As three exchanges between neighbours: 4, 2 and 1 lanes apart.
    DEVICE double total() const {
        return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
    }
};

template <class T> struct SamplePass {
    typedef typename Storage<T>::Real Real;
    enum { THREADS = 256, MOST = 32 };

    const Pass &pass;
    PrivateStatistics<MOST> &own;
    int statistics;
    double divisor;

    // The warp's 32 samples from `index` - lane on.
    DEVICE double run(i64 index) {
        const int classes = pass.classes;
        const bool there = index < pass.count;
        const Place at = place_of(pass, there ? index : 0);
        const T *logits = row_at<const T>(pass.logits, at);
        const i64 step = pass.logits.step;
        // Each sweep reads the logits again: the few that a block works on lie in the cache.
        Real max = -Arithmetic<Real>::infinity();
        UNROLL_BY_FOUR
        for (int k = 0; k < classes; ++k)
            if (there) max = Arithmetic<Real>::max(max, Storage<T>::load(logits + k * step));
        const Sample sample = begin_sample(pass, there, at, true);
        const SoftLabel<Real> soft(pass, sample);
        const int counted = sample.counted();
        const TargetLogits<Real> at_targets(sample, soft.mixed, logits, step);

        EightLanes<Real> sum, mass, distance;
        bool earlier = false;
        UNROLL
        for (int lane = 0; lane < 8; ++lane) {
            Real sum_four = 0, mass_four = 0, distance_four = 0;
            UNROLL_NOT
            for (int k = lane; k < classes && there; k += 8) {
                Real z = Storage<T>::load(logits + k * step), q = soft(k);
                sum_four = sum_four + Arithmetic<Real>::exp(z - max);
                mass_four = mass_four + q;
                distance_four = distance_four + (q == 0 ? (Real)0 : q * (max - z));
                earlier = earlier || (z == max && k < counted);
            }
            sum.lanes[lane] = (double)sum_four;
            mass.lanes[lane] = (double)mass_four;
            distance.lanes[lane] = (double)distance_four;
        }
        Sums sums = {sum.total(), mass.total(), distance.total()};
        if (sample.takes_part && !Arithmetic<double>::finite(sums.distance)) {
            EightLanes<Real> wide;
            UNROLL
            for (int lane = 0; lane < 8; ++lane) {
                wide.lanes[lane] = 0;
                UNROLL_NOT
                for (int k = lane; k < classes; k += 8)
                    wide.lanes[lane] = wide.lanes[lane] + wide_distance(soft, k, max, Storage<T>::load(logits + k * step));
            }
            sums.distance = wide.total();
        }

        const RowResult<Real> row = finish_row(pass, at, sample, soft, max, sums, at_targets, divisor);
        if (there && pass.reduction == REDUCTION_NONE && pass.loss.data) write_real(pass.loss, at, row.loss);
        if (sample.takes_part && row.plain) count_skipped(pass, statistics);
        Real counted_logit = counted == sample.first ? at_targets.first : at_targets.second;
        bool right = !row.plain && counted_logit == max && !earlier;
        bool adds = right && (statistics == STATISTICS_ADD || statistics == STATISTICS_TAKE_BACK);
        if (right && statistics == STATISTICS_TALLY) add_i64(pass.tally + counted, 1);
        if (adds) {
            bool asks = statistics == STATISTICS_ADD && may_fill(pass, *(const volatile i64 *)(pass.state.counts + counted));
            if (asks) adds = count_if_not_full(pass, counted);
            else atomicAdd(own.counts + counted, 1u);
        }
        write(at, there, logits, row, soft, max, at_targets, adds, counted);
        return there ? row.loss : 0.0;
    }

    // The third sweep. Where all samples of a warp that are added have one class, as neighbouring pixels do, they are added up before.
    DEVICE void write(Place at, bool there, const T *logits, const RowResult<Real> &row, const SoftLabel<Real> &soft, Real max,
                      const TargetLogits<Real> &at_targets, bool adds, int counted) {
        const unsigned voters = __ballot_sync(WHOLE_WARP, adds);
        const int leader = voters ? __ffs((int)voters) - 1 : 0;
        const int common = __shfl_sync(WHOLE_WARP, counted, leader);
        const bool together = __all_sync(WHOLE_WARP, !adds || counted == common);
        const bool wanted = there && pass.grad.data != 0;
        T *grad = row_at<T>(pass.grad, at);
        const Real to_units = row.plain ? (Real)0 : row.inverse * (Real)OLS_FRACTION_ONE;
        if (!voters && !pass.grad.data) return;
        UNROLL_BY_FOUR
        for (int k = 0; k < pass.classes; ++k) {
            Real e = there ? Arithmetic<Real>::exp(Storage<T>::load(logits + k * pass.logits.step) - max) : (Real)0;
            if (wanted) Storage<T>::store(grad + k * pass.grad.step, row.plain ? row.constant : gradient_entry(row, soft(k), e));
            int units = adds ? round_units(e * to_units) : 0;
            if (voters && together) {
                // At most 32 * 2^30 and some: two words.
                u64 sum = warp_sum((u64)units, 32);
                if (threadIdx.x % 32 == 0) {
                    own.add(common * pass.classes + k, (unsigned)sum);
                    if (sum >> 32) atomicAdd(own.high + common * pass.classes + k, (unsigned)(sum >> 32));
                }
            } else if (adds) {
                own.add(counted * pass.classes + k, (unsigned)units);
            }
        }
        if (!wanted || row.plain) return;
        if (soft.hard[0] != 0.0)
            Storage<T>::store(grad + soft.classes[0] * pass.grad.step, target_entry(row, soft, 0, Arithmetic<Real>::exp(at_targets.first - max)));
        if (soft.hard[1] != 0.0)
            Storage<T>::store(grad + soft.classes[1] * pass.grad.step, target_entry(row, soft, 1, Arithmetic<Real>::exp(at_targets.second - max)));
    }
};

template <class T> DEVICE void pass_samples(const Pass &pass) {
    typedef SamplePass<T> Samples;
    __shared__ PrivateStatistics<Samples::MOST> own;
    own.clear(pass.classes);
    const int lane = threadIdx.x % 32, warps = Samples::THREADS / 32;
    const double divisor = find_divisor<Samples::THREADS>(pass);
    const int statistics = statistics_of(pass);
    Samples samples = {pass, own, statistics, divisor};
    double loss = 0;
    const i64 tiles = (pass.count + 31) / 32;
    const i64 slot = (i64)blockIdx.x * warps + threadIdx.x / 32;
    for (i64 tile = slot; tile < tiles; tile += (i64)gridDim.x * warps) loss = loss + samples.run(tile * 32 + lane);
    own.flush(pass, statistics);
    loss = warp_sum(loss, 32);
    if (lane == 0) pass.scratch->loss[slot] = loss;
    reduce_loss<Samples::THREADS>(pass, gridDim.x * warps, divisor);
    finish_tally<Samples::THREADS>(pass);
}
