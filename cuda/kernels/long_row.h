// What rows too long for registers have in common: how their classes are distributed over the lanes (round-robin, one at
// a time, or two at a time in 16-bit rows), and how a chunk of them is read, written and added to the statistics.
#pragma once
#include "row.h"

template <class T, int LANES, bool ANY> struct LongRow {
    typedef typename Storage<T>::Real Real;
    typedef SoftLabel<Real, ANY> Soft;
    typedef double OfLane; // partial sums of a lane
    enum { PAIR = sizeof(T) == 2 ? 2 : 1 };
    // Classes per lane and chunk. They are added among themselves before they are added to the running sums.
    enum { SIDE = sizeof(Real) == 8 ? 1 : 4 };
    enum { IN_PLACE = ExponentialsInPlace<T>::value };

    const Pass &pass;
    const int lane;

    DEVICE LongRow(const Pass &pass, int lane) : pass(pass), lane(lane) {}

    static DEVICE i64 step_of(const Rows &rows) { return ANY ? rows.step : 1; }
    // The lane that holds class k.
    static DEVICE int owner_of(int k) { return k / PAIR % LANES; }
    static DEVICE bool aligned(const T *row, const Rows &rows) { return PAIR == 2 && step_of(rows) == 1 && (u64)row % sizeof(unsigned) == 0; }

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

    template <bool FULL>
    DEVICE void write_chunk(const Soft &soft, const RowResult<Real> &row, T *grad, bool pairs, int k, const float *labels, const Real *e) {
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
