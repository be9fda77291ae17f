// A row held in registers: lane l holds the classes l, l + LANES, l + 2*LANES, ..., at most ITEMS of them.
#pragma once
#include "row.h"

template <class T, int LANES, int ITEMS, bool ANY> struct RowInRegisters {
    typedef typename Storage<T>::Real Real;
    typedef SoftLabel<Real, ANY> Soft;
    typedef Real OfLane; // partial sums of a lane
    // K <= 32. The order of the sums is the same with one thread, 8 lanes or 32 lanes per row.
    enum { FEW = LANES * ITEMS == 32 };
    // Soft label entries loaded at a time.
    enum { KEPT = ITEMS < 8 ? ITEMS : 8 };
    // With 32 items (wide32), a lane holds the classes of four lanes of a 128-thread row, and keeps four partial sums
    // to add in the same order.
    enum { CHAINS = LANES == 32 && ITEMS == 32 ? 4 : 1 };

    const Pass &pass;
    const int lane;
    Real value[ITEMS]; // logits, then exponentials; -inf and 0 beyond the last class
    float label[KEPT]; // of the first KEPT items

    DEVICE RowInRegisters(const Pass &pass, int lane, T *) : pass(pass), lane(lane) {}

    static DEVICE i64 step_of(const Rows &rows) { return ANY ? rows.step : 1; }
    // The lane that holds class k.
    static DEVICE int owner_of(int k) { return k % LANES; }

    // Whether item i of this lane is a class.
    DEVICE bool has(int i) const { return i * LANES < pass.classes - lane; }

    // Issues the loads of the logits; does not wait for them.
    DEVICE void load(const T *row, bool there) {
        const T *from = in_register(row + lane * step_of(pass.logits));
        UNROLL
        for (int i = 0; i < ITEMS; ++i)
            value[i] = there && has(i) ? Storage<T>::load(from + i * LANES * step_of(pass.logits)) : -Arithmetic<Real>::infinity();
    }

    DEVICE void read_labels(const Soft &soft, int first, float *label) const {
        const float *labels = in_register(soft.first_row + lane);
        UNROLL
        for (int j = 0; j < KEPT; ++j) label[j] = load_if(has(first + j), labels + (first + j) * LANES);
    }

    // Issues the loads of the first soft label entries early; they do not depend on the maximum.
    DEVICE void ask_labels(const Soft &soft) { read_labels(soft, 0, label); }

    // The maximum over the classes of this lane.
    DEVICE Real maximum() {
        Real max = -Arithmetic<Real>::infinity();
        UNROLL
        for (int i = 0; i < ITEMS; ++i) max = Arithmetic<Real>::max(max, value[i]);
        return max;
    }

    // Whether a class of this lane with a lower number than the target's has the maximum.
    DEVICE bool has_before(int counted, Real max, bool) const {
        unsigned equal = 0; // one bit per item
        UNROLL
        for (int i = 0; i < ITEMS; ++i) equal |= value[i] == max ? 1u << i : 0u;
        const unsigned before = (unsigned)(counted - lane + LANES - 1) / LANES;
        return (equal & (unsigned)(((u64)1 << before) - 1)) != 0;
    }

    // The sum over four lanes that lie 32 lanes apart.
    static DEVICE Real of_four(Real a, Real b, Real c, Real d) { return (a + c) + (b + d); }

    // The three sums over the classes of this lane.
    DEVICE void add_up(const Soft &soft, Real max, Real &exponentials, Real &mass, Real &distance) {
        Real sums[3][CHAINS];
        UNROLL
        for (int chain = 0; chain < CHAINS; ++chain) sums[0][chain] = sums[1][chain] = sums[2][chain] = 0;
        UNROLL
        for (int first = 0; first < ITEMS; first += KEPT) {
            float next[KEPT];
            if (first + KEPT < ITEMS) read_labels(soft, first + KEPT, next);
            UNROLL
            for (int i = first; i < first + KEPT; ++i) {
                const int k = lane + i * LANES, chain = i % CHAINS;
                const Real part = !ANY || k < pass.classes ? soft.part(label[i - first], k) : (Real)0;
                value[i] = add_class<!FEW>(value[i], part, max, sums[0][chain], sums[1][chain], sums[2][chain]);
            }
            UNROLL
            for (int j = 0; j < KEPT; ++j)
                if (first + KEPT < ITEMS) label[j] = next[j];
        }
        const auto total = [](const Real *of) { return CHAINS == 1 ? of[0] : of_four(of[0], of[1 % CHAINS], of[2 % CHAINS], of[3 % CHAINS]); };
        exponentials = total(sums[0]);
        mass = total(sums[1]);
        distance = total(sums[2]);
    }

    // Writes the gradient, if wanted, and, if `adds`, adds units(exponential) of each class to `sums`, or passes it
    // to own(k, units) where the block accumulates in shared memory.
    struct None { DEVICE void operator()(int, int) const {} };
    template <class Units, class Own = None>
    DEVICE void write(const Soft &soft, const RowResult<Real> &row, Real, T *grad, bool wanted, i64 *sums, bool adds, Units units,
                      Own own = Own()) {
        if (wanted) {
            T *to = in_register(grad + lane * step_of(pass.grad));
            UNROLL
            for (int first = 0; first < ITEMS; first += KEPT) {
                if constexpr (KEPT < ITEMS) read_labels(soft, first, label);
                UNROLL
                for (int i = first; i < first + KEPT; ++i) {
                    T *entry = to + i * LANES * step_of(pass.grad);
                    if (has(i)) Storage<T>::store(entry, gradient_entry(row, soft.part(label[i - first], lane + i * LANES), value[i]));
                }
            }
        }
        if (!adds) return;
        i64 *to = in_register(sums + lane);
        const auto put = [&](int i) {
            if constexpr (LANES < 32) own(lane + i * LANES, units(value[i]));
            else add_if(true, to + i * LANES, signed_units<ANY>(units(value[i])));
        };
        UNROLL
        for (int first = 0; first < ITEMS; first += KEPT) {
            // Usually all items are classes, and no predicate is needed.
            const bool full = (first + KEPT) * LANES <= pass.classes;
            UNROLL
            for (int i = first; i < first + KEPT; ++i)
                if (full) put(i);
            UNROLL
            for (int i = first; i < first + KEPT; ++i)
                if (!full && has(i)) put(i);
        }
    }
};
