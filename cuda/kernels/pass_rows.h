// The pass with one or more warps, or part of a warp, per row: LANES threads keep the row in registers (ITEMS > 0),
// or sweep over it in memory (ITEMS == 0, long rows). COPIED: the copy engine brings the row to shared memory. ANY selects
// the general form, with class and sample weights, second targets, strided classes, (N, K, inner) layouts, f64 and
// batches to be taken back.
#pragma once
#include "losses.h"
#include "row_in_memory.h"
#include "row_in_registers.h"
#ifdef OLS_COPY_ENGINE
#include "row_in_shared.h"
#include "row_in_stream.h"
#else
template <class T> struct RowInShared;
template <class T, int LANES> struct RowInStream;
#endif

// Shared memory for exchanges between the warps of a row.
template <class Real, int WARPS> struct RowExchange {
    Real max[WARPS];
    double sums[WARPS][3];
    Real lanes[3][WARPS == 4 ? 128 : 1];
    int earlier[WARPS];
    double wide[WARPS];
    int may_fill_up, taken;
};

template <class T, int LANES, int ITEMS, bool ANY, bool COPIED> struct RowPass {
    typedef typename Storage<T>::Real Real;
    enum { WARPS = LANES <= 32 ? 1 : LANES / 32, WIDTH = LANES < 32 ? LANES : 32, LONG = ITEMS == 0, SPREAD = LANES == 32 && ITEMS == 1 };
    enum { STREAMED = COPIED && LONG }; // by threads behind those of the row
    // Several rows per warp: their statistics are gathered in shared memory, for at most MOST classes.
    enum { SEVERAL = LANES == 8, MOST = SEVERAL ? 32 : 1 };
    typedef RowExchange<Real, WARPS> Exchange;
    typedef SoftLabel<Real, ANY> Soft;
    typedef typename Choose<COPIED, RowInStream<T, LANES>, RowInMemory<T, LANES, ANY>>::Type LongRow;
    typedef typename Choose<COPIED, RowInShared<T>, RowInRegisters<T, LANES, LONG ? 1 : ITEMS, ANY>>::Type ShortRow;
    typedef typename Choose<LONG, LongRow, ShortRow>::Type Row;
    typedef typename Row::OfLane OfLane;
    // With few classes, sums over lanes are in the row's own type. SPREAD: each lane of a warp has one class.
    typedef typename Choose<SEVERAL || SPREAD, Real, double>::Type Total;

    const Pass &pass;
    Exchange &exchange;
    PrivateStatistics<MOST> &own;
    Divisor &divisor;
    const int lane, statistics;
    TargetCount<true> targets_counted;
    // In shared memory, one per warp. Only the first lane of a row uses it or, with several rows per warp, that of the
    // warp.
    Losses<Real, ANY> &losses;
    // The current row: its place, and the target of a sample of the usual form.
    Row values;
    Place at;
    i64 target;
    bool there;

    DEVICE RowPass(const Pass &pass, Exchange &exchange, PrivateStatistics<MOST> &own, T *cache, Divisor &divisor, Losses<Real, ANY> &losses)
        : pass(pass), exchange(exchange), own(own), divisor(divisor), lane(threadIdx.x % LANES), statistics(statistics_of<ANY>(pass)),
          targets_counted(pass), losses(losses), values(pass, lane, cache), target(0) {}

    // Issues the loads of a row's target and logits; does not wait for them. With several rows per warp, the row may
    // lie beyond the last one.
    DEVICE void load(i64 index) {
        there = index < pass.count;
        at = ANY ? place_of<true>(pass, there ? index : 0) : Place{there ? index : 0, 0};
        if constexpr (STREAMED) target = values.next_target();
        else if (!ANY) target = read_integer(pass.targets, at);
        values.load(row_at<const T>(pass.logits, at), there);
    }

    // Prefetches the logits of a later row into L2. Only in usual kernels with one row per warp.
    DEVICE void prefetch_row(i64 index) const {
        if (COPIED || LONG || ANY || WARPS > 1 || index >= pass.count) return;
        const int k = lane * (128 / (int)sizeof(T)); // one cache line per lane
        if (k < pass.classes) prefetch(row_at<const T>(pass.logits, Place{index, 0}) + k);
    }

    // Tree reduction over one value per warp of the row, in shared memory; call after a barrier.
    template <class V, class Join> static DEVICE V over_warps(const V *of_warp, int stride, Join join) {
        V value = of_warp[threadIdx.x % WARPS * stride];
        UNROLL
        for (int step = WARPS / 2; step > 0; step /= 2) value = join(value, __shfl_xor_sync(WHOLE_WARP, value, step));
        return value;
    }

    // A barrier of all threads of a row with several warps.
    static DEVICE void row_barrier() {
        if (STREAMED) barrier_of(LANES);
        else __syncthreads();
    }

    DEVICE Real group_max(Real value) {
        value = warp_max(value, WIDTH);
        if (WARPS == 1) return value;
        if (lane % 32 == 0) exchange.max[lane / 32] = value;
        row_barrier();
        return over_warps(exchange.max, 1, [](Real a, Real b) { return Arithmetic<Real>::max(a, b); });
    }

    // Sum over the lanes of a row that lie in one warp. SPREAD: in the order in which eight lanes would add their
    // classes.
    template <class V> static DEVICE V over_lanes(V value) {
        if constexpr (SPREAD) {
            const int first = threadIdx.x % 8;
            const V of[4] = {__shfl_sync(WHOLE_WARP, value, first), __shfl_sync(WHOLE_WARP, value, first + 8),
                             __shfl_sync(WHOLE_WARP, value, first + 16), __shfl_sync(WHOLE_WARP, value, first + 24)};
            return warp_sum(((of[0] + of[1]) + of[2]) + of[3], 8);
        }
        return warp_sum(value, WIDTH);
    }

    DEVICE Sums group_sums(Total exponentials, Total mass, OfLane distance, bool &earlier) {
        if constexpr (LANES == 128) {
            Real (&lanes)[3][128] = exchange.lanes;
            lanes[0][lane] = (Real)exponentials;
            lanes[1][lane] = (Real)mass;
            lanes[2][lane] = distance;
            earlier = __syncthreads_or(earlier) != 0;
            const int at = lane % 32;
            const auto total = [&](const Real *of) { return Row::of_four(of[at], of[at + 32], of[at + 64], of[at + 96]); };
            return Sums{warp_sum((double)total(lanes[0]), 32), warp_sum((double)total(lanes[1]), 32), (double)warp_sum(total(lanes[2]), 32)};
        }
        Sums sums = {(double)over_lanes(exponentials), (double)over_lanes(mass), (double)over_lanes(distance)};
        unsigned votes = __ballot_sync(WHOLE_WARP, earlier);
        if (LANES < 32) votes = votes >> (threadIdx.x % 32 / LANES * LANES) & ((1u << LANES % 32) - 1);
        earlier = votes != 0;
        if (WARPS == 1) return sums;
        if (lane % 32 == 0) {
            double *to = exchange.sums[lane / 32];
            to[0] = sums.exponentials;
            to[1] = sums.mass;
            to[2] = sums.distance;
            exchange.earlier[lane / 32] = earlier;
        }
        row_barrier();
        const auto plus = [](double a, double b) { return a + b; };
        const double *from = exchange.sums[0];
        sums = Sums{over_warps(from, 3, plus), over_warps(from + 1, 3, plus), over_warps(from + 2, 3, plus)};
        earlier = over_warps(exchange.earlier, 1, [](int a, int b) { return a | b; }) != 0;
        return sums;
    }

    // Must be called by all threads of the row and, if LANES < 32, by all threads of the warp.
    DEVICE double group_wide_sum(double value) {
        value = over_lanes(value);
        if (WARPS == 1) return value;
        if (lane % 32 == 0) exchange.wide[lane / 32] = value;
        row_barrier();
        return over_warps(exchange.wide, 1, [](double a, double b) { return a + b; });
    }

    // The logits of the current row: in shared memory if they are there as a whole, and otherwise where the caller has
    // them.
    DEVICE const T *logits_of_row() const {
        if constexpr (COPIED && !LONG) return values.logits();
        else return row_at<const T>(pass.logits, at);
    }

    // Processes the row that was loaded last.
    DEVICE void process() {
        if constexpr (COPIED && !LONG) values.wait();
        const bool leader = lane == 0;
        const Sample sample = begin_sample<ANY>(pass, there, at, target, leader);
        const Soft soft(pass, sample);
        const int counted = ANY ? sample.counted() : sample.first;
        const AtTargets<Real> targets(sample, soft, logits_of_row(), Row::step_of(pass.logits));
        if (WARPS == 1) __syncwarp(); // before another lane overwrites these logits with a gradient or an exponential
        values.ask_labels(soft);
        // The number of samples in the class so far. Only the leader loads it, early, so that it has arrived when it
        // is used.
        i64 seen = 0;
        if (statistics == STATISTICS_ADD && sample.takes_part && leader) seen = *(const volatile i64 *)(pass.state.counts + counted);

        const Real of_lane = values.maximum();
        if (WARPS > 1 && leader) exchange.may_fill_up = may_fill(pass, seen);
        const Real max = group_max(of_lane);
        // Read before the next barrier, after which the leader may already be writing it for its next row.
        const bool told = WARPS > 1 && exchange.may_fill_up != 0;
        // If the target's logit is the maximum, does an earlier class have it too?
        const bool largest = sample.takes_part && targets.logit[counted == sample.first ? 0 : 1] == max;
        bool earlier = false;
        if (LANES < 32 || largest) earlier = values.has_before(counted, max, of_lane == max);

        OfLane exponentials, mass, distance;
        values.add_up(soft, max, exponentials, mass, distance);
        Sums sums = group_sums((Total)exponentials, (Total)mass, distance, earlier);
        const bool too_far = sample.takes_part && is_too_far(sums.distance);
        sums.mass = sums.mass * (double)soft.scale();
        sums.distance = sums.distance * (double)soft.scale();
        if (WARPS > 1 ? too_far : __any_sync(WHOLE_WARP, too_far)) {
            double wide = 0;
            const T *logits = row_at<const T>(pass.logits, at);
            for (int k = lane; k < pass.classes && too_far; k += LANES)
                wide = wide + wide_distance(soft, k, max, Storage<T>::load(logits + k * Row::step_of(pass.logits)));
            wide = group_wide_sum(wide);
            if (too_far) sums.distance = wide;
        }

        if (!ANY) targets_counted.finish(divisor);
        const RowResult<Real> row = finish_row(pass, at, sample, soft, max, sums, targets, divisor);
        if (there && leader && pass.loss.data) {
            if (pass.reduction == REDUCTION_NONE) write_real(pass.loss, at, row.loss);
            else if (!SEVERAL) losses.add(pass, row.loss);
        }
        if (SEVERAL && pass.reduction != REDUCTION_NONE && pass.loss.data) {
            // The first lane of the warp adds the losses of all its rows.
            UNROLL_NOT
            for (int of = 0; of < 32; of += LANES) {
                const double loss = __shfl_sync(WHOLE_WARP, there ? row.loss : 0.0, of);
                if (threadIdx.x % 32 == 0) losses.add(pass, loss);
            }
        }
        if (leader && sample.takes_part && row.plain) count_skipped<ANY>(pass, statistics);
        const bool right = !row.plain && largest && !earlier;
        const bool may_fill_up = WARPS > 1 ? told : may_fill(pass, seen);
        const bool adds = count_row(right, counted, may_fill_up);
        if (there && pass.grad.data && row.plain) {
            T *grad = row_at<T>(pass.grad, at);
            for (int k = lane; k < pass.classes; k += LANES) Storage<T>::store(grad + k * Row::step_of(pass.grad), row.constant);
        }
        // Also if nothing is written: rows that were copied are released, and the next ones asked for, on the way.
        if (COPIED || (there && !row.plain && (pass.grad.data || adds))) write_row(row, soft, max, targets, adds, counted);
    }

    // Counts a correctly classified row, and returns whether its probabilities are to be added to the statistics.
    // Must be called by all threads of a row (and of a warp).
    DEVICE bool count_row(bool right, int counted, bool may_fill_up) {
        const bool leader = lane == 0;
        bool adds = right && (statistics == STATISTICS_ADD || (ANY && statistics == STATISTICS_TAKE_BACK));
        if (ANY && right && statistics == STATISTICS_TALLY && leader) add_i64(pass.tally + counted, 1);
        bool asks = adds && may_fill_up;
        if (WARPS == 1) asks = __shfl_sync(WHOLE_WARP, (int)asks, 0, WIDTH) != 0; // only the leader knows
        if (adds && !asks && leader) {
            if (SEVERAL) atomicAdd(own.counts + counted, 1u);
            else add_i64(pass.state.counts + counted, ANY && statistics == STATISTICS_TAKE_BACK ? -1 : 1);
        }
        if (WARPS > 1) {
            if (asks) {
                if (leader) exchange.taken = count_if_not_full(pass, counted);
                row_barrier();
                adds = exchange.taken != 0;
            }
        } else if (__any_sync(WHOLE_WARP, asks)) {
            int taken = asks && leader ? (int)count_if_not_full(pass, counted) : 0;
            taken = __shfl_sync(WHOLE_WARP, taken, 0, WIDTH);
            if (asks) adds = taken != 0;
        }
        return adds;
    }

    // Writes the gradient and adds p to the statistics.
    DEVICE void write_row(const RowResult<Real> &row, const Soft &soft, Real max, const AtTargets<Real> &targets, bool adds, int counted) {
        T *grad = row_at<T>(pass.grad, at);
        const bool wanted = pass.grad.data && !(COPIED && row.plain);
        // Compute the targets' own entries before the sweep over the row, to keep fewer values live across it.
        enum { TARGETS = ANY ? 2 : 1 };
        bool mine[TARGETS];
        Real entry[TARGETS];
        UNROLL
        for (int which = 0; which < TARGETS; ++which) {
            mine[which] = wanted && soft.hard[which] != 0.0 && lane == Row::owner_of(soft.classes[which]);
            entry[which] = 0;
            if (mine[which]) entry[which] = target_entry(row, soft, which, max, targets);
        }
        // With few classes, PrivateStatistics::flush applies the sign.
        const Real to_units = row.inverse * (Real)(ANY && statistics == STATISTICS_TAKE_BACK && !SEVERAL ? -OLS_FRACTION_ONE : OLS_FRACTION_ONE);
        i64 *sums = adds ? pass.state.sums + (i64)counted * pass.state.sums_stride : nullptr;
        const auto units = [&](Real e) { return round_units(e * to_units); };
        const auto add_own = [&](int k, int units) { own.add(counted, k, (unsigned)units); };
        if constexpr (SEVERAL) values.write(soft, row, max, grad, wanted, sums, adds, units, add_own);
        else values.write(soft, row, max, grad, wanted, sums, adds, units);
        // The lane that wrote a target's entry overwrites it.
        UNROLL
        for (int which = 0; which < TARGETS; ++which)
            if (mine[which]) Storage<T>::store(grad + soft.classes[which] * Row::step_of(pass.grad), entry[which]);
    }
};

