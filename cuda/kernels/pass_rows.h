// A row shared out to LANES threads: lane l takes the classes l, l + LANES, l + 2*LANES, ... . With ITEMS > 0 they stay in registers; with
// ITEMS == 0 they are read again for each of the three sweeps, from shared memory where the row fits, else from where they lie.
#pragma once
#include "row.h"

// What the lanes of a row tell each other where they are more than a warp.
template <class Real, int WARPS> struct RowExchange {
    Real max[WARPS];
    i64 count;
    double sums[WARPS][3];
    int earlier[WARPS];
    double wide[WARPS];
    int taken;
};

// Calls item(i, k) for the classes of a lane, and end_four() after every fourth one.
template <int LANES, int ITEMS, class Item, class End> DEVICE void for_items(int classes, int lane, Item item, End end_four) {
    if (ITEMS > 0) {
        UNROLL
        for (int i = 0; i < ITEMS; ++i) {
            int k = lane + i * LANES;
            if (k < classes) item(i, k);
            if (i % 4 == 3) end_four();
        }
    } else {
        for (int k = lane; k < classes; k += 4 * LANES) {
            UNROLL
            for (int i = 0; i < 4; ++i)
                if (k + i * LANES < classes) item(0, k + i * LANES);
            end_four();
        }
    }
}

struct Nothing {
    DEVICE void operator()() const {}
};

