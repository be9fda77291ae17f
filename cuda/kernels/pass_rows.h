// A row shared out to LANES threads: lane l takes the classes l, l + LANES, l + 2*LANES, ... . With ITEMS > 0 they stay in registers; with
// ITEMS == 0 they are read again for each of the three sweeps, from shared memory where the row fits, else from where they lie.
//
// Long rows fall into eight parts, whose sums are added up lane by lane: those are the shares of eight blocks where a cluster has the row, so that
// a block and a cluster give the same bits.
#pragma once
#include "hopper.h"
#include "row.h"

// How statistics are added, and how many blocks have a row.
struct PlainWay { enum { BULK = 0, BLOCKS = 1 }; };
struct BulkWay { enum { BULK = 1, BLOCKS = 1 }; };
struct ClusterWay { enum { BULK = 1, BLOCKS = CLUSTER_BLOCKS }; };
enum { PARTS = CLUSTER_BLOCKS };

// What the lanes of a row tell each other where they are more than a warp.
template <class Real, int WARPS> struct RowExchange {
    Real max[WARPS];
    i64 count;
    double sums[WARPS][3];
    int earlier[WARPS];
    double wide[WARPS];
    int taken;
};

// What the blocks of a cluster tell each other. Each adds up the lanes of its share.
template <class Real, int LANES> struct ClusterExchange {
    enum { SHARE = LANES / CLUSTER_BLOCKS };
    Real max[CLUSTER_BLOCKS];
    int earlier[CLUSTER_BLOCKS];
    double parts[CLUSTER_BLOCKS][SHARE][3];
};

struct Unused {};
template <bool CONDITION, class A, class B> struct Choose { typedef A Type; };
template <class A, class B> struct Choose<false, A, B> { typedef B Type; };

// Calls four(i, k) for the classes of a lane in [first, last), four at a time: item i is class k, i + 1 is k + LANES, and so on. The last ones may lie
// behind `last`; what they are must change nothing then. So there are no branches between them, and they go on side by side.
template <int LANES, int ITEMS, class Four> DEVICE void for_fours(int first, int last, int lane, Four four) {
    if (ITEMS > 0) {
        UNROLL
        for (int i = 0; i < ITEMS; i += 4)
            if (first + i * LANES < last) four(i, first + lane + i * LANES);
    } else {
        UNROLL_NOT
        for (int begin = first; begin < last; begin += 4 * LANES) four(0, begin + lane);
    }
}

