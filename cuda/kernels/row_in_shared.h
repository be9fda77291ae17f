// A row of one warp in shared memory, brought there by the copy engine: it takes no registers, so 32 warps are resident
// on a multiprocessor instead of the 20 with rows in registers. The lanes have the classes of RowInRegisters<T, 32, 32>,
// and add them in the same order.
#pragma once
#include "bulk_copy.h"

template <class T> struct RowInShared {
    typedef typename Storage<T>::Real Real;
    typedef SoftLabel<Real, false> Soft;
    typedef Real OfLane; // partial sums of a lane
    enum { LANES = 32, MOST = 1024, CHAINS = 4 };
    enum { IN_PLACE = ExponentialsInPlace<T>::value };
    // The shared memory of a warp.
    struct Memory {
        Mbarrier filled[2]; // one is used; the other keeps the rest aligned
        T logits[SlotSize<T, MOST>::value];
        float exponentials[IN_PLACE ? COPY_UNIT / sizeof(float) : (size_t)MOST]; // IN_PLACE: not used, but an array needs an element
    };

    const Pass &pass;
    const int lane;
    unsigned place, step; // of the current row; from one row of this warp to the next
    unsigned parity;

    static DEVICE Memory &memory() {
        DYNAMIC_SHARED(Memory, of_warps);
        return of_warps[threadIdx.x / 32];
    }

    DEVICE RowInShared(const Pass &pass, int lane, T *) : pass(pass), lane(lane) {}
    static DEVICE i64 step_of(const Rows &) { return 1; }
    // The lane that holds class k.
    static DEVICE int owner_of(int k) { return k % LANES; }
    // Whether item i of this lane, class lane + 32*i, is a class.
    template <bool FULL> DEVICE bool has(int i) const { return FULL || i * LANES < pass.classes - lane; }

    // The row in shared memory, once wait() has returned.
    DEVICE T *logits() const { return memory().logits + offset_in_slot(row_at<const T>(pass.logits, Place{place, 0})); }

    // Starts to copy the row at `place`, if there is one. For one lane.
    DEVICE void ask() const {
        const unsigned count = (unsigned)pass.count;
        if (place >= count) return;
        const T *row = row_at<const T>(pass.logits, Place{place, 0});
        copy_to_slot(memory().logits, row, (unsigned)pass.classes, place == 0, place == count - 1, memory().filled);
    }
    // Starts to copy the first row of this warp. Called by all its lanes.
    DEVICE void begin(unsigned first, unsigned all) {
        place = first;
        step = all;
        parity = 0;
        if (lane == 0) {
            prepare(memory().filled, 1);
            prepared();
            ask();
        }
        __syncwarp();
    }
    DEVICE void load(const T *, bool) {}
    DEVICE void ask_labels(const Soft &) {}
    DEVICE void wait() const { wait_until(memory().filled, parity); }

    // Calls part(full, first) for all items of this lane, CHAINS at a time; some of the last ones may not be classes.
    template <class Part> DEVICE void for_items(Part part) {
        int first = 0;
        UNROLL_NOT
        for (; (first + CHAINS) * LANES <= pass.classes; first += CHAINS) part(Bool<true>(), first);
        if (first * LANES < pass.classes) part(Bool<false>(), first);
    }
    template <bool FULL> DEVICE void read_logits(int first, Real *value) const {
        const T *from = logits() + lane + first * LANES;
        UNROLL
        for (int j = 0; j < CHAINS; ++j) value[j] = has<FULL>(first + j) ? Storage<T>::load(from + j * LANES) : -Arithmetic<Real>::infinity();
    }
    template <bool FULL> DEVICE void read_labels(const Soft &soft, int first, float *label) const {
        const float *from = in_register(soft.first_row + lane + first * LANES);
        UNROLL
        for (int j = 0; j < CHAINS; ++j) label[j] = FULL ? load_now(from + j * LANES) : load_if(has<FULL>(first + j), from + j * LANES);
    }
    DEVICE float *exponentials() const {
        if constexpr (IN_PLACE) return logits();
        else return memory().exponentials;
    }

    // The maximum over the classes of this lane.
    DEVICE Real maximum() {
        Real max = -Arithmetic<Real>::infinity();
        for_items([&](auto full, int first) {
            Real value[CHAINS];
            read_logits<decltype(full)::value>(first, value);
            UNROLL
            for (int j = 0; j < CHAINS; ++j) max = Arithmetic<Real>::max(max, value[j]);
        });
        return max;
    }
    // As any_before, where a lane has no more classes than a warp has lanes. Called by all lanes.
    DEVICE bool has_before(int counted, Real max, bool of_lane) const {
        bool found = false;
        for (unsigned votes = __ballot_sync(WHOLE_WARP, of_lane); votes; votes &= votes - 1) {
            const int k = __ffs((int)votes) - 1 + lane * LANES;
            found = found || (k < counted && Storage<T>::load(logits() + k) == max);
        }
        __syncwarp(); // before a lane overwrites a logit with an exponential
        return found;
    }
    // The three sums over the classes of this lane.
    DEVICE void add_up(const Soft &soft, Real max, Real &exponentials, Real &mass, Real &distance) {
        Real sums[3][CHAINS];
        UNROLL
        for (int chain = 0; chain < CHAINS; ++chain) sums[0][chain] = sums[1][chain] = sums[2][chain] = 0;
        for_items([&](auto full, int first) {
            constexpr bool FULL = decltype(full)::value;
            float label[CHAINS];
            Real value[CHAINS];
            read_labels<FULL>(soft, first, label);
            read_logits<FULL>(first, value);
            float *to = this->exponentials() + lane + first * LANES;
            UNROLL
            for (int j = 0; j < CHAINS; ++j) {
                const Real e = add_class<true>(value[j], (Real)label[j], max, sums[0][j], sums[1][j], sums[2][j]);
                if (has<FULL>(first + j)) to[j * LANES] = e;
            }
        });
        typedef RowInRegisters<T, LANES, MOST / LANES, false> Other;
        exponentials = Other::of_four(sums[0][0], sums[0][1], sums[0][2], sums[0][3]);
        mass = Other::of_four(sums[1][0], sums[1][1], sums[1][2], sums[1][3]);
        distance = Other::of_four(sums[2][0], sums[2][1], sums[2][2], sums[2][3]);
    }
    // Writes the gradient, if wanted, and, if `adds`, adds units(exponential) of each class to `sums`. Then starts to copy
    // the next row.
    template <class Units>
    DEVICE void write(const Soft &soft, const RowResult<Real> &row, Real, T *grad, bool wanted, i64 *sums, bool adds, Units units) {
        T *to = in_register(grad + lane);
        i64 *to_sums = in_register(sums + lane);
        for_items([&](auto full, int first) {
            constexpr bool FULL = decltype(full)::value;
            const float *from = exponentials() + lane + first * LANES;
            Real e[CHAINS];
            float label[CHAINS];
            if (wanted) read_labels<FULL>(soft, first, label);
            UNROLL
            for (int j = 0; j < CHAINS; ++j) e[j] = has<FULL>(first + j) ? from[j * LANES] : 0;
            if (wanted) {
                UNROLL
                for (int j = 0; j < CHAINS; ++j)
                    if (has<FULL>(first + j)) Storage<T>::store(to + (first + j) * LANES, gradient_entry(row, (Real)label[j], e[j]));
            }
            if (adds) {
                UNROLL
                for (int j = 0; j < CHAINS; ++j) add_if(has<FULL>(first + j), to_sums + (first + j) * LANES, signed_units<false>(units(e[j])));
            }
        });
        before_copy_to_shared();
        __syncwarp();
        place += step;
        parity ^= 1;
        if (lane == 0) ask();
    }
};