template <class T, int LANES, int ITEMS, bool ANY, bool COPIED = false> DEVICE void pass_rows(const Pass &pass) {
    typedef RowPass<T, LANES, ITEMS, ANY, COPIED> Rows;
    __shared__ typename Rows::Exchange exchange;
    __shared__ PrivateStatistics<Rows::MOST> own;
    __shared__ Divisor divisors[MOST_WARPS];
    typedef Losses<typename Rows::Real, ANY> OfLosses;
    __shared__ OfLosses losses[MOST_WARPS];
    DYNAMIC_SHARED(T, cache);
    typedef typename Choose<ANY, i64, unsigned>::Type Index;
    const Index count = (Index)pass.count;
    const unsigned groups = LANES > 32 ? 1 : blockDim.x / LANES, all = gridDim.x * groups;
    const unsigned of_block = LANES > 32 ? 0 : threadIdx.x / LANES;
    // All groups of a warp keep going as long as its first group has a row, since they use warp-wide operations.
    const unsigned within = LANES < 32 ? threadIdx.x % 32 / LANES : 0;

    Divisor &divisor = divisors[threadIdx.x / 32];
    if (threadIdx.x % 32 == 0) losses[threadIdx.x / 32] = {};
    Rows rows(pass, exchange, own, cache, divisor, losses[threadIdx.x / 32]);
    // Issue the loads of the first row before computing the divisor, to overlap the two. (Streams begin afterwards.)
    const Index begin = blockIdx.x * groups + of_block;
    const bool copies = Rows::STREAMED && threadIdx.x >= LANES; // for the threads of the row
    if constexpr (Rows::STREAMED) {
        Rows::Row::Stream::prepare(pass);
        __syncthreads();
    } else if constexpr (COPIED) {
        rows.values.begin(begin, all);
    }
    if (begin - within < count && !copies) rows.load(begin);
    if (!ANY) rows.targets_counted.begin();
    if (Rows::SEVERAL) own.clear(pass.classes);
    if (!rows.targets_counted.waits) divisor.set(find_divisor<ANY, true>(pass), is_weighted<ANY>(pass));

    if constexpr (Rows::STREAMED) {
        if (copies) Rows::Row::Stream::run(pass);
    }
    // All warps of a block that do not copy run the same number of iterations, so that the whole block can flush.
    unsigned added = 0;
    for (Index first = copies ? count : blockIdx.x * groups; first < count; first += all) {
        const Index row = first + of_block;
        if (row - within < count) {
            if (row != begin) rows.load(row);
            rows.prefetch_row(row + all);
            rows.process();
        }
        if (Rows::SEVERAL && (added += groups) == PrivateStatistics<Rows::MOST>::SAMPLES) {
            own.flush(pass, rows.statistics);
            added = 0;
        }
    }
    if (Rows::SEVERAL) own.flush(pass, rows.statistics);
    if (LANES <= 32 || pass.divisor == DIVISOR_BY_ALL_BLOCKS) __syncthreads();
    if (threadIdx.x == 0) reduce_loss(pass, LANES <= 32 ? OfLosses::over_warps(losses) : losses[0], divisor);
    if (ANY) finish_tally(pass);
}
