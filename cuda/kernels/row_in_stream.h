// A row that is too long for registers, in shared memory, where the stream of the block's rows brings it. The exponentials
// of the second sweep stay there for the third: in place of the logits (f32) or beside them (16-bit logits, whose slots
// are free again after the second sweep).
#pragma once
#include "long_row.h"
#include "row_stream.h"

template <class T, int LANES> struct RowInStream : LongRow<T, LANES, false> {
    typedef LongRow<T, LANES, false> Base;
    using typename Base::Real;
    using typename Base::Soft;
    using Base::PAIR, Base::SIDE, Base::IN_PLACE, Base::pass, Base::lane, Base::behind;
    typedef RowStream<T, LANES> Stream;
    enum { CHUNK = Stream::CHUNK };
    struct alignas(8) Two { float of[2]; };

    Slot first, labels;    // the first chunk of the current row; the next chunk of soft labels
    unsigned offset;       // of the row in its slots
    unsigned label_offset; // of the soft labels in theirs
    unsigned place;        // of the next row
    i64 coming;            // its target

    DEVICE RowInStream(const Pass &pass, int lane, T *) : Base(pass, lane), first(), labels(), place(blockIdx.x), coming(target_at(place)) {}

    DEVICE i64 target_at(unsigned place) const { return place < (unsigned)pass.count ? read_integer(pass.targets, Place{place, 0}) : 0; }
    // The target of the next row. Asks for that of the row behind it, so that nobody waits for it.
    DEVICE i64 next_target() {
        const i64 target = coming;
        coming = target_at(place += gridDim.x);
        return target;
    }
    DEVICE void load(const T *row, bool) { offset = offset_in_slot(row); }
    DEVICE void ask_labels(const Soft &soft) { label_offset = offset_in_slot(soft.first_row); }

    DEVICE T *slot(unsigned at) const { return Stream::logit_slots(pass) + at * Stream::Logits::SIZE + offset; }

    // Calls part(full, chunk, k, within) for the classes of each chunk that this lane has: k + behind(0), ... which lie at
    // chunk + within + behind(0), ... before(slot) and after(slot) enclose them.
    template <class Before, class Part, class After> DEVICE Slot for_chunks(Before before, Part part, After after) {
        Slot at = first;
        int k = PAIR * lane;
        UNROLL_NOT
        for (; k + CHUNK <= pass.classes + PAIR * lane; k += CHUNK) {
            before(at);
            T *chunk = slot(at.at) + PAIR * lane;
            UNROLL
            for (int within = 0; within < CHUNK; within += SIDE * LANES) part(Bool<true>(), chunk, k + within, within);
            after(at);
            at.next(Stream::slots_of_logits(pass));
        }
        if (k - PAIR * lane >= pass.classes) return at;
        before(at);
        T *chunk = slot(at.at) + PAIR * lane;
        UNROLL_NOT
        for (int within = 0; k - PAIR * lane + within < pass.classes; within += SIDE * LANES) part(Bool<false>(), chunk, k + within, within);
        after(at);
        at.next(Stream::slots_of_logits(pass));
        return at;
    }

    // Whether two adjacent classes can be accessed at once: logits, soft labels or gradient.
    DEVICE bool logits_in_pairs() const { return PAIR == 2 && offset % 2 == 0; }
    DEVICE bool labels_in_pairs() const { return PAIR == 2 && label_offset % 2 == 0; }

    DEVICE Real maximum() {
        Real max = -Arithmetic<Real>::infinity();
        const auto sweep = [&](auto pairs) {
            for_chunks([&](Slot at) { Stream::barriers().logits.wait(at); },
                [&](auto full, const T *chunk, int k, int within) {
                    Real value[SIDE];
                    read_logits<decltype(full)::value, decltype(pairs)::value>(chunk + within, k, value);
                    UNROLL
                    for (int j = 0; j < SIDE; ++j) max = Arithmetic<Real>::max(max, value[j]);
                }, [](Slot) {});
        };
        if (logits_in_pairs()) sweep(Bool<PAIR == 2>());
        else sweep(Bool<false>());
        return max;
    }

    DEVICE Real logit(int k) const {
        unsigned at = first.at + (unsigned)k / CHUNK;
        if (at >= Stream::slots_of_logits(pass)) at -= Stream::slots_of_logits(pass);
        return Storage<T>::load(slot(at) + (unsigned)k % CHUNK);
    }
    DEVICE bool has_before(int counted, Real max, bool of_lane) const {
        return any_before<LANES, PAIR>(lane, counted, max, of_lane, [&](int k) { return logit(k); });
    }

    // -inf beyond the last class.
    template <bool FULL, bool PAIRS> DEVICE void read_logits(const T *from, int k, Real *value) const {
        T stored[SIDE];
        this->template read<FULL, SIDE>(from, 1, PAIRS, k, stored);
        UNROLL
        for (int j = 0; j < SIDE; ++j) value[j] = this->template has<FULL>(k, j) ? Storage<T>::load(&stored[j]) : -Arithmetic<Real>::infinity();
    }
    // Waits for a chunk of soft labels; returns those of this lane.
    DEVICE const float *wait_for_labels() const {
        Stream::barriers().labels.wait(labels);
        return Stream::label_slots() + labels.at * Stream::Labels::SIZE + label_offset + PAIR * lane;
    }
    DEVICE void release_labels() {
        Stream::barriers().labels.release(labels);
        labels.next(Stream::slots_of_labels(pass));
    }
    // Reads soft labels or exponentials; 0 beyond the last class.
    template <bool FULL, bool PAIRS> DEVICE void read_floats(const float *from, int k, float *value) const {
        UNROLL
        for (int j = 0; j < SIDE; j += PAIR) {
            if constexpr (FULL && PAIRS) {
                const Two two = *reinterpret_cast<const Two *>(from + behind(j));
                value[j] = two.of[0];
                value[j + 1] = two.of[1];
            } else {
                UNROLL
                for (int i = 0; i < PAIR; ++i) value[j + i] = this->template has<FULL>(k, j + i) ? from[behind(j + i)] : 0.0f;
            }
        }
    }
    template <bool FULL> DEVICE void write_floats(float *to, int k, const Real *value) const {
        UNROLL
        for (int j = 0; j < SIDE; j += PAIR) {
            if constexpr (FULL && PAIR == 2) {
                *reinterpret_cast<Two *>(to + behind(j)) = Two{{value[j], value[j + 1]}};
            } else {
                UNROLL
                for (int i = 0; i < PAIR; ++i)
                    if (this->template has<FULL>(k, j + i)) to[behind(j + i)] = value[j + i];
            }
        }
    }
    // Where the exponentials of a chunk are.
    DEVICE float *exponentials(T *chunk, int k, int within) const {
        if constexpr (IN_PLACE) return chunk + within;
        else return Stream::exponentials(pass) + k;
    }

    DEVICE void add_up(const Soft &soft, Real max, double &exponentials, double &mass, double &distance) {
        LaneSum<Real> exponentials_of_lane, mass_of_lane, distance_of_lane;
        const auto sweep = [&](auto pairs) {
            constexpr bool PAIRS = decltype(pairs)::value;
            const float *from;
            for_chunks([&](Slot) { from = wait_for_labels(); },
                [&](auto full, T *chunk, int k, int within) {
                    constexpr bool FULL = decltype(full)::value;
                    float label[SIDE];
                    Real value[SIDE], e[SIDE], sums[3] = {0, 0, 0};
                    read_floats<FULL, PAIRS>(from + within, k, label);
                    read_logits<FULL, PAIRS>(chunk + within, k, value);
                    UNROLL
                    for (int j = 0; j < SIDE; ++j) e[j] = add_class<true>(value[j], (Real)label[j], max, sums[0], sums[1], sums[2]);
                    write_floats<FULL>(this->exponentials(chunk, k, within), k, e);
                    exponentials_of_lane.add(sums[0]);
                    mass_of_lane.add(sums[1]);
                    distance_of_lane.add(sums[2]);
                }, [&](Slot at) {
                    release_labels();
                    if (!IN_PLACE) Stream::barriers().logits.release(at);
                });
        };
        if (logits_in_pairs() && labels_in_pairs()) sweep(Bool<PAIR == 2>());
        else sweep(Bool<false>());
        exponentials = exponentials_of_lane.value();
        mass = mass_of_lane.value();
        distance = distance_of_lane.value();
    }

    template <class Units>
    DEVICE void write(const Soft &soft, const RowResult<Real> &row, Real, T *grad, bool wanted, i64 *sums, bool adds, Units units) {
        const bool labeled = pass.grad.data != 0;
        Slot end = first;
        const auto sweep = [&](auto pairs) {
            constexpr bool PAIRS = decltype(pairs)::value;
            const float *from = nullptr;
            end = for_chunks([&](Slot) { if (labeled) from = wait_for_labels(); },
                [&](auto full, T *chunk, int k, int within) {
                    constexpr bool FULL = decltype(full)::value;
                    float label[SIDE];
                    Real e[SIDE];
                    if (wanted) read_floats<FULL, PAIRS>(from + within, k, label);
                    read_floats<FULL, PAIR == 2>(exponentials(chunk, k, within), k, e);
                    if (wanted) this->template write_chunk<FULL>(soft, row, grad, PAIRS, k, label, e);
                    if (adds) this->template add_chunk<FULL>(sums, k, e, units);
                }, [&](Slot at) {
                    if (labeled) release_labels();
                    if (!IN_PLACE) return;
                    before_copy_to_shared(); // exponentials were written by ordinary stores
                    Stream::barriers().logits.release(at);
                });
        };
        if (labels_in_pairs() && Base::aligned(grad, pass.grad)) sweep(Bool<PAIR == 2>());
        else sweep(Bool<false>());
        first = end;
    }
};
