// A thread per sample, for few classes. A thread has its row in registers, and adds it up as the eight lanes of pass_rows.h do, so that both give the
// same bits. Neighbouring threads read neighbouring numbers: the logits of a class, where those of neighbouring samples lie together (the pixels of
// (N, K, inner)); or STAGED, rows that lie one behind the other, 32 of which a warp copies through shared memory.
#pragma once
#include "row.h"

template <class T, bool ANY, bool STAGED> struct SamplePass {
    typedef typename Storage<T>::Real Real;
    typedef SoftLabel<Real, ANY> Soft;
    enum { MOST = 32, LANES = 8 };
    // What a row adds up.
    struct Three {
        Real exponentials, mass, distance;
        DEVICE Three operator+(const Three &other) const {
            return Three{exponentials + other.exponentials, mass + other.mass, distance + other.distance};
        }
    };
    // S in shared memory. Of neighbouring rows, the entries of a class lie in different banks.
    struct Labels { float entries[MOST][MOST + 1]; };
    // 32 rows of a warp, or their gradients; of an odd number of entries, so that entries of a class lie in different banks.
    struct Rows { float entries[32 * (MOST + 1)]; };

    const Pass &pass;
    PrivateStatistics<MOST> &own;
    const Labels &labels;
    const int statistics;
    Divisor &divisor;
    float *rows; // of the warp
    TargetCount<STAGED> targets_counted;

    // Calls each(place, index) for the entries of the warp's rows that this lane copies: their place among `rows`, and behind the first row's beginning.
    template <class Each> DEVICE void for_entries(int entries, Each each) const {
        const int classes = pass.classes, pitch = classes | 1, lane = threadIdx.x % 32, more_rows = 32 / classes, more = 32 % classes;
        int row = lane / classes, k = lane % classes;
        UNROLL_BY_FOUR
        for (int index = lane; index < entries; index += 32) {
            each(row * pitch + k, index);
            row += more_rows;
            k += more;
            if (k >= classes) {
                k -= classes;
                ++row;
            }
        }
    }

    // The warp's 32 samples from `index` - lane on.
    DEVICE double run(i64 index) {
        const int classes = pass.classes, lane = threadIdx.x % 32;
        const bool there = index < pass.count;
        const Place at = STAGED ? Place{there ? index : 0, 0} : place_of<ANY>(pass, there ? index : 0);
        const T *logits = row_at<const T>(pass.logits, at);
        // Of the warp.
        const i64 first_row = index - lane;
        const int entries = (int)(pass.count - first_row < 32 ? pass.count - first_row : 32) * classes;
        float *mine = rows + lane * (classes | 1);
        Real value[MOST];
        if constexpr (STAGED) {
            const T *from = row_at<const T>(pass.logits, Place{first_row, 0});
            for_entries(entries, [&](int place, int entry) { rows[place] = Storage<T>::load(from + entry); });
            __syncwarp();
            UNROLL
            for (int k = 0; k < MOST; ++k) {
                if (k >= classes) break;
                value[k] = mine[k];
            }
        } else {
            // As they are stored: to widen one would be to wait for it.
            T stored[MOST];
            const T *from = logits;
            UNROLL
            for (int k = 0; k < MOST; ++k) {
                if (k >= classes) break;
                stored[k] = *from;
                from = in_register(from + pass.logits.step);
            }
            UNROLL
            for (int k = 0; k < MOST; ++k) {
                if (k >= classes) break;
                value[k] = Storage<T>::load(stored + k);
            }
        }
        const Sample sample = begin_sample<ANY>(pass, there, at, true);
        const Soft soft(pass, sample);
        const int counted = ANY ? sample.counted() : sample.first;
        const AtTargets<Real> targets = STAGED ? AtTargets<Real>(sample, soft, mine, 1) : AtTargets<Real>(sample, soft, logits, pass.logits.step);
        // The first class that has the maximum.
        Real max = -Arithmetic<Real>::infinity();
        int first_largest = -1;
        UNROLL
        for (int k = 0; k < MOST; ++k) {
            if (k >= classes) break;
            if (!(value[k] > max)) continue;
            max = value[k];
            first_largest = k;
        }

        const float *label = labels.entries[sample.first];
        const auto q_of = [&](int k) { return soft.of(label[k], k); };
        const auto of_lane = [&](int first) {
            Three sums = {0, 0, 0};
            UNROLL
            for (int k = first; k < MOST; k += LANES) {
                if (k >= classes) break;
                const Real below = value[k] - max, q = q_of(k);
                value[k] = Arithmetic<Real>::exp(below);
                sums.exponentials = sums.exponentials + value[k];
                sums.mass = sums.mass + q;
                sums.distance = Arithmetic<Real>::fma(q, Arithmetic<Real>::min(-below, widest<Real>()), sums.distance);
            }
            return sums;
        };
        // As three exchanges between neighbours: 4, 2 and 1 lanes apart.
        const Three three = ((of_lane(0) + of_lane(4)) + (of_lane(2) + of_lane(6))) + ((of_lane(1) + of_lane(5)) + (of_lane(3) + of_lane(7)));
        Sums sums = {(double)three.exponentials, (double)three.mass, (double)three.distance};
        if (sample.takes_part && is_too_far<Real>(sums.distance)) sums.distance = wide_sum(soft, max, logits);

        if (!ANY) targets_counted.finish(divisor);
        const RowResult<Real> row = finish_row(pass, at, sample, soft, max, sums, targets, divisor);
        if (there && pass.reduction == REDUCTION_NONE && pass.loss.data) write_real(pass.loss, at, row.loss);
        if (sample.takes_part && row.plain) count_skipped<ANY>(pass, statistics);
        const bool right = !row.plain && first_largest == counted;
        bool adds = right && (statistics == STATISTICS_ADD || (ANY && statistics == STATISTICS_TAKE_BACK));
        if (ANY && right && statistics == STATISTICS_TALLY) add_i64(pass.tally + counted, 1);
        if (adds) {
            const bool asks = statistics == STATISTICS_ADD && may_fill(pass, *(const volatile i64 *)(pass.state.counts + counted));
            if (asks) adds = count_if_not_full(pass, counted);
            else atomicAdd(own.counts + counted, 1u);
        }
        add(value, row, adds, counted);
        if (pass.grad.data) {
            if constexpr (STAGED) {
                write(mine, 1, value, row, soft, q_of, max, targets);
                __syncwarp();
                T *to = row_at<T>(pass.grad, Place{first_row, 0});
                for_entries(entries, [&](int place, int entry) { Storage<T>::store(to + entry, rows[place]); });
            } else if (there) {
                write(row_at<T>(pass.grad, at), pass.grad.step, value, row, soft, q_of, max, targets);
            }
        }
        if (STAGED) __syncwarp(); // before the next rows come
        return there ? row.loss : 0.0;
    }

    // The gradient of a row, with its classes `step` apart.
    template <class To, class Q>
    DEVICE void write(To *grad, i64 step, const Real *exponentials, const RowResult<Real> &row, const Soft &soft, Q q_of, Real max,
                      const AtTargets<Real> &targets) {
        To *to = grad;
        UNROLL
        for (int k = 0; k < MOST; ++k) {
            if (k >= pass.classes) break;
            Storage<To>::store(to, row.plain ? row.constant : gradient_entry(row, q_of(k), exponentials[k]));
            if constexpr (STAGED) ++to;
            else to = in_register(to + step);
        }
        UNROLL
        for (int which = 0; which < (ANY ? 2 : 1); ++which)
            if (!row.plain && soft.hard[which] != 0.0)
                Storage<To>::store(grad + soft.classes[which] * step, target_entry(row, soft, which, max, targets));
    }

    // The sum of q * (max - z) in f64, in the lanes' order.
    DEVICE double wide_sum(const Soft &soft, Real max, const T *logits) {
        double lanes[LANES];
        UNROLL
        for (int lane = 0; lane < LANES; ++lane) {
            lanes[lane] = 0;
            UNROLL_NOT
            for (int k = lane; k < pass.classes; k += LANES)
                lanes[lane] = lanes[lane] + wide_distance(soft, k, max, Storage<T>::load(logits + k * pass.logits.step));
        }
        return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
    }

    // Probabilities to the statistics. Where all samples of a warp that are added have one class, as neighbouring pixels do, they are added up before.
    DEVICE void add(const Real *exponentials, const RowResult<Real> &row, bool adds, int counted) {
        const unsigned voters = __ballot_sync(WHOLE_WARP, adds);
        if (!voters) return;
        const int common = __shfl_sync(WHOLE_WARP, counted, __ffs((int)voters) - 1);
        const Real to_units = adds ? row.inverse * (Real)OLS_FRACTION_ONE : (Real)0;
        const unsigned lane = threadIdx.x % 32;
        if (__all_sync(WHOLE_WARP, !adds || counted == common)) {
            u64 sum_of_lane = 0; // that of the class with the lane's number
            UNROLL
            for (int k = 0; k < MOST; ++k) {
                if (k >= pass.classes) break;
                const u64 sum = warp_sum_of_units(adds ? (unsigned)round_units(exponentials[k] * to_units) : 0u);
                if (lane == (unsigned)k) sum_of_lane = sum;
            }
            if (lane < (unsigned)pass.classes) own.add(common * pass.classes + (int)lane, sum_of_lane);
        } else if (adds) {
            UNROLL
            for (int k = 0; k < MOST; ++k) {
                if (k >= pass.classes) break;
                own.add(counted * pass.classes + k, (unsigned)round_units(exponentials[k] * to_units));
            }
        }
    }
};