template <class T, int LANES, int ITEMS> struct RowPass {
    typedef typename Storage<T>::Real Real;
    enum { THREADS = LANES <= 32 ? 256 : LANES, GROUPS = THREADS / LANES, WARPS = LANES <= 32 ? 1 : LANES / 32, FEW = LANES == 8, MOST = FEW ? 32 : 1 };
    typedef RowExchange<Real, WARPS> Exchange;

    const Pass &pass;
    Exchange &exchange;
    PrivateStatistics<MOST> &own;
    T *cache;
    int lane, statistics;
    double divisor;

    DEVICE Real group_max(Real value) {
        value = warp_max(value, LANES < 32 ? LANES : 32);
        if (WARPS == 1) return value;
        if (lane % 32 == 0) exchange.max[lane / 32] = value;
        __syncthreads();
        Real most = exchange.max[0];
        for (int warp = 1; warp < WARPS; ++warp) most = Arithmetic<Real>::max(most, exchange.max[warp]);
        return most;
    }

    // Whether `flag` holds in any lane of this row; `flag` may be any bits that are to be joined.
    DEVICE bool group_any(bool flag) {
        unsigned votes = __ballot_sync(WHOLE_WARP, flag);
        if (LANES < 32) votes = votes >> (threadIdx.x % 32 / LANES * LANES) & ((1u << LANES % 32) - 1);
        return votes != 0;
    }

    DEVICE Sums group_sums(Sums sums, bool &earlier) {
        sums.exponentials = warp_sum(sums.exponentials, LANES < 32 ? LANES : 32);
        sums.mass = warp_sum(sums.mass, LANES < 32 ? LANES : 32);
        sums.distance = warp_sum(sums.distance, LANES < 32 ? LANES : 32);
        earlier = group_any(earlier);
        if (WARPS == 1) return sums;
        if (lane % 32 == 0) {
            double *to = exchange.sums[lane / 32];
            to[0] = sums.exponentials;
            to[1] = sums.mass;
            to[2] = sums.distance;
            exchange.earlier[lane / 32] = earlier;
        }
        __syncthreads();
        sums = Sums{0, 0, 0};
        earlier = false;
        for (int warp = 0; warp < WARPS; ++warp) {
            sums.exponentials = sums.exponentials + exchange.sums[warp][0];
            sums.mass = sums.mass + exchange.sums[warp][1];
            sums.distance = sums.distance + exchange.sums[warp][2];
            earlier = earlier || exchange.earlier[warp];
        }
        return sums;
    }

    // For all threads of the row, and where LANES < 32 of the warp, at once.
    DEVICE double group_wide_sum(double value) {
        value = warp_sum(value, LANES < 32 ? LANES : 32);
        if (WARPS == 1) return value;
        if (lane % 32 == 0) exchange.wide[lane / 32] = value;
        __syncthreads();
        double sum = 0;
        for (int warp = 0; warp < WARPS; ++warp) sum = sum + exchange.wide[warp];
        return sum;
    }

    // One row; `index` may lie behind the last one where a warp has several rows. The row's loss.
    DEVICE double run(i64 index) {
        const int classes = pass.classes;
        const bool there = index < pass.count;
        const Place at = place_of(pass, there ? index : 0);
        const T *logits = reinterpret_cast<const T *>(pass.logits.data) + (at.outer * pass.logits.outer + at.inner * pass.logits.inner);
        const i64 step = pass.logits.step;

        // The logits do not wait for the target.
        Real value[ITEMS > 0 ? ITEMS : 1];
        Real max = -Arithmetic<Real>::infinity();
        if (ITEMS > 0) {
            if (there) for_items<LANES, ITEMS>(classes, lane, [&](int i, int k) { value[i] = Storage<T>::load(logits + k * step); }, Nothing());
        } else {
            // Many loads on their way at once: this sweep waits for the memory alone.
            const int LOADS = sizeof(T) == 8 ? 4 : 8;
            for (int begin = lane; begin < classes; begin += LOADS * LANES) {
                T stored[LOADS];
                UNROLL
                for (int i = 0; i < LOADS; ++i)
                    if (begin + i * LANES < classes) stored[i] = logits[(begin + i * LANES) * step];
                UNROLL
                for (int i = 0; i < LOADS; ++i) {
                    int k = begin + i * LANES;
                    if (k >= classes) continue;
                    if (pass.cached) cache[k] = stored[i];
                    max = Arithmetic<Real>::max(max, Storage<T>::load(&stored[i]));
                }
            }
        }
        auto logit = [&](int i, int k) -> Real {
            if (ITEMS > 0) return value[i];
            return pass.cached ? Storage<T>::load(cache + k) : Storage<T>::load(logits + k * step);
        };

        Sample sample = Sample();
        if (there) sample = read_sample(pass, at);
        if (lane == 0 && there && sample.out_of_range && pass.count_targets) add_i64(pass.state.counters + COUNTER_OUT_OF_RANGE, 1);
        const SoftLabel<Real> soft(pass, sample);
        const int counted = sample.counted();
        Real first_logit = 0, second_logit = 0;
        if (sample.takes_part) {
            first_logit = Storage<T>::load(logits + sample.first * step);
            second_logit = soft.mixed ? Storage<T>::load(logits + sample.second * step) : first_logit;
        }
        i64 seen = 0;
        if (statistics == STATISTICS_ADD && sample.takes_part && lane == 0) seen = *(const volatile i64 *)(pass.state.counts + counted);
        if (WARPS > 1) {
            if (lane == 0) exchange.count = seen;
        } else {
            seen = __shfl_sync(WHOLE_WARP, seen, 0, LANES < 32 ? LANES : 32);
        }

        if (ITEMS > 0 && there)
            for_items<LANES, ITEMS>(classes, lane, [&](int i, int) { max = Arithmetic<Real>::max(max, value[i]); }, Nothing());
        max = group_max(max);
        if (WARPS > 1) seen = exchange.count;

        LaneSum<Real> sum, mass, distance;
        bool earlier = false;
        if (there && sample.takes_part) {
            for_items<LANES, ITEMS>(
                classes, lane,
                [&](int i, int k) {
                    Real z = logit(i, k), q = soft(k);
                    Real e = Arithmetic<Real>::exp(z - max);
                    if (ITEMS > 0) value[i] = e;
                    sum.add(e);
                    mass.add(q);
                    distance.add(q == 0 ? (Real)0 : q * (max - z));
                    earlier = earlier || (z == max && k < counted);
                },
                [&]() {
                    sum.end_four();
                    mass.end_four();
                    distance.end_four();
                });
        }
        Sums sums = group_sums(Sums{sum.value(), mass.value(), distance.value()}, earlier);

        // Rare: logits too far apart for their type, or masked ones that weigh something.
        bool too_far = there && sample.takes_part && !Arithmetic<double>::finite(sums.distance);
        if (WARPS > 1 ? too_far : __any_sync(WHOLE_WARP, too_far)) {
            double wide = 0;
            for (int k = lane; k < classes && too_far; k += LANES) wide = wide + wide_distance(soft, k, max, Storage<T>::load(logits + k * step));
            wide = group_wide_sum(wide);
            if (too_far) sums.distance = wide;
        }

        const RowResult<Real> row = finish_row(pass, at, sample, soft, max, sums, first_logit, second_logit, divisor);
        if (there && lane == 0 && pass.reduction == REDUCTION_NONE && pass.loss.data) write_real(pass.loss, at, row.loss);
        if (lane == 0 && sample.takes_part && row.plain) count_skipped(pass, statistics);
        Real counted_logit = counted == sample.first ? first_logit : second_logit;
        bool right = !row.plain && counted_logit == max && !earlier;
        bool adds = count_row(right, counted, seen);
        auto exponential = [&](int i, int k) -> Real { return ITEMS > 0 ? value[i] : Arithmetic<Real>::exp(logit(i, k) - max); };
        if (there) write_row(at, exponential, row, soft, max, first_logit, second_logit, adds, counted);
        return there ? row.loss : 0.0;
    }

    // Counts a row that is classified right; whether its probabilities are to be added. All threads of a row, or of a warp, at once.
    DEVICE bool count_row(bool right, int counted, i64 seen) {
        bool adds = right && (statistics == STATISTICS_ADD || statistics == STATISTICS_TAKE_BACK);
        if (right && statistics == STATISTICS_TALLY && lane == 0) add_i64(pass.tally + counted, 1);
        bool asks = adds && statistics == STATISTICS_ADD && may_fill(pass, seen);
        if (adds && !asks && lane == 0) {
            if (FEW) atomicAdd(own.counts + counted, 1u);
            else add_i64(pass.state.counts + counted, statistics == STATISTICS_ADD ? 1 : -1);
        }
        if (WARPS > 1) {
            if (asks) {
                if (lane == 0) exchange.taken = count_if_not_full(pass, counted);
                __syncthreads();
                adds = exchange.taken != 0;
            }
        } else if (__any_sync(WHOLE_WARP, asks)) {
            int taken = asks && lane == 0 ? (int)count_if_not_full(pass, counted) : 0;
            taken = __shfl_sync(WHOLE_WARP, taken, 0, LANES < 32 ? LANES : 32);
            if (asks) adds = taken != 0;
        }
        return adds;
    }

    // The third sweep: the gradient, and p to the statistics.
    template <class Exponential>
    DEVICE void write_row(Place at, Exponential exponential, const RowResult<Real> &row, const SoftLabel<Real> &soft, Real max, Real first_logit,
                          Real second_logit, bool adds, int counted) {
        const bool wanted = pass.grad.data != 0;
        if (!wanted && !adds) return;
        T *grad = reinterpret_cast<T *>(pass.grad.data) + (at.outer * pass.grad.outer + at.inner * pass.grad.inner);
        const i64 step = pass.grad.step;
        if (row.plain) {
            for (int k = lane; k < pass.classes; k += LANES) Storage<T>::store(grad + k * step, row.constant);
            return;
        }
        i64 *sums = pass.state.sums + (i64)counted * pass.state.sums_stride;
        const Real to_units = row.inverse * (Real)OLS_FRACTION_ONE;
        const i64 sign = statistics == STATISTICS_TAKE_BACK ? -1 : 1;
        for_items<LANES, ITEMS>(
            pass.classes, lane,
            [&](int i, int k) {
                Real e = exponential(i, k);
                if (wanted) Storage<T>::store(grad + k * step, gradient_entry(row, soft, k, e));
                if (adds) {
                    int units = round_units(e * to_units);
                    if (FEW) own.add(counted * pass.classes + k, (unsigned)units);
                    else add_i64(sums + k, sign * (i64)units);
                }
            },
            Nothing());
        // The lane that wrote a target's entry writes it once more.
        if (wanted && soft.hard[0] != 0.0 && lane == soft.classes[0] % LANES)
            Storage<T>::store(grad + soft.classes[0] * step, target_entry(row, soft, 0, Arithmetic<Real>::exp(first_logit - max)));
        if (wanted && soft.hard[1] != 0.0 && lane == soft.classes[1] % LANES)
            Storage<T>::store(grad + soft.classes[1] * step, target_entry(row, soft, 1, Arithmetic<Real>::exp(second_logit - max)));
    }
};