template <class T, int LANES, int ITEMS, class Way> struct RowPass {
    typedef typename Storage<T>::Real Real;
    enum { THREADS = LANES <= 32 ? 256 : LANES, GROUPS = THREADS / LANES, WARPS = LANES <= 32 ? 1 : LANES / 32, FEW = LANES == 8, MOST = FEW ? 32 : 1 };
    // Classes that the lanes go through at once.
    // Of a four, so many go on side by side; for more there are no registers in f64.
    enum { SIDE = ITEMS == 0 && sizeof(Real) == 8 ? 1 : 4 };
    enum { TILE = LANES * (ITEMS > 0 ? ITEMS : 4), BULK = Way::BULK, CLUSTER = Way::BLOCKS > 1 };
    typedef RowExchange<Real, WARPS> Exchange;
    typedef typename Choose<CLUSTER, ClusterExchange<Real, LANES>, Unused>::Type OfCluster;
    typedef typename Choose<BULK, BulkStatistics<TILE>, Unused>::Type OfBulk;

    const Pass &pass;
    Exchange &exchange;
    PrivateStatistics<MOST> &own;
    OfCluster &cluster;
    OfBulk &bulk;
    T *cache;
    int lane, statistics;
    double divisor;
    bool knows_divisor;
    int part, first, last; // classes of a part of the row; those of this block
    bool leader;           // of the lanes of a row, in all of its blocks
    int buffer = 0;

    DEVICE RowPass(const Pass &pass, Exchange &exchange, PrivateStatistics<MOST> &own, OfCluster &cluster, OfBulk &bulk, T *cache)
        : pass(pass), exchange(exchange), own(own), cluster(cluster), bulk(bulk), cache(cache), lane(threadIdx.x % LANES),
          statistics(statistics_of(pass)), divisor(0), knows_divisor(false), part(pass.classes), first(0), last(pass.classes) {
        if (ITEMS == 0) part = ((pass.classes - 1) / TILE / PARTS + 1) * TILE;
        leader = lane == 0;
        if constexpr (CLUSTER) {
            first = part * (int)cluster_rank();
            last = first + part < pass.classes ? first + part : pass.classes;
            leader = lane == 0 && cluster_rank() == 0;
        }
    }

    DEVICE Real group_max(Real value) {
        value = warp_max(value, LANES < 32 ? LANES : 32);
        if (WARPS == 1) return value;
        if (lane % 32 == 0) exchange.max[lane / 32] = value;
        __syncthreads();
        Real most = exchange.max[0];
        for (int warp = 1; warp < WARPS; ++warp) most = Arithmetic<Real>::max(most, exchange.max[warp]);
        if constexpr (CLUSTER) {
            if (lane == 0) tell(cluster.max + cluster_rank(), most);
            cluster_sync();
            UNROLL_NOT
            for (int block = 0; block < CLUSTER_BLOCKS; ++block) most = Arithmetic<Real>::max(most, cluster.max[block]);
        }
        return most;
    }

    // Whether `flag` holds in any lane of this row; `flag` may be any bits that are to be joined.
    DEVICE bool group_any(bool flag) {
        unsigned votes = __ballot_sync(WHOLE_WARP, flag);
        if (LANES < 32) votes = votes >> (threadIdx.x % 32 / LANES * LANES) & ((1u << LANES % 32) - 1);
        return votes != 0;
    }

    static DEVICE Sums sum_of_warp(Sums sums) {
        const int width = LANES < 32 ? LANES : 32;
        return Sums{warp_sum(sums.exponentials, width), warp_sum(sums.mass, width), warp_sum(sums.distance, width)};
    }

    DEVICE Sums group_sums(Sums sums, bool &earlier) {
        if constexpr (CLUSTER) {
            tell_sums(sums, earlier);
        } else {
            sums = sum_of_warp(sums);
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
            earlier = false;
            for (int warp = 0; warp < WARPS; ++warp) earlier = earlier || exchange.earlier[warp];
        }
        sums = Sums{0, 0, 0};
        for (int warp = 0; warp < WARPS; ++warp)
            sums = sums + Sums{exchange.sums[warp][0], exchange.sums[warp][1], exchange.sums[warp][2]};
        return sums;
    }

    // In a cluster: afterwards every block has the sums of all warps, each over the parts lane by lane and then over the lanes, as in one block.
    DEVICE void tell_sums(Sums sums, bool &earlier) {
        const unsigned rank = cluster_rank();
        const int share = OfCluster::SHARE;
        earlier = __syncthreads_or(earlier) != 0;
        if (lane == 0) tell(cluster.earlier + rank, (int)earlier);
        double *to = cluster.parts[rank][lane % share];
        store_remote(to + 0, lane / share, sums.exponentials);
        store_remote(to + 1, lane / share, sums.mass);
        store_remote(to + 2, lane / share, sums.distance);
        cluster_sync();
        UNROLL_NOT
        for (int block = 0; block < CLUSTER_BLOCKS; ++block) earlier = earlier || cluster.earlier[block];
        if (lane < share) { // whole warps
            sums = Sums{0, 0, 0};
            UNROLL_NOT
            for (int block = 0; block < PARTS; ++block) {
                const double *from = cluster.parts[block][lane];
                sums = sums + Sums{from[0], from[1], from[2]};
            }
            sums = sum_of_warp(sums);
            if (lane % 32 == 0) {
                to = exchange.sums[(rank * share + lane) / 32];
                tell(to + 0, sums.exponentials);
                tell(to + 1, sums.mass);
                tell(to + 2, sums.distance);
            }
        }
        cluster_sync();
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
        const T *logits = row_at<const T>(pass.logits, at);
        const i64 step = pass.logits.step;

        // The logits do not wait for the target.
        Real value[ITEMS > 0 ? ITEMS : 1];
        Real max = -Arithmetic<Real>::infinity();
        if (ITEMS > 0) {
            if (there)
                for_fours<LANES, ITEMS>(0, classes, lane, [&](int i, int k) {
                    UNROLL
                    for (int j = 0; j < 4; ++j)
                        value[i + j] = k + j * LANES < classes ? Storage<T>::load(logits + (k + j * LANES) * step) : -Arithmetic<Real>::infinity();
                });
        } else {
            // Many loads on their way at once: this sweep waits for the memory alone.
            const int LOADS = CLUSTER || sizeof(T) == 8 ? 4 : 8;
            for (int begin = first + lane; begin < last; begin += LOADS * LANES) {
                T stored[LOADS];
                UNROLL
                for (int i = 0; i < LOADS; ++i)
                    if (begin + i * LANES < last) stored[i] = logits[(begin + i * LANES) * step];
                UNROLL
                for (int i = 0; i < LOADS; ++i) {
                    int k = begin + i * LANES;
                    if (k >= last) continue;
                    if (pass.cached) cache[k - first] = stored[i];
                    max = Arithmetic<Real>::max(max, Storage<T>::load(&stored[i]));
                }
            }
        }
        // Logits of a row that is not in registers; -inf behind `end`.
        auto logits_of = [&](int k, int end, Real *z) {
            UNROLL
            for (int j = 0; j < SIDE; ++j) z[j] = -Arithmetic<Real>::infinity();
            if (pass.cached) {
                UNROLL
                for (int j = 0; j < SIDE; ++j)
                    if (k + j * LANES < end) z[j] = Storage<T>::load(cache + (k + j * LANES - first));
            } else {
                UNROLL
                for (int j = 0; j < SIDE; ++j)
                    if (k + j * LANES < end) z[j] = Storage<T>::load(logits + (k + j * LANES) * step);
            }
        };

        const Sample sample = begin_sample(pass, there, at, leader);
        const SoftLabel<Real> soft(pass, sample);
        const int counted = sample.counted();
        const TargetLogits<Real> at_targets(sample, soft.mixed, logits, step);
        if (WARPS == 1) __syncwarp(); // before another lane writes a gradient over them
        // Neither do the soft labels wait for the maximum.
        float label[ITEMS > 0 ? ITEMS : 1];
        if (ITEMS > 0 && there && sample.takes_part)
            for_fours<LANES, ITEMS>(0, classes, lane, [&](int i, int k) {
                UNROLL
                for (int j = 0; j < 4; ++j) label[i + j] = k + j * LANES < classes ? __ldg(soft.first_row + k + j * LANES) : 0.0f;
            });
        auto soft_labels_of = [&](const SoftLabel<Real> &soft, int i, int k, int end, Real *q) {
            float entries[SIDE];
            UNROLL
            for (int j = 0; j < SIDE; ++j) {
                if (ITEMS > 0) entries[j] = label[i + j];
                else entries[j] = k + j * LANES < end ? __ldg(soft.first_row + k + j * LANES) : 0.0f;
            }
            soft.template some<SIDE>(entries, k, LANES, end, q);
        };
        if (!knows_divisor) {
            // While the logits are on their way.
            divisor = find_divisor<THREADS>(pass);
            knows_divisor = true;
        }
        i64 seen = 0;
        if (statistics == STATISTICS_ADD && sample.takes_part && leader) seen = *(const volatile i64 *)(pass.state.counts + counted);
        if (WARPS > 1) {
            if (leader) say(&exchange.count, seen);
        } else {
            seen = __shfl_sync(WHOLE_WARP, seen, 0, LANES < 32 ? LANES : 32);
        }

        if (ITEMS > 0 && there)
            for_fours<LANES, ITEMS>(0, classes, lane, [&](int i, int) {
                UNROLL
                for (int j = 0; j < 4; ++j) max = Arithmetic<Real>::max(max, value[i + j]);
            });
        max = group_max(max);
        if (WARPS > 1) seen = exchange.count;
        const bool may_fill_up = statistics == STATISTICS_ADD && may_fill(pass, seen);

        Sums sums = {0, 0, 0};
        bool earlier = false;
        for (int begin = first; begin < last && there && sample.takes_part; begin += CLUSTER ? last : part) {
            LaneSum<Real> sum, mass, distance;
            const int end = begin + part < last ? begin + part : last;
            for_fours<LANES, ITEMS>(begin, end, lane, [&](int first_item, int first_class) {
                UNROLL_NOT
                for (int s = 0; s < 4; s += SIDE) {
                    const int i = first_item + s, k = first_class + s * LANES;
                    Real z[SIDE], q[SIDE];
                    soft_labels_of(soft, i, k, end, q);
                    if (ITEMS == 0) logits_of(k, end, z);
                    UNROLL
                    for (int j = 0; j < SIDE; ++j) {
                        if (ITEMS > 0) z[j] = value[i + j];
                        // Behind the end: exp(-inf) = 0 and q = 0.
                        Real e = Arithmetic<Real>::exp(z[j] - max);
                        if (ITEMS > 0) value[i + j] = e;
                        sum.add(e);
                        mass.add(q[j]);
                        distance.add(q[j] == 0 ? (Real)0 : q[j] * (max - z[j]));
                        earlier = earlier || (z[j] == max && k + j * LANES < counted);
                    }
                }
                sum.end_four();
                mass.end_four();
                distance.end_four();
            });
            sums = sums + Sums{sum.value(), mass.value(), distance.value()};
        }
        sums = group_sums(sums, earlier);

        // Rare: logits too far apart for their type, or masked ones that weigh something.
        bool too_far = there && sample.takes_part && !Arithmetic<double>::finite(sums.distance);
        if (WARPS > 1 ? too_far : __any_sync(WHOLE_WARP, too_far)) {
            double wide = 0;
            for (int k = lane; k < classes && too_far; k += LANES) wide = wide + wide_distance(soft, k, max, Storage<T>::load(logits + k * step));
            wide = group_wide_sum(wide);
            if (too_far) sums.distance = wide;
            if constexpr (CLUSTER) cluster_sync(); // each block has read the whole row, which the gradient may replace
        }

        auto exponentials_of = [&](int i, int k, int end, Real *e) {
            if (ITEMS == 0) logits_of(k, end, e);
            UNROLL
            for (int j = 0; j < SIDE; ++j) e[j] = ITEMS > 0 ? value[i + j] : Arithmetic<Real>::exp(e[j] - max);
        };
        if constexpr (CLUSTER) {
            // Read once more: there are no registers to keep it in meanwhile.
            const Sample again = read_sample(pass, at);
            return finish(there, at, again, SoftLabel<Real>(pass, again), max, sums, at_targets, earlier, may_fill_up, exponentials_of, soft_labels_of);
        } else {
            return finish(there, at, sample, soft, max, sums, at_targets, earlier, may_fill_up, exponentials_of, soft_labels_of);
        }
    }

    // What a row comes to, once its sums are known: loss, count, and the third sweep.
    template <class Exponentials, class Labels>
    DEVICE double finish(bool there, Place at, const Sample &sample, const SoftLabel<Real> &soft, Real max, Sums sums,
                         const TargetLogits<Real> &at_targets, bool earlier, bool may_fill_up, Exponentials exponentials_of, Labels soft_labels_of) {
        const RowResult<Real> row = finish_row(pass, at, sample, soft, max, sums, at_targets, divisor);
        if (there && leader && pass.reduction == REDUCTION_NONE && pass.loss.data) write_real(pass.loss, at, row.loss);
        if (leader && sample.takes_part && row.plain) count_skipped(pass, statistics);
        const int counted = sample.counted();
        Real counted_logit = counted == sample.first ? at_targets.first : at_targets.second;
        bool right = !row.plain && counted_logit == max && !earlier;
        bool adds = count_row(right, counted, may_fill_up);
        if (there) write_row(at, exponentials_of, soft_labels_of, row, soft, max, at_targets, adds, counted);
        return there ? row.loss : 0.0;
    }

    DEVICE bool has(int k) const { return lane == k % LANES && k >= first && k < last; }

    // The leader's word to all lanes of the row, who hear it behind the next barrier.
    template <class V> DEVICE void say(V *place, V value) {
        if constexpr (CLUSTER) tell(place, value);
        else *place = value;
    }

    // Counts a row that is classified right; whether its probabilities are to be added. All threads of a row, or of a warp, at once.
    DEVICE bool count_row(bool right, int counted, bool may_fill_up) {
        bool adds = right && (statistics == STATISTICS_ADD || statistics == STATISTICS_TAKE_BACK);
        if (right && statistics == STATISTICS_TALLY && leader) add_i64(pass.tally + counted, 1);
        bool asks = adds && may_fill_up;
        if (adds && !asks && leader) {
            if (FEW) atomicAdd(own.counts + counted, 1u);
            else add_i64(pass.state.counts + counted, statistics == STATISTICS_ADD ? 1 : -1);
        }
        if (WARPS > 1) {
            if (asks) {
                if (leader) say(&exchange.taken, (int)count_if_not_full(pass, counted));
                if constexpr (CLUSTER) cluster_sync();
                else __syncthreads();
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
    template <class Exponentials, class Labels>
    DEVICE void write_row(Place at, Exponentials exponentials_of, Labels soft_labels_of, const RowResult<Real> &row, const SoftLabel<Real> &soft,
                          Real max, const TargetLogits<Real> &at_targets, bool adds, int counted) {
        const bool wanted = pass.grad.data != 0;
        if (!wanted && !adds) return;
        T *grad = row_at<T>(pass.grad, at);
        const i64 step = pass.grad.step;
        if (row.plain) {
            for (int k = first + lane; k < last; k += LANES) Storage<T>::store(grad + k * step, row.constant);
            return;
        }
        i64 *sums = pass.state.sums + (i64)counted * pass.state.sums_stride;
        const Real to_units = row.inverse * (Real)OLS_FRACTION_ONE;
        const i64 sign = statistics == STATISTICS_TAKE_BACK ? -1 : 1;
        for (int begin = first; begin < last; begin += TILE) {
            const int count = begin + TILE < last ? (int)TILE : last - begin;
            for_fours<LANES, TILE / LANES>(begin, last, lane, [&](int first_item, int first_class) {
                UNROLL_NOT
                for (int s = 0; s < 4; s += SIDE) {
                    const int i = first_item + s, k = first_class + s * LANES;
                    Real e[SIDE], q[SIDE];
                    exponentials_of(i, k, last, e);
                    if (wanted) {
                        soft_labels_of(soft, i, k, last, q);
                        UNROLL
                        for (int j = 0; j < SIDE; ++j)
                            if (k + j * LANES < last) Storage<T>::store(grad + (k + j * LANES) * step, gradient_entry(row, q[j], e[j]));
                    }
                    if (!adds) continue;
                    UNROLL
                    for (int j = 0; j < SIDE; ++j) {
                        int at = k + j * LANES, units = round_units(e[j] * to_units);
                        if (at >= last) continue;
                        if constexpr (BULK) bulk.put(buffer, sums, begin, count, at, sign * (i64)units);
                        else if (FEW) own.add(counted * pass.classes + at, (unsigned)units);
                        else add_i64(sums + at, sign * (i64)units);
                    }
                }
            });
            if constexpr (BULK) {
                if (adds) {
                    bulk.send(buffer, sums, begin, count, lane == 0);
                    buffer ^= 1;
                }
            }
        }
        // The lane that wrote a target's entry writes it once more.
        if (wanted && soft.hard[0] != 0.0 && has(soft.classes[0]))
            Storage<T>::store(grad + soft.classes[0] * step, target_entry(row, soft, 0, Arithmetic<Real>::exp(at_targets.first - max)));
        if (wanted && soft.hard[1] != 0.0 && has(soft.classes[1]))
            Storage<T>::store(grad + soft.classes[1] * step, target_entry(row, soft, 1, Arithmetic<Real>::exp(at_targets.second - max)));
    }
};

template <class T, int LANES, int ITEMS, class Way = PlainWay> DEVICE void pass_rows(const Pass &pass) {
    typedef RowPass<T, LANES, ITEMS, Way> Rows;
    __shared__ typename Rows::Exchange exchange;
    __shared__ PrivateStatistics<Rows::MOST> own;
    __shared__ typename Rows::OfCluster cluster;
    __shared__ typename Rows::OfBulk bulk;
    __shared__ double losses[Rows::GROUPS];
    DYNAMIC_SHARED(T, cache);
    if (Rows::FEW) own.clear(pass.classes);
    Rows rows(pass, exchange, own, cluster, bulk, cache);
    // From here on, until its last barrier, a cluster's blocks write into each other's memory.
    if constexpr (Rows::CLUSTER) cluster_sync();
    const int group = threadIdx.x / LANES;
    const i64 tiles = (pass.count + Rows::GROUPS - 1) / Rows::GROUPS;
    const unsigned slots = (unsigned)(tiles < OLS_LOSS_SLOTS ? tiles : OLS_LOSS_SLOTS);
    for (unsigned slot = blockIdx.x / Way::BLOCKS; slot < slots; slot += gridDim.x / Way::BLOCKS) {
        __syncthreads(); // the losses of another slot may still be read
        if (rows.lane == 0) losses[group] = 0;
        for (i64 tile = slot; tile < tiles; tile += slots) {
            double loss = rows.run(tile * Rows::GROUPS + group);
            if (rows.lane == 0) losses[group] = losses[group] + loss;
        }
        // One loss per group, added up as by the lanes of a warp.
        __syncthreads();
        if (threadIdx.x < 32) {
            double sum = threadIdx.x < (unsigned)Rows::GROUPS ? losses[threadIdx.x] : 0.0;
            sum = warp_sum(sum, 32);
            if (threadIdx.x == 0 && (!Rows::CLUSTER || rows.leader)) pass.scratch->loss[slot] = sum;
        }
    }
    if (Rows::FEW) own.flush(pass, rows.statistics);
    if constexpr (Rows::BULK) {
        if (rows.lane == 0) bulk_wait(); // the buffers go with the block
    }
    reduce_loss<Rows::THREADS>(pass, slots, rows.divisor);
    finish_tally<Rows::THREADS>(pass);
}
