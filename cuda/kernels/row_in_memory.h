// A row that is too long for registers. Its lanes sweep over it three times: in shared memory if it fits (logits as
// stored; with f32 and f64, exponentials from the second sweep on), otherwise in global memory. Classes are
// distributed round-robin over the lanes, one at a time, or two at a time in 16-bit rows.
#pragma once
#include "row.h"

template <class T, int LANES, bool ANY> struct RowInMemory {
    typedef typename Storage<T>::Real Real;
    typedef SoftLabel<Real, ANY> Soft;
    typedef double OfLane; // partial sums of a lane
    enum { PAIR = sizeof(T) == 2 ? 2 : 1 };
    // Classes per lane and chunk. They are added among themselves before they are added to the running sums.
    enum { SIDE = sizeof(Real) == 8 ? 1 : 4 };
    // Loads in flight per lane in the first sweep, which is bound by memory latency alone.
    enum { LOADS = sizeof(T) == 8 ? 4 : 8 * PAIR };
    // Soft label entries per cache line.
    enum { LINE = 128 / sizeof(float) };
    // Whether `cache` holds exponentials from the second sweep on.
    enum { KEEPS = sizeof(T) == sizeof(Real) };

    const Pass &pass;
    const int lane;
    T *cache;
    const T *logits;
    bool in_pairs; // the row is aligned for 32-bit loads of two classes

    DEVICE RowInMemory(const Pass &pass, int lane, T *cache) : pass(pass), lane(lane), cache(cache) {}

    static DEVICE i64 step_of(const Rows &rows) { return ANY ? rows.step : 1; }
    // The lane that holds class k.
    static DEVICE int owner_of(int k) { return k / PAIR % LANES; }
    static DEVICE bool aligned(const T *row, const Rows &rows) { return PAIR == 2 && step_of(rows) == 1 && (u64)row % sizeof(unsigned) == 0; }

    DEVICE Real logit(int k) const { return pass.cached ? Storage<T>::load(cache + k) : Storage<T>::load(logits + k * step_of(pass.logits)); }

    DEVICE void load(const T *row, bool) {
        logits = row;
        in_pairs = aligned(row, pass.logits);
    }

    // Prefetches the soft label into L2 while the logits are being read; without it, each chunk would wait for
    // memory.
    DEVICE void ask_labels(const Soft &soft) {
        for (int k = lane * LINE; k < pass.classes; k += LANES * LINE) prefetch(soft.first_row + k);
    }

    // Calls chunk(full, k) for each chunk of COUNT classes of this lane: k + behind(0), k + behind(1), ... If not
    // `full`, some of them lie beyond the last class.
    template <int COUNT, class Chunk> DEVICE void for_chunks(Chunk chunk) {
        int begin = 0;
        UNROLL_NOT
        for (; begin + COUNT * LANES <= pass.classes; begin += COUNT * LANES) chunk(Bool<true>(), begin + PAIR * lane);
        if (begin < pass.classes) chunk(Bool<false>(), begin + PAIR * lane);
    }
    static DEVICE int behind(int j) { return j / PAIR * PAIR * LANES + j % PAIR; }
    template <bool FULL> DEVICE bool has(int k, int j) const { return FULL || behind(j) < pass.classes - k; }

    // Reads a chunk whose first class lies at `first`, without conversion. `pairs`: two classes per load. ONCE: with
    // streaming loads, as the data is not read again.
    template <bool FULL, int COUNT, bool ONCE = false> DEVICE void read(const T *first, i64 step, bool pairs, int k, T *stored) const {
        UNROLL
        for (int j = 0; j < COUNT; j += PAIR) {
            if (PAIR == 2 && pairs && has<FULL>(k, j + 1)) {
                const unsigned both = load_once<ONCE>(reinterpret_cast<const unsigned *>(first + behind(j)));
                stored[j] = as_stored<T>(both);
                stored[j + PAIR - 1] = as_stored<T>(both >> 16);
                continue;
            }
            UNROLL
            for (int i = 0; i < PAIR; ++i)
                if (has<FULL>(k, j + i)) stored[j + i] = load_once<ONCE>(first + behind(j + i) * step);
        }
    }

    // The maximum of a full chunk, which is copied to `cache` on the way.
    template <int COUNT> DEVICE Real take(int k) {
        const i64 step = step_of(pass.logits);
        T stored[COUNT];
        if (pass.cached) read<true, COUNT, true>(in_register(logits + k * step), step, in_pairs, k, stored);
        else read<true, COUNT>(in_register(logits + k * step), step, in_pairs, k, stored);
        Real max = -Arithmetic<Real>::infinity();
        UNROLL
        for (int j = 0; j < COUNT; ++j) {
            max = Arithmetic<Real>::max(max, Storage<T>::load(&stored[j]));
            if (!pass.cached) continue;
            if (PAIR == 1) cache[k + behind(j)] = stored[j];
            else if (j % PAIR == 0) *reinterpret_cast<unsigned *>(cache + k + behind(j)) = both_of(stored[j], stored[j + PAIR - 1]);
        }
        return max;
    }

    // The maximum over the classes of this lane. Copies the row to `cache` on the way.
    DEVICE Real maximum() {
        Real max = -Arithmetic<Real>::infinity();
        int begin = 0;
        UNROLL_NOT
        for (; begin + LOADS * LANES <= pass.classes; begin += LOADS * LANES) max = Arithmetic<Real>::max(max, take<LOADS>(begin + PAIR * lane));
        UNROLL_NOT
        for (; begin + SIDE * LANES <= pass.classes; begin += SIDE * LANES) max = Arithmetic<Real>::max(max, take<SIDE>(begin + PAIR * lane));
        UNROLL_NOT
        for (int k = begin + PAIR * lane; k < pass.classes; k += k % PAIR == PAIR - 1 ? PAIR * LANES - PAIR + 1 : 1) {
            const T stored = logits[k * step_of(pass.logits)];
            max = Arithmetic<Real>::max(max, Storage<T>::load(&stored));
            if (pass.cached) cache[k] = stored;
        }
        return max;
    }

    // Looks for an earlier class with the maximum: for each lane that holds it, usually just one, all lanes of the
    // warp search the classes of that lane.
    DEVICE bool has_before(int counted, Real max, bool of_lane) const {
        bool found = false;
        for (unsigned votes = __ballot_sync(WHOLE_WARP, of_lane); votes; votes &= votes - 1) {
            const int owner = lane / 32 * 32 + __ffs((int)votes) - 1;
            for (int k = PAIR * (owner + lane % 32 * LANES); k < counted; k += 32 * PAIR * LANES) {
                UNROLL
                for (int i = 0; i < PAIR; ++i) found = found || (k + i < counted && logit(k + i) == max);
            }
        }
        __syncwarp(); // before a lane overwrites a logit with an exponential
        return found;
    }

    // Reads a chunk of logits, or of what `cache` holds in their place; -inf beyond the last class.
    template <bool FULL, bool CACHED> DEVICE void read_chunk(int k, Real *value) const {
        T stored[SIDE];
        if (CACHED) read<FULL, SIDE>(cache + k, 1, true, k, stored);
        else read<FULL, SIDE>(in_register(logits + k * step_of(pass.logits)), step_of(pass.logits), in_pairs, k, stored);
        UNROLL
        for (int j = 0; j < SIDE; ++j) value[j] = has<FULL>(k, j) ? Storage<T>::load(&stored[j]) : -Arithmetic<Real>::infinity();
    }
    // Reads the soft labels of a chunk; 0 beyond the last class.
    template <bool FULL> DEVICE void read_labels(const Soft &soft, int k, float *labels) const {
        const float *from = in_register(soft.first_row + k);
        UNROLL
        for (int j = 0; j < SIDE; ++j) labels[j] = load_if(has<FULL>(k, j), from + behind(j));
    }

    // The three sums over the classes of this lane.
    DEVICE void add_up(const Soft &soft, Real max, double &exponentials, double &mass, double &distance) {
        if (pass.cached) add_up<true>(soft, max, exponentials, mass, distance);
        else add_up<false>(soft, max, exponentials, mass, distance);
    }
    template <bool CACHED> DEVICE void add_up(const Soft &soft, Real max, double &exponentials, double &mass, double &distance) {
        LaneSum<Real> exponentials_of_lane, mass_of_lane, distance_of_lane;
        for_chunks<SIDE>([&](auto full, int k) {
            constexpr bool FULL = decltype(full)::value;
            float labels[SIDE];
            Real value[SIDE], sums[3] = {0, 0, 0};
            read_labels<FULL>(soft, k, labels);
            read_chunk<FULL, CACHED>(k, value);
            UNROLL
            for (int j = 0; j < SIDE; ++j) {
                const Real part = !ANY || has<FULL>(k, j) ? soft.part(labels[j], k + behind(j)) : (Real)0;
                const Real e = add_class<true>(value[j], part, max, sums[0], sums[1], sums[2]);
                if constexpr (KEEPS && CACHED) {
                    if (has<FULL>(k, j)) Storage<T>::store(cache + k + behind(j), e);
                }
            }
            exponentials_of_lane.add(sums[0]);
            mass_of_lane.add(sums[1]);
            distance_of_lane.add(sums[2]);
        });
        exponentials = exponentials_of_lane.value();
        mass = mass_of_lane.value();
        distance = distance_of_lane.value();
    }

    // Writes the gradient, if wanted, and, if `adds`, adds units(exponential) of each class to `sums`.
    template <class Units>
    DEVICE void write(const Soft &soft, const RowResult<Real> &row, Real max, T *grad, bool wanted, i64 *sums, bool adds, Units units) {
        if (pass.cached) write<true>(soft, row, max, grad, wanted, sums, adds, units);
        else write<false>(soft, row, max, grad, wanted, sums, adds, units);
    }
    template <bool CACHED, class Units>
    DEVICE void write(const Soft &soft, const RowResult<Real> &row, Real max, T *grad, bool wanted, i64 *sums, bool adds, Units units) {
        const bool pairs = aligned(grad, pass.grad);
        constexpr bool AHEAD = CACHED && sizeof(Real) == 4; // other variants have no registers to spare
        float next[SIDE]; // soft labels, loaded one chunk ahead
        UNROLL
        for (int j = 0; j < SIDE; ++j) next[j] = 0;
        if (AHEAD && wanted) read_labels<false>(soft, PAIR * lane, next);
        for_chunks<SIDE>([&](auto full, int k) {
            constexpr bool FULL = decltype(full)::value;
            float labels[SIDE];
            Real e[SIDE];
            UNROLL
            for (int j = 0; j < SIDE; ++j) labels[j] = next[j];
            if (wanted && !AHEAD) read_labels<FULL>(soft, k, labels);
            if (wanted && AHEAD && FULL) read_labels<false>(soft, k + SIDE * LANES, next);
            read_chunk<FULL, CACHED>(k, e);
            if (!(KEEPS && CACHED)) {
                UNROLL
                for (int j = 0; j < SIDE; ++j) e[j] = Arithmetic<Real>::exp(e[j] - max);
            }
            if (wanted) write_chunk<FULL>(soft, row, grad, pairs, k, labels, e);
            if (adds) add_chunk<FULL>(sums, k, e, units);
        });
    }

    template <bool FULL> DEVICE void write_chunk(const Soft &soft, const RowResult<Real> &row, T *grad, bool pairs, int k, const float *labels, const Real *e) {
        const i64 step = step_of(pass.grad);
        T *to = in_register(grad + k * step);
        UNROLL
        for (int j = 0; j < SIDE; j += PAIR) {
            Real entries[PAIR] = {};
            UNROLL
            for (int i = 0; i < PAIR; ++i)
                if (has<FULL>(k, j + i)) entries[i] = gradient_entry(row, soft.part(labels[j + i], k + behind(j + i)), e[j + i]);
            if constexpr (PAIR == 2) {
                if (pairs && has<FULL>(k, j + 1)) {
                    store_once(reinterpret_cast<unsigned *>(to + behind(j)), both_stored<T>(entries[0], entries[1]));
                    continue;
                }
            }
            UNROLL
            for (int i = 0; i < PAIR; ++i)
                if (has<FULL>(k, j + i)) {
                    T stored;
                    Storage<T>::store(&stored, entries[i]);
                    store_once(to + behind(j + i) * step, stored);
                }
        }
    }

    // Adds a chunk to `sums`; called by all lanes of a warp.
    template <bool FULL, class Units> DEVICE void add_chunk(i64 *sums, int k, const Real *e, Units units) {
        if constexpr (PAIR == 1) {
            i64 *to = in_register(sums + k);
            UNROLL
            for (int j = 0; j < SIDE; ++j) add_if(has<FULL>(k, j), to + behind(j), signed_units<ANY>(units(e[j])));
        } else {
            // A lane holds pairs of adjacent classes. Exchange them within the warp, so that each lane adds two
            // classes 32 apart and the atomics of a warp cover full cache lines.
            const int of_warp = lane % 32, first = k - PAIR * of_warp + of_warp;
            i64 *to = in_register(sums + first);
            UNROLL
            for (int j = 0; j < SIDE; j += PAIR) {
                const int mine[2] = {units(e[j]), units(e[j + 1])};
                UNROLL
                for (int half = 0; half < 2; ++half) {
                    const int from = half * 16 + of_warp / 2;
                    const int of_pair[2] = {__shfl_sync(WHOLE_WARP, mine[0], from), __shfl_sync(WHOLE_WARP, mine[1], from)};
                    const int there = behind(j) + half * 32;
                    const int found = of_warp % 2 ? of_pair[1] : of_pair[0];
                    add_if(FULL || there < pass.classes - first, to + there, signed_units<ANY>(found));
                }
            }
        }
    }
};