template <class T, bool ANY, bool STAGED = false> DEVICE void pass_samples(const Pass &pass) {
    typedef SamplePass<T, ANY, STAGED> Samples;
    enum { WARPS = 8 };
    struct Unstaged { float entries[1]; };
    __shared__ typename Choose<STAGED, typename Samples::Rows, Unstaged>::Type rows[STAGED ? WARPS : 1];
    __shared__ PrivateStatistics<Samples::MOST> own;
    __shared__ typename Samples::Labels labels;
    for (int at = threadIdx.x; at < pass.classes * pass.classes; at += blockDim.x) {
        const int row = at / pass.classes, column = at % pass.classes;
        labels.entries[row][column] = pass.state.soft_labels[row * pass.state.soft_labels_stride + column];
    }
    __shared__ Divisor divisors[WARPS];
    Divisor &divisor = divisors[threadIdx.x / 32];
    const int statistics = statistics_of<ANY>(pass);
    Samples samples = {pass, own, labels, statistics, divisor, rows[STAGED ? threadIdx.x / 32 : 0].entries, TargetCount<STAGED>(pass)};
    if (!ANY) samples.targets_counted.begin();
    own.clear(pass.classes); // and a barrier
    divisor.set(find_divisor<ANY, STAGED>(pass));
    // A slot has every slots-th tile of 32 samples: so what a slot adds up does not depend on the grid.
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, all = gridDim.x * WARPS;
    typedef typename Choose<ANY, i64, unsigned>::Type Index;
    const Index tiles = ((Index)pass.count + 31) / 32;
    const unsigned slots = tiles < OLS_LOSS_SLOTS ? (unsigned)tiles : OLS_LOSS_SLOTS;
    const bool one_block = gridDim.x == 1 && tiles <= WARPS;
    double loss = 0;
    // The warps of a block go on together, so that a full block can flush.
    unsigned added = 0;
    for (unsigned first = blockIdx.x * WARPS; first < slots; first += all) {
        const unsigned slot = first + warp;
        loss = 0;
        for (Index base = first; base < tiles; base += slots) {
            if (slot < slots && base + warp < tiles) loss = loss + samples.run((base + warp) * 32 + lane);
            if ((added += WARPS * 32) == PrivateStatistics<Samples::MOST>::SAMPLES) {
                own.flush(pass, statistics);
                added = 0;
            }
        }
        if (one_block) break;
        loss = warp_sum(loss, 32);
        if (lane == 0 && slot < slots) pass.scratch->loss[slot] = loss;
    }
    own.flush(pass, statistics);
    reduce_loss(pass, slots, one_block, loss, divisor.value);
    if (ANY) finish_tally(pass);
}