template <class T, int LANES, int ITEMS> DEVICE void pass_rows(const Pass &pass) {
    typedef RowPass<T, LANES, ITEMS> Rows;
    __shared__ typename Rows::Exchange exchange;
    __shared__ PrivateStatistics<Rows::MOST> own;
    __shared__ double losses[Rows::GROUPS];
    DYNAMIC_SHARED(T, cache);
    if (Rows::FEW) own.clear(pass.classes);
    const int lane = threadIdx.x % LANES, group = threadIdx.x / LANES;
    const double divisor = find_divisor<Rows::THREADS>(pass);
    const int statistics = statistics_of(pass);
    Rows rows = {pass, exchange, own, cache, lane, statistics, divisor};
    double loss = 0;
    const i64 tiles = (pass.count + Rows::GROUPS - 1) / Rows::GROUPS;
    for (i64 tile = blockIdx.x; tile < tiles; tile += gridDim.x) loss = loss + rows.run(tile * Rows::GROUPS + group);
    if (Rows::FEW) own.flush(pass, statistics);

    // The slot of this block: one loss per group, added up as by the lanes of a warp.
    __syncthreads();
    if (lane == 0) losses[group] = loss;
    __syncthreads();
    if (threadIdx.x < 32) {
        double sum = threadIdx.x < (unsigned)Rows::GROUPS ? losses[threadIdx.x] : 0.0;
        sum = warp_sum(sum, 32);
        if (threadIdx.x == 0) pass.scratch->loss[blockIdx.x] = sum;
    }
    reduce_loss<Rows::THREADS>(pass, gridDim.x, divisor);
    finish_tally<Rows::THREADS>(pass);
}
