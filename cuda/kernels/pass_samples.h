// The pass with one thread per sample, for K <= 32. A thread keeps its row in registers and adds it up in the order
// of the eight lanes of pass_rows.h, so that both give the same bits. Global accesses are coalesced: where samples
// are adjacent (the pixels of (N, K, inner)), neighbouring threads read the same class of neighbouring samples;
// STAGED kernels take contiguous row-major rows, 32 of which a warp copies through shared memory.
#pragma once
#include "losses.h"
#include "row.h"

template <class T, bool ANY, bool STAGED> struct SamplePass {
    typedef typename Storage<T>::Real Real;
    typedef SoftLabel<Real, ANY> Soft;
    enum { MOST = 32, LANES = 8 };
    // The three sums over a row.
    struct Three {
        Real exponentials, mass, distance;
        DEVICE Three operator+(const Three &other) const {
            return Three{exponentials + other.exponentials, mass + other.mass, distance + other.distance};
        }
    };
    // S in shared memory, padded so that the entries of one class in consecutive rows lie in different banks.
    struct Labels { float entries[MOST][MOST + 1]; };
    // 32 rows of a warp, or their gradients. The pitch is odd, so that the entries of one class lie in different
    // banks.
    struct Rows { float entries[32 * (MOST + 1)]; };

    const Pass &pass;
    PrivateStatistics<MOST> &own;
    const Labels &labels;
    const int statistics;
    Divisor &divisor;
    float *rows; // of this warp
    TargetCount<STAGED> targets_counted;
    Losses<Real, ANY> losses;
    // The current sample of this thread: its place and, in the usual form, its target.
    Place at;
    i64 target;

    // Calls each(place, index) for the entries of the warp's rows that this lane copies: `place` is the index in
    // `rows`, `index` the offset from the start of the first row in global memory.
    template <class Each> DEVICE void for_staged(int entries, Each each) const {
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

    // Number of entries in the warp's rows, of which `first_row` is the first.
    DEVICE int entries_of(i64 first_row) const { return (int)(pass.count - first_row < 32 ? pass.count - first_row : 32) * pass.classes; }

    // Loads the target of this lane's sample `index` and, if rows are staged, copies the warp's 32 rows to shared
    // memory.
    DEVICE void begin(i64 index) {
        const i64 there = index < pass.count ? index : 0;
        at = STAGED ? Place{there, 0} : place_of<ANY>(pass, there);
        if (!ANY) target = read_integer(pass.targets, at);
        if constexpr (STAGED) {
            const i64 first_row = index - threadIdx.x % 32;
            const T *from = row_at<const T>(pass.logits, Place{first_row, 0});
            for_staged(entries_of(first_row), [&](int place, int entry) { rows[place] = Storage<T>::load(from + entry); });
            __syncwarp();
        }
    }

    // Processes the sample passed to begin().
    DEVICE void run(i64 index) {
        const int classes = pass.classes, lane = threadIdx.x % 32;
        const bool there = index < pass.count;
        const T *logits = row_at<const T>(pass.logits, at);
        const i64 first_row = index - lane; // of the warp
        float *mine = rows + lane * (classes | 1);
        Real value[MOST];
        if constexpr (STAGED) {
            UNROLL
            for (int k = 0; k < MOST; ++k) {
                if (k >= classes) break;
                value[k] = mine[k];
            }
        } else {
            // Keep the logits in their storage type until all loads have been issued: converting one would wait for
            // it.
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
        const Sample sample = begin_sample<ANY>(pass, there, at, target, true);
        const Soft soft(pass, sample);
        const int counted = ANY ? sample.counted() : sample.first;
        const AtTargets<Real> targets = STAGED ? AtTargets<Real>(sample, soft, mine, 1) : AtTargets<Real>(sample, soft, logits, pass.logits.step);
        // The maximum, and the first class that has it.
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
        const auto part_of = [&](int k) { return soft.part(label[k], k); };
        const auto of_lane = [&](int first) {
            Three sums = {0, 0, 0};
            UNROLL
            for (int k = first; k < MOST; k += LANES) {
                if (k >= classes) break;
                value[k] = add_class<false>(value[k], part_of(k), max, sums.exponentials, sums.mass, sums.distance);
            }
            return sums;
        };
        // The order of a butterfly reduction over eight lanes, with offsets 4, 2 and 1.
        const Three three = ((of_lane(0) + of_lane(4)) + (of_lane(2) + of_lane(6))) + ((of_lane(1) + of_lane(5)) + (of_lane(3) + of_lane(7)));
        Sums sums = {(double)three.exponentials, (double)three.mass, (double)three.distance};
        const bool too_far = sample.takes_part && is_too_far(sums.distance);
        sums.mass = sums.mass * (double)soft.scale();
        sums.distance = too_far ? wide_sum(soft, max, logits) : sums.distance * (double)soft.scale();

        if (!ANY) targets_counted.finish(divisor);
        const RowResult<Real> row = finish_row(pass, at, sample, soft, max, sums, targets, divisor);
        if (there && pass.loss.data) {
            if (pass.reduction == REDUCTION_NONE) write_real(pass.loss, at, row.loss);
            else losses.add(pass, row.loss);
        }
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
                write(mine, 1, value, row, soft, part_of, max, targets);
                __syncwarp();
                T *to = row_at<T>(pass.grad, Place{first_row, 0});
                for_staged(entries_of(first_row), [&](int place, int entry) { Storage<T>::store(to + entry, rows[place]); });
            } else if (there) {
                write(row_at<T>(pass.grad, at), pass.grad.step, value, row, soft, part_of, max, targets);
            }
        }
        if (STAGED) __syncwarp(); // before the next rows are staged
    }

    // Writes the gradient of a row whose classes are `step` apart.
    template <class To, class Part>
    DEVICE void write(To *grad, i64 step, const Real *exponentials, const RowResult<Real> &row, const Soft &soft, Part part_of, Real max,
                      const AtTargets<Real> &targets) {
        To *to = grad;
        UNROLL
        for (int k = 0; k < MOST; ++k) {
            if (k >= pass.classes) break;
            Storage<To>::store(to, row.plain ? row.constant : gradient_entry(row, part_of(k), exponentials[k]));
            if constexpr (STAGED) ++to;
            else to = in_register(to + step);
        }
        UNROLL
        for (int which = 0; which < (ANY ? 2 : 1); ++which)
            if (!row.plain && soft.hard[which] != 0.0)
                Storage<To>::store(grad + soft.classes[which] * step, target_entry(row, soft, which, max, targets));
    }

    // The sum of q * (max - z) in f64, in the order of the eight lanes.
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

    // Adds probabilities to the statistics of the block. If all samples that a warp adds have the same class, as
    // neighbouring pixels often do, they are first added over the warp.
    DEVICE void add(const Real *exponentials, const RowResult<Real> &row, bool adds, int counted) {
        const unsigned voters = __ballot_sync(WHOLE_WARP, adds);
        if (!voters) return;
        const int common = __shfl_sync(WHOLE_WARP, counted, __ffs((int)voters) - 1);
        const Real to_units = adds ? row.inverse * (Real)OLS_FRACTION_ONE : (Real)0;
        const unsigned lane = threadIdx.x % 32;
        if (__all_sync(WHOLE_WARP, !adds || counted == common)) {
            u64 sum_of_lane = 0; // of the class with the number of the lane
            UNROLL
            for (int k = 0; k < MOST; ++k) {
                if (k >= pass.classes) break;
                const u64 sum = warp_sum_of_units(adds ? (unsigned)round_units(exponentials[k] * to_units) : 0u);
                if (lane == (unsigned)k) sum_of_lane = sum;
            }
            if (lane < (unsigned)pass.classes) own.add(common, (int)lane, sum_of_lane);
        } else if (adds) {
            UNROLL
            for (int k = 0; k < MOST; ++k) {
                if (k >= pass.classes) break;
                own.add(counted, k, (unsigned)round_units(exponentials[k] * to_units));
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
    __shared__ Divisor divisors[WARPS];
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, all = gridDim.x * WARPS;
    typedef typename Choose<ANY, i64, unsigned>::Type Index;
    const Index tiles = ((Index)pass.count + 31) / 32, begin = blockIdx.x * WARPS + warp;
    Divisor &divisor = divisors[warp];
    const int statistics = statistics_of<ANY>(pass);
    Samples samples = {pass, own, labels, statistics, divisor, rows[STAGED ? warp : 0].entries, TargetCount<STAGED>(pass), {}, {0, 0}, 0};
    // Issue the first loads early, to overlap them with the rest of the setup.
    if (begin < tiles) samples.begin(begin * 32 + lane);
    for_matrix(pass.classes, [&](int row, int column) {
        labels.entries[row][column] = __ldg(pass.state.soft_labels + row * pass.state.soft_labels_stride + column);
    });
    if (!ANY) samples.targets_counted.begin();
    own.clear(pass.classes); // ends with a barrier
    if (!samples.targets_counted.waits) divisor.set(find_divisor<ANY, STAGED>(pass), is_weighted<ANY>(pass));
    // All warps of a block run the same number of iterations, so that the whole block can flush.
    unsigned added = 0;
    for (Index first = blockIdx.x * WARPS; first < tiles; first += all) {
        const Index tile = first + warp;
        if (tile < tiles) {
            if (tile != begin) samples.begin(tile * 32 + lane);
            samples.run(tile * 32 + lane);
        }
        if ((added += WARPS * 32) == PrivateStatistics<Samples::MOST>::SAMPLES) {
            own.flush(pass, statistics);
            added = 0;
        }
    }
    own.flush(pass, statistics);
    samples.losses.over_lanes();
    typedef Losses<typename Samples::Real, ANY> OfLosses;
    __shared__ OfLosses losses[WARPS];
    if (lane == 0) losses[warp] = samples.losses;
    __syncthreads();
    if (threadIdx.x == 0) reduce_loss(pass, OfLosses::over_warps(losses), divisor);
    if (ANY) finish_tally(pass);
}
