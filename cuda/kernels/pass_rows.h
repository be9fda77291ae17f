// A row shared out to LANES threads: lane l takes the classes l, l + LANES, l + 2*LANES, ... . With ITEMS > 0 they stay in registers; with
// ITEMS == 0, for long rows, they are read again for each of the three sweeps: from shared memory where the row fits, else from where they lie.
// ANY: for what few batches have: class weights and others, second targets, classes that lie apart, (N, K, inner), and batches to be taken back.
#pragma once
#include "row.h"

// What the lanes of a row tell each other where they are more than a warp.
template <class Real, int WARPS> struct RowExchange {
    Real max[WARPS];
    double sums[WARPS][3];
    Real lanes[3][WARPS == 4 ? 128 : 1];
    int earlier[WARPS];
    double wide[WARPS];
    int may_fill_up, taken;
};

template <class T, int LANES, int ITEMS, bool ANY> struct RowPass {
    typedef typename Storage<T>::Real Real;
    enum { WARPS = LANES <= 32 ? 1 : LANES / 32, WIDTH = LANES < 32 ? LANES : 32, FEW = LANES == 8, MOST = FEW ? 32 : 1, LONG = ITEMS == 0 };
    // Classes that a lane of a long row goes through side by side; for more there are no registers. They are added up before they meet the others.
    enum { SIDE = sizeof(Real) == 8 ? 2 : 4 };
    // Entries of a soft label in a line of the cache.
    enum { LINE = 128 / sizeof(float) };
    // Soft labels of a lane that are kept between the sweeps, or are read at once where there are more.
    enum { KEPT = LONG ? 1 : ITEMS < 8 ? ITEMS : 8 };
    typedef RowExchange<Real, WARPS> Exchange;
    typedef SoftLabel<Real, ANY> Soft;
    // A lane of 32 items has four of the lanes that a row would have with 128 threads, and adds up as they do.
    enum { CHAINS = LANES * ITEMS == 1024 && LANES == 32 ? 4 : 1 };
    // Few classes are added up in the row's own type.
    typedef typename Choose<FEW, Real, double>::Type Total;

    const Pass &pass;
    Exchange &exchange;
    PrivateStatistics<MOST> &own;
    T *cache; // of long rows
    Divisor &divisor;
    double &loss; // of the group's slot
    const int lane, statistics;
    TargetCount<true> targets_counted;
    // The row at hand: its place, and its logits where they are kept.
    Place at;
    const T *logits;
    bool there;
    Real value[LONG ? 1 : ITEMS];

    DEVICE RowPass(const Pass &pass, Exchange &exchange, PrivateStatistics<MOST> &own, T *cache, Divisor &divisor, double &loss)
        : pass(pass), exchange(exchange), own(own), cache(cache), divisor(divisor), loss(loss), lane(threadIdx.x % LANES),
          statistics(statistics_of<ANY>(pass)), targets_counted(pass) {}

    // The entries of a soft label for KEPT items; 0 behind the last class.
    DEVICE void read_items(const float *labels, int first, float *label) const {
        UNROLL
        for (int j = 0; j < KEPT; ++j) label[j] = has(first + j) ? __ldg(labels + (first + j) * LANES) : 0.0f;
    }

    // Whether item i of this lane is a class.
    DEVICE bool has(int i) const { return i * LANES < pass.classes - lane; }

    static DEVICE i64 step_of(const Rows &rows) { return ANY ? rows.step : 1; }

    // Asks for the logits of a row, which may lie behind the last one where a warp has several. They are not waited for.
    DEVICE void load(i64 index) {
        there = index < pass.count;
        at = ANY ? place_of<true>(pass, there ? index : 0) : Place{there ? index : 0, 0};
        logits = row_at<const T>(pass.logits, at);
        if constexpr (!LONG) {
            const T *from = in_register(logits + lane * step_of(pass.logits));
            UNROLL
            for (int i = 0; i < ITEMS; ++i)
                value[i] = there && has(i) ? Storage<T>::load(from + i * LANES * step_of(pass.logits)) : -Arithmetic<Real>::infinity();
        }
    }

    // A value that each of the row's warps has, joined by a tree over them; behind a barrier.
    template <class V, class Join> static DEVICE V over_warps(const V *of_warp, int stride, Join join) {
        V value = of_warp[threadIdx.x % WARPS * stride];
        UNROLL
        for (int step = WARPS / 2; step > 0; step /= 2) value = join(value, __shfl_xor_sync(WHOLE_WARP, value, step));
        return value;
    }

    DEVICE Real group_max(Real value) {
        value = warp_max(value, WIDTH);
        if (WARPS == 1) return value;
        if (lane % 32 == 0) exchange.max[lane / 32] = value;
        __syncthreads();
        return over_warps(exchange.max, 1, [](Real a, Real b) { return Arithmetic<Real>::max(a, b); });
    }

    // Four lanes' sums, each 32 lanes apart.
    static DEVICE Real of_four(Real a, Real b, Real c, Real d) { return (a + c) + (b + d); }

    DEVICE Sums group_sums(Total exponentials, Total mass, Total distance, bool &earlier) {
        if constexpr (LANES == 128) {
            Real (&lanes)[3][128] = exchange.lanes;
            lanes[0][lane] = (Real)exponentials;
            lanes[1][lane] = (Real)mass;
            lanes[2][lane] = (Real)distance;
            earlier = __syncthreads_or(earlier) != 0;
            const int at = lane % 32;
            const auto total = [&](const Real *of) { return warp_sum((double)of_four(of[at], of[at + 32], of[at + 64], of[at + 96]), 32); };
            return Sums{total(lanes[0]), total(lanes[1]), total(lanes[2])};
        }
        Sums sums = {(double)warp_sum(exponentials, WIDTH), (double)warp_sum(mass, WIDTH), (double)warp_sum(distance, WIDTH)};
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
        __syncthreads();
        const auto plus = [](double a, double b) { return a + b; };
        const double *from = exchange.sums[0];
        sums = Sums{over_warps(from, 3, plus), over_warps(from + 1, 3, plus), over_warps(from + 2, 3, plus)};
        earlier = over_warps(exchange.earlier, 1, [](int a, int b) { return a | b; }) != 0;
        return sums;
    }

    // For all threads of the row, and where LANES < 32 of the warp, at once.
    DEVICE double group_wide_sum(double value) {
        value = warp_sum(value, WIDTH);
        if (WARPS == 1) return value;
        if (lane % 32 == 0) exchange.wide[lane / 32] = value;
        __syncthreads();
        return over_warps(exchange.wide, 1, [](double a, double b) { return a + b; });
    }

    // Calls chunk(full, k) for the classes of a lane in chunks of COUNT: k, k + LANES, ... . Where not `full`, some of them lie behind the last class.
    template <int COUNT, class Chunk> DEVICE void for_chunks(Chunk chunk) {
        int begin = 0;
        UNROLL_NOT
        for (; begin + COUNT * LANES <= pass.classes; begin += COUNT * LANES) chunk(Bool<true>(), begin + lane);
        if (begin < pass.classes) chunk(Bool<false>(), begin + lane);
    }

    // Logits of a long row, or what the cache has in their place; -inf behind the last class.
    template <bool FULL> DEVICE void read_chunk(int k, Real *z) {
        const i64 step = step_of(pass.logits);
        const T *from = in_register(logits + k * step), *cached = cache + k;
        UNROLL
        for (int j = 0; j < SIDE; ++j) {
            if (!FULL) z[j] = -Arithmetic<Real>::infinity();
            if (FULL || k + j * LANES < pass.classes) z[j] = pass.cached ? Storage<T>::load(cached + j * LANES) : Storage<T>::load(from + j * LANES * step);
        }
    }
    template <bool FULL> DEVICE void read_labels(const Soft &soft, int k, float *labels) {
        const float *from = in_register(soft.first_row + k);
        UNROLL
        for (int j = 0; j < SIDE; ++j) {
            if (!FULL) labels[j] = 0;
            if (FULL || k + j * LANES < pass.classes) labels[j] = __ldg(from + j * LANES);
        }
    }

    // The maximum over a lane of a long row, which goes to the cache on the way. Many loads at once: this sweep waits for the memory alone.
    DEVICE Real sweep_maximum() {
        enum { LOADS = sizeof(T) == 8 ? 4 : 6 };
        Real max = -Arithmetic<Real>::infinity();
        for_chunks<LOADS>([&](auto full, int k) {
            constexpr bool FULL = decltype(full)::value;
            const i64 step = step_of(pass.logits);
            const T *from = in_register(logits + k * step);
            T stored[LOADS];
            UNROLL
            for (int j = 0; j < LOADS; ++j)
                if (FULL || k + j * LANES < pass.classes) stored[j] = from[j * LANES * step];
            UNROLL
            for (int j = 0; j < LOADS; ++j) {
                if (!FULL && k + j * LANES >= pass.classes) continue;
                if (pass.cached) cache[k + j * LANES] = stored[j];
                max = Arithmetic<Real>::max(max, Storage<T>::load(&stored[j]));
            }
        });
        return max;
    }

    // Whether the cache is to have exponentials in the place of logits, from the second sweep on.
    DEVICE bool keeps_exponentials() const { return LONG && sizeof(T) == sizeof(Real) && pass.cached; }

    // One row that was loaded; adds its loss to the group's.
    DEVICE void process() {
        const int classes = pass.classes;
        const bool leader = lane == 0;
        const Sample sample = begin_sample<ANY>(pass, there, at, leader);
        const Soft soft(pass, sample);
        const int counted = ANY ? sample.counted() : sample.first;
        const AtTargets<Real> targets(sample, soft, logits, step_of(pass.logits));
        if (WARPS == 1) __syncwarp(); // before another lane writes a gradient over them
        if (LONG) {
            // The soft label comes nearer while the logits are read: each chunk of it would wait for the memory.
            for (int k = lane * LINE; k < classes; k += LANES * LINE) prefetch(soft.first_row + k);
        }
        // Soft labels do not wait for the maximum, where there are registers for them.
        const float *labels = in_register(soft.first_row + lane);
        float label[KEPT];
        if constexpr (!LONG && KEPT == ITEMS) read_items(labels, 0, label);
        // The leader's number of samples in the class, which is looked at where it is needed.
        i64 seen = 0;
        if (statistics == STATISTICS_ADD && sample.takes_part && leader) seen = *(const volatile i64 *)(pass.state.counts + counted);

        Real max = -Arithmetic<Real>::infinity();
        if (LONG) max = sweep_maximum();
        else {
            UNROLL
            for (int i = 0; i < ITEMS; ++i) max = Arithmetic<Real>::max(max, value[i]);
        }
        const Real of_lane = max;
        if (WARPS > 1 && leader) exchange.may_fill_up = may_fill(pass, seen);
        max = group_max(max);
        // Before the next barrier, behind which the leader may be at its next row.
        const bool told = WARPS > 1 && exchange.may_fill_up != 0;

        // Whether a class before the target's has the maximum too. Few lanes have to look.
        bool earlier = false;
        if (of_lane == max && !LONG) {
            UNROLL
            for (int i = 0; i < ITEMS; ++i) earlier = earlier || (value[i] == max && lane + i * LANES < counted);
        }
        if (of_lane == max && LONG) {
            UNROLL_NOT
            for (int k = lane; k < counted && !earlier; k += LANES)
                earlier = (pass.cached ? Storage<T>::load(cache + k) : Storage<T>::load(logits + k * step_of(pass.logits))) == max;
        }

        Total exponentials = 0, mass = 0, distance = 0;
        if (LONG) {
            LaneSum<Real> exponentials_of_lane, mass_of_lane, distance_of_lane;
            for_chunks<SIDE>([&](auto full, int k) {
                constexpr bool FULL = decltype(full)::value;
                Real z[SIDE], e_sum = 0, q_sum = 0, d_sum = 0;
                float labels[SIDE];
                read_labels<FULL>(soft, k, labels);
                read_chunk<FULL>(k, z);
                UNROLL
                for (int j = 0; j < SIDE; ++j) {
                    const bool inside = FULL || k + j * LANES < classes;
                    const Real below = z[j] - max, q = inside ? soft.of(labels[j], k + j * LANES) : (Real)0, e = Arithmetic<Real>::exp(below);
                    e_sum = e_sum + e;
                    q_sum = q_sum + q;
                    d_sum = Arithmetic<Real>::fma(q, Arithmetic<Real>::min(-below, widest<Real>()), d_sum);
                    if constexpr (sizeof(T) == sizeof(Real)) {
                        if (inside && pass.cached) Storage<T>::store(cache + k + j * LANES, e);
                    }
                }
                exponentials_of_lane.add(e_sum);
                mass_of_lane.add(q_sum);
                distance_of_lane.add(d_sum);
            });
            exponentials = (Total)exponentials_of_lane.value();
            mass = (Total)mass_of_lane.value();
            distance = (Total)distance_of_lane.value();
        } else {
            Real e_sum[CHAINS], q_sum[CHAINS], d_sum[CHAINS];
            UNROLL
            for (int chain = 0; chain < CHAINS; ++chain) e_sum[chain] = q_sum[chain] = d_sum[chain] = 0;
            UNROLL
            for (int first = 0; first < ITEMS; first += KEPT) {
                if constexpr (KEPT < ITEMS) read_items(labels, first, label);
                UNROLL
                for (int i = first; i < first + KEPT; ++i) {
                    const int k = lane + i * LANES, chain = i % CHAINS;
                    // Behind the last class: exp(-inf) = 0 and q = 0.
                    const Real below = value[i] - max, q = !ANY || k < classes ? soft.of(label[i - first], k) : (Real)0;
                    value[i] = Arithmetic<Real>::exp(below);
                    e_sum[chain] = e_sum[chain] + value[i];
                    q_sum[chain] = q_sum[chain] + q;
                    d_sum[chain] = Arithmetic<Real>::fma(q, Arithmetic<Real>::min(-below, widest<Real>()), d_sum[chain]);
                }
            }
            const auto total = [](const Real *sums) {
                return (Total)(CHAINS == 1 ? sums[0] : of_four(sums[0], sums[1 % CHAINS], sums[2 % CHAINS], sums[3 % CHAINS]));
            };
            exponentials = total(e_sum);
            mass = total(q_sum);
            distance = total(d_sum);
        }
        Sums sums = group_sums(exponentials, mass, distance, earlier);

        const bool too_far = sample.takes_part && is_too_far<Real>(sums.distance);
        if (WARPS > 1 ? too_far : __any_sync(WHOLE_WARP, too_far)) {
            double wide = 0;
            for (int k = lane; k < classes && too_far; k += LANES)
                wide = wide + wide_distance(soft, k, max, Storage<T>::load(logits + k * step_of(pass.logits)));
            wide = group_wide_sum(wide);
            if (too_far) sums.distance = wide;
        }

        if (!ANY) targets_counted.finish(divisor);
        const RowResult<Real> row = finish_row(pass, at, sample, soft, max, sums, targets, divisor);
        if (there && leader && pass.reduction == REDUCTION_NONE && pass.loss.data) write_real(pass.loss, at, row.loss);
        if (there && leader) loss = loss + row.loss;
        if (leader && sample.takes_part && row.plain) count_skipped<ANY>(pass, statistics);
        const bool right = !row.plain && targets.logit[counted == sample.first ? 0 : 1] == max && !earlier;
        const bool may_fill_up = WARPS > 1 ? told : may_fill(pass, seen);
        const bool adds = count_row(right, counted, may_fill_up);
        if (there && pass.grad.data && row.plain) {
            T *grad = row_at<T>(pass.grad, at);
            for (int k = lane; k < classes; k += LANES) Storage<T>::store(grad + k * step_of(pass.grad), row.constant);
        } else if (there && (pass.grad.data || adds)) {
            write_row(labels, label, row, soft, max, targets, adds, counted);
        }
    }

    // Counts a row that is classified right; whether its probabilities are to be added. All threads of a row, or of a warp, at once.
    DEVICE bool count_row(bool right, int counted, bool may_fill_up) {
        const bool leader = lane == 0;
        bool adds = right && (statistics == STATISTICS_ADD || (ANY && statistics == STATISTICS_TAKE_BACK));
        if (ANY && right && statistics == STATISTICS_TALLY && leader) add_i64(pass.tally + counted, 1);
        bool asks = adds && may_fill_up;
        if (WARPS == 1) asks = __shfl_sync(WHOLE_WARP, (int)asks, 0, WIDTH) != 0; // the leader knows
        if (adds && !asks && leader) {
            if (FEW) atomicAdd(own.counts + counted, 1u);
            else add_i64(pass.state.counts + counted, ANY && statistics == STATISTICS_TAKE_BACK ? -1 : 1);
        }
        if (WARPS > 1) {
            if (asks) {
                if (leader) exchange.taken = count_if_not_full(pass, counted);
                __syncthreads();
                adds = exchange.taken != 0;
            }
        } else if (__any_sync(WHOLE_WARP, asks)) {
            int taken = asks && leader ? (int)count_if_not_full(pass, counted) : 0;
            taken = __shfl_sync(WHOLE_WARP, taken, 0, WIDTH);
            if (asks) adds = taken != 0;
        }
        return adds;
    }

    // The third sweep: the gradient, and p to the statistics.
    DEVICE void write_row(const float *labels, float *label, const RowResult<Real> &row, const Soft &soft, Real max, const AtTargets<Real> &targets, bool adds, int counted) {
        const int classes = pass.classes;
        T *grad = row_at<T>(pass.grad, at);
        const i64 step = step_of(pass.grad);
        const bool wanted = pass.grad.data != 0;
        i64 *sums = pass.state.sums + (i64)counted * pass.state.sums_stride;
        // The targets' own entries, found before the others so that less has to be kept.
        enum { TARGETS = ANY ? 2 : 1 };
        bool mine[TARGETS];
        Real entry[TARGETS];
        UNROLL
        for (int which = 0; which < TARGETS; ++which) {
            mine[which] = wanted && soft.hard[which] != 0.0 && lane == soft.classes[which] % LANES;
            entry[which] = 0;
            if (mine[which]) entry[which] = target_entry(row, soft, which, max, targets);
        }
        // Statistics of few classes get their sign where the block adds them.
        const Real to_units = row.inverse * (Real)(ANY && statistics == STATISTICS_TAKE_BACK && !FEW ? -OLS_FRACTION_ONE : OLS_FRACTION_ONE);
        const auto put = [&](int k, i64 *to, Real e) {
            const int units = round_units(e * to_units);
            if (FEW) own.add(counted * classes + k, (unsigned)units);
            else add_i64(to, ANY ? (i64)units : (i64)(unsigned)units); // never negative but where they are taken back
        };
        if (LONG) {
            const bool exponentials = keeps_exponentials();
            for_chunks<SIDE>([&](auto full, int k) {
                constexpr bool FULL = decltype(full)::value;
                Real e[SIDE];
                float labels[SIDE];
                if (wanted) read_labels<FULL>(soft, k, labels);
                read_chunk<FULL>(k, e);
                if (!exponentials) {
                    UNROLL
                    for (int j = 0; j < SIDE; ++j) e[j] = Arithmetic<Real>::exp(e[j] - max);
                }
                if (wanted) {
                    T *to = in_register(grad + k * step);
                    UNROLL
                    for (int j = 0; j < SIDE; ++j)
                        if (FULL || k + j * LANES < classes)
                            Storage<T>::store(to + j * LANES * step, gradient_entry(row, soft.of(labels[j], k + j * LANES), e[j]));
                }
                if (!adds) return;
                i64 *to = in_register(sums + k);
                UNROLL
                for (int j = 0; j < SIDE; ++j)
                    if (FULL || k + j * LANES < classes) put(k + j * LANES, to + j * LANES, e[j]);
            });
        } else {
            if (wanted) {
                T *to = in_register(grad + lane * step);
                UNROLL
                for (int first = 0; first < ITEMS; first += KEPT) {
                    if constexpr (KEPT < ITEMS) read_items(labels, first, label);
                    UNROLL
                    for (int i = first; i < first + KEPT; ++i)
                        if (has(i)) Storage<T>::store(to + i * LANES * step, gradient_entry(row, soft.of(label[i - first], lane + i * LANES), value[i]));
                }
            }
            if (adds) {
                i64 *to = in_register(sums + lane);
                UNROLL
                for (int i = 0; i < ITEMS; ++i)
                    if (has(i)) put(lane + i * LANES, to + i * LANES, value[i]);
            }
        }
        // The lane that wrote a target's entry writes it once more.
        UNROLL
        for (int which = 0; which < TARGETS; ++which)
            if (mine[which]) Storage<T>::store(grad + soft.classes[which] * step, entry[which]);
    }
};

