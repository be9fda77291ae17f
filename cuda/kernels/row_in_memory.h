// A row that is too long for registers: its lanes go over it three times, in shared memory where it fits, as it is stored and for f32 as exponentials from the
// second sweep on, else where it lies. A lane has every LANES-th class, or of 16-bit rows every LANES-th pair of classes.
#pragma once
#include "row.h"

template <class T, int LANES, bool ANY> struct RowInMemory {
    typedef typename Storage<T>::Real Real;
    typedef SoftLabel<Real, ANY> Soft;
    typedef double OfLane; // of a lane's sums
    enum { PAIR = sizeof(T) == 2 ? 2 : 1 };
    // Classes that a lane goes through side by side. They are added up before they meet the others.
    enum { SIDE = sizeof(Real) == 8 ? 1 : 4 };
    // As many as the first sweep asks for at once: it waits for the memory alone.
    enum { LOADS = sizeof(T) == 8 ? 4 : 8 * PAIR };
    // Entries of a soft label in a line of the cache.
    enum { LINE = 128 / sizeof(float) };
    // Whether the cache has exponentials from the second sweep on.
    enum { KEEPS = sizeof(T) == sizeof(Real) };

    const Pass &pass;
    const int lane;
    T *cache;
    const T *logits;
    bool in_pairs; // the row's pairs begin where pairs can be read

    DEVICE RowInMemory(const Pass &pass, int lane, T *cache) : pass(pass), lane(lane), cache(cache) {}

    static DEVICE i64 step_of(const Rows &rows) { return ANY ? rows.step : 1; }
    // The lane that has a class.
    static DEVICE int owner_of(int k) { return k / PAIR % LANES; }
    static DEVICE bool aligned(const T *row, const Rows &rows) { return PAIR == 2 && step_of(rows) == 1 && (u64)row % sizeof(unsigned) == 0; }

    DEVICE Real logit(int k) const { return pass.cached ? Storage<T>::load(cache + k) : Storage<T>::load(logits + k * step_of(pass.logits)); }

    DEVICE void load(const T *row, bool) {
        logits = row;
        in_pairs = aligned(row, pass.logits);
    }

    // The soft label comes nearer while the logits are read: each chunk of it would wait for the memory.
    DEVICE void ask_labels(const Soft &soft) {
        for (int k = lane * LINE; k < pass.classes; k += LANES * LINE) prefetch(soft.first_row + k);
    }

    // Calls chunk(full, k) for the classes of a lane in chunks of COUNT, which are k + behind(0), k + behind(1), ... . Where not `full`, some of them lie
    // behind the last class.
    template <int COUNT, class Chunk> DEVICE void for_chunks(Chunk chunk) {
        int begin = 0;
        UNROLL_NOT
        for (; begin + COUNT * LANES <= pass.classes; begin += COUNT * LANES) chunk(Bool<true>(), begin + PAIR * lane);
        if (begin < pass.classes) chunk(Bool<false>(), begin + PAIR * lane);
    }
    static DEVICE int behind(int j) { return j / PAIR * PAIR * LANES + j % PAIR; }
    template <bool FULL> DEVICE bool has(int k, int j) const { return FULL || behind(j) < pass.classes - k; }

    // A chunk whose first class lies at `first`, as it is stored. `pairs`: it can be read so. ONCE: from where nobody
    // will read it again.
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

    // The maximum of a full chunk, which goes to the cache.
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

    // The maximum over the lane. The row goes to the cache on the way.
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

    // Of the lanes that have it, mostly one, the classes are looked at by all lanes of the warp.
    DEVICE bool has_before(int counted, Real max, bool of_lane) const {
        bool found = false;
        for (unsigned votes = __ballot_sync(WHOLE_WARP, of_lane); votes; votes &= votes - 1) {
            const int owner = lane / 32 * 32 + __ffs((int)votes) - 1;
            for (int k = PAIR * (owner + lane % 32 * LANES); k < counted; k += 32 * PAIR * LANES) {
                UNROLL
                for (int i = 0; i < PAIR; ++i) found = found || (k + i < counted && logit(k + i) == max);
            }
        }
        __syncwarp(); // before one of them writes an exponential over a logit
        return found;
    }

    // A chunk of logits, or of what the cache has in their place; -inf behind the last class.
    template <bool FULL, bool CACHED> DEVICE void read_chunk(int k, Real *value) const {
        T stored[SIDE];
        if (CACHED) read<FULL, SIDE>(cache + k, 1, true, k, stored);
        else read<FULL, SIDE>(in_register(logits + k * step_of(pass.logits)), step_of(pass.logits), in_pairs, k, stored);
        UNROLL
        for (int j = 0; j < SIDE; ++j) value[j] = has<FULL>(k, j) ? Storage<T>::load(&stored[j]) : -Arithmetic<Real>::infinity();
    }
    // Its soft labels; 0 behind the last class.
    template <bool FULL> DEVICE void read_labels(const Soft &soft, int k, float *labels) const {
        const float *from = in_register(soft.first_row + k);
        UNROLL
        for (int j = 0; j < SIDE; ++j) labels[j] = load_if(has<FULL>(k, j), from + behind(j));
    }

    // The sums over the lane.
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

    // The gradient, where it is wanted; and where `adds`, units(exponential) of each class to its sum.
    template <class Units>
    DEVICE void write(const Soft &soft, const RowResult<Real> &row, Real max, T *grad, bool wanted, i64 *sums, bool adds, Units units) {
        if (pass.cached) write<true>(soft, row, max, grad, wanted, sums, adds, units);
        else write<false>(soft, row, max, grad, wanted, sums, adds, units);
    }
    template <bool CACHED, class Units>
    DEVICE void write(const Soft &soft, const RowResult<Real> &row, Real max, T *grad, bool wanted, i64 *sums, bool adds, Units units) {
        const bool pairs = aligned(grad, pass.grad);
        constexpr bool AHEAD = CACHED && sizeof(Real) == 4; // elsewhere there are no registers for them
        float next[SIDE]; // asked for a chunk ahead
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

    // By all lanes of a warp.
    template <bool FULL, class Units> DEVICE void add_chunk(i64 *sums, int k, const Real *e, Units units) {
        if constexpr (PAIR == 1) {
            i64 *to = in_register(sums + k);
            UNROLL
            for (int j = 0; j < SIDE; ++j) add_if(has<FULL>(k, j), to + behind(j), signed_units<ANY>(units(e[j])));
        } else {
            // Of the pairs of 32 lanes, each lane adds two classes that lie 32 apart: so that a warp adds to full lines.
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
