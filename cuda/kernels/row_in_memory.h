// A row that is too long for registers. Its lanes sweep over it three times: in shared memory if it fits (logits as
// stored; with f32 and f64, exponentials from the second sweep on), otherwise in global memory. Classes are
// distributed round-robin over the lanes, one at a time, or two at a time in 16-bit rows.
#pragma once
#include "long_row.h"

template <class T, int LANES, bool ANY> struct RowInMemory : LongRow<T, LANES, ANY> {
    typedef LongRow<T, LANES, ANY> Base;
    using typename Base::Real;
    using typename Base::Soft;
    using Base::PAIR, Base::SIDE, Base::IN_PLACE, Base::pass, Base::lane, Base::step_of, Base::aligned, Base::behind;
    // Loads in flight per lane in the first sweep, which is bound by memory latency alone.
    enum { LOADS = sizeof(T) == 8 ? 4 : 8 * PAIR };
    // Soft label entries per cache line.
    enum { LINE = 128 / sizeof(float) };
    T *cache;
    const T *logits;
    bool in_pairs; // the row is aligned for 32-bit loads of two classes

    DEVICE RowInMemory(const Pass &pass, int lane, T *cache) : Base(pass, lane), cache(cache) {}

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

    // The maximum of a full chunk, which is copied to `cache` on the way.
    template <int COUNT> DEVICE Real take(int k) {
        const i64 step = step_of(pass.logits);
        T stored[COUNT];
        if (pass.cached) this->template read<true, COUNT, true>(in_register(logits + k * step), step, in_pairs, k, stored);
        else this->template read<true, COUNT>(in_register(logits + k * step), step, in_pairs, k, stored);
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

    DEVICE bool has_before(int counted, Real max, bool of_lane) const {
        return any_before<LANES, PAIR>(lane, counted, max, of_lane, [&](int k) { return logit(k); });
    }

    // Reads a chunk of logits, or of what `cache` holds in their place; -inf beyond the last class.
    template <bool FULL, bool CACHED> DEVICE void read_chunk(int k, Real *value) const {
        T stored[SIDE];
        if (CACHED) this->template read<FULL, SIDE>(cache + k, 1, true, k, stored);
        else this->template read<FULL, SIDE>(in_register(logits + k * step_of(pass.logits)), step_of(pass.logits), in_pairs, k, stored);
        UNROLL
        for (int j = 0; j < SIDE; ++j) value[j] = this->template has<FULL>(k, j) ? Storage<T>::load(&stored[j]) : -Arithmetic<Real>::infinity();
    }
    // Reads the soft labels of a chunk; 0 beyond the last class.
    template <bool FULL> DEVICE void read_labels(const Soft &soft, int k, float *labels) const {
        const float *from = in_register(soft.first_row + k);
        UNROLL
        for (int j = 0; j < SIDE; ++j) labels[j] = load_if(this->template has<FULL>(k, j), from + behind(j));
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
                const Real part = !ANY || this->template has<FULL>(k, j) ? soft.part(labels[j], k + behind(j)) : (Real)0;
                const Real e = add_class<true>(value[j], part, max, sums[0], sums[1], sums[2]);
                if constexpr (IN_PLACE && CACHED) {
                    if (this->template has<FULL>(k, j)) Storage<T>::store(cache + k + behind(j), e);
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
            if (!(IN_PLACE && CACHED)) {
                UNROLL
                for (int j = 0; j < SIDE; ++j) e[j] = Arithmetic<Real>::exp(e[j] - max);
            }
            if (wanted) this->template write_chunk<FULL>(soft, row, grad, pairs, k, labels, e);
            if (adds) this->template add_chunk<FULL>(sums, k, e, units);
        });
    }
};