template <class T, int LANES, int ITEMS, bool ANY> DEVICE void pass_rows(const Pass &pass) {
    typedef RowPass<T, LANES, ITEMS, ANY> Rows;
    __shared__ typename Rows::Exchange exchange;
    __shared__ PrivateStatistics<Rows::MOST> own;
    enum { MOST_GROUPS = LANES > 32 ? 1 : MOST_WARPS * 32 / LANES };
    __shared__ double losses[MOST_GROUPS]; // of the slots at hand
    __shared__ Divisor divisors[MOST_WARPS];
    DYNAMIC_SHARED(T, cache);
    // A slot has every slots-th row: so what a slot adds up does not depend on the grid.
    typedef typename Choose<ANY, i64, unsigned>::Type Index;
    const Index count = (Index)pass.count, slots = count < OLS_LOSS_SLOTS ? count : OLS_LOSS_SLOTS;
    const unsigned groups = LANES > 32 ? 1 : blockDim.x / LANES, all = gridDim.x * groups;
    const unsigned of_block = LANES > 32 ? 0 : threadIdx.x / LANES;
    // Of the groups of a warp, all go on while one has a row.
    const unsigned within = LANES < 32 ? threadIdx.x % 32 / LANES : 0;
    const bool one_block = gridDim.x == 1 && count <= groups;

    Divisor &divisor = divisors[threadIdx.x / 32];
    Rows rows(pass, exchange, own, cache, divisor, losses[of_block]);
    // The first row is on its way while the divisor is found.
    const Index begin = blockIdx.x * groups + of_block;
    if (begin - within < slots) rows.load(begin < slots ? begin : count);
    if (!ANY) rows.targets_counted.begin();
    if (Rows::FEW) own.clear(pass.classes);
    divisor.set(find_divisor<ANY, true>(pass));
    if (rows.lane == 0) losses[of_block] = 0;

    // The warps of a block go on together, so that a full block can flush.
    unsigned added = 0;
    for (Index first = blockIdx.x * groups; first < slots; first += all) {
        const Index slot = first + of_block;
        for (Index base = first; base < count; base += slots) {
            const Index row = base + of_block;
            if (slot - within < slots && row - within < count) {
                if (row != begin) rows.load(slot < slots ? row : count);
                rows.process();
            }
            if (Rows::FEW && (added += groups) == PrivateStatistics<Rows::MOST>::SAMPLES) {
                own.flush(pass, rows.statistics);
                added = 0;
            }
        }
        if (rows.lane == 0 && slot < slots && !one_block) {
            pass.scratch->loss[slot] = losses[of_block];
            losses[of_block] = 0;
        }
    }
    if (Rows::FEW) own.flush(pass, rows.statistics);
    __syncthreads(); // a lane that wants no loss may be compiled to read it nevertheless
    reduce_loss(pass, (unsigned)slots, one_block, rows.lane == 0 ? losses[of_block] : 0.0, divisor.value);
    if (ANY) finish_tally(pass);
}
