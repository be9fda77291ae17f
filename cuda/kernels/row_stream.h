// The stream of a block's long rows through shared memory. Two threads beside those of the rows keep the copy engine busy:
// one with the logits, in the order of the rows, the other with the soft labels, once per sweep that reads them. They fill
// a slot with the next chunk of a row as soon as all threads of the row have released it, also if that chunk is of a later
// row, so that loads go on while the threads compute.
#pragma once
#include "bulk_copy.h"

// A position in a ring of slots, and the parity of the current round.
struct Slot {
    unsigned at, parity;
    DEVICE void next(unsigned slots) {
        if (++at < slots) return;
        at = 0;
        parity ^= 1;
    }
};

// The barriers of a ring of slots. A slot is filled by one thread and released by all threads of a row, in turn.
template <class V, int MOST> struct SlotRing {
    enum { SIZE = SlotSize<V, OLS_STREAM_CHUNK>::value };
    Mbarrier filled[MOST], released[MOST];

    DEVICE void prepare_all(unsigned slots, unsigned threads) {
        UNROLL_NOT
        for (unsigned slot = 0; slot < slots; ++slot) {
            prepare(filled + slot, 1);
            prepare(released + slot, threads);
        }
    }
    // Fills a slot with a chunk of a row, as soon as it is free; in the first round it is. The chunk begins at class
    // `begin`; `first` and `last`: the row is the first or the last one of its tensor.
    DEVICE void fill(V *slots, Slot slot, const V *row, unsigned begin, unsigned classes, bool first, bool last) {
        const unsigned left = classes - begin, count = left < OLS_STREAM_CHUNK ? left : (unsigned)OLS_STREAM_CHUNK;
        wait_until(released + slot.at, slot.parity ^ 1);
        before_copy_to_shared(); // values of incomplete units were written by ordinary stores
        // Also if what is left for the next slot lies in the same unit as the end of this chunk.
        const bool at_begin = first && begin == 0, at_end = last && left < count + COPY_UNIT / sizeof(V);
        copy_to_slot(slots + slot.at * SIZE, row + begin, count, at_begin, at_end, filled + slot.at);
    }

    // For the threads of a row. Each arrives for itself: with one per warp, compute-sanitizer would not see that the
    // accesses of the others are over, and it would not be faster.
    DEVICE void wait(Slot slot) { wait_until(filled + slot.at, slot.parity); }
    DEVICE void release(Slot slot) { arrive(released + slot.at); }
};

template <class T, int LANES> struct RowStream {
    enum { CHUNK = OLS_STREAM_CHUNK, IN_PLACE = ExponentialsInPlace<T>::value };
    typedef SlotRing<T, OLS_STREAM_SLOTS> Logits;
    typedef SlotRing<float, OLS_STREAM_LABEL_SLOTS> Labels;
    // Dynamic shared memory begins with this. Behind it are the slots of the soft labels, those of the logits and,
    // unless IN_PLACE, the exponentials of a row; see stream() in src/cuda/variants/slots.rs.
    struct Barriers {
        Logits logits;
        Labels labels;
    };

    static DEVICE unsigned char *shared() {
        DYNAMIC_SHARED(unsigned char, bytes);
        return bytes;
    }
    static DEVICE Barriers &barriers() { return *reinterpret_cast<Barriers *>(shared()); }
    static DEVICE float *label_slots() { return reinterpret_cast<float *>(shared() + sizeof(Barriers)); }
    static DEVICE T *logit_slots(const Pass &pass) { return reinterpret_cast<T *>(label_slots() + slots_of_labels(pass) * Labels::SIZE); }
    static DEVICE float *exponentials(const Pass &pass) {
        return reinterpret_cast<float *>(logit_slots(pass) + slots_of_logits(pass) * Logits::SIZE);
    }
    static DEVICE unsigned slots_of_logits(const Pass &pass) { return (unsigned)pass.cached % 256; }
    static DEVICE unsigned slots_of_labels(const Pass &pass) { return (unsigned)pass.cached / 256; }
    // Sweeps over a row that read its soft label: for the sums, and for the gradient.
    static DEVICE int sweeps_over_labels(const Pass &pass) { return pass.grad.data ? 2 : 1; }

    // Called by all threads of the block; to be followed by a barrier.
    static DEVICE void prepare(const Pass &pass) {
        if (threadIdx.x != LANES) return;
        barriers().logits.prepare_all(slots_of_logits(pass), LANES);
        barriers().labels.prepare_all(slots_of_labels(pass), LANES);
        prepared();
    }

    // Fills the slots until the last row of the block has come. For the two warps behind the LANES threads of the rows.
    static DEVICE void run(const Pass &pass) {
        if (threadIdx.x == LANES) run_logits(pass);
        if (threadIdx.x == LANES + 32) run_labels(pass); // in another warp, as both mostly wait
    }
    static DEVICE void run_logits(const Pass &pass) {
        const unsigned count = (unsigned)pass.count, classes = (unsigned)pass.classes;
        Slot slot = {};
        UNROLL_NOT
        for (unsigned place = blockIdx.x; place < count; place += gridDim.x) {
            const T *row = row_at<const T>(pass.logits, Place{place, 0});
            UNROLL_NOT
            for (unsigned begin = 0; begin < classes; begin += CHUNK) {
                barriers().logits.fill(logit_slots(pass), slot, row, begin, classes, place == 0, place == count - 1);
                slot.next(slots_of_logits(pass));
            }
        }
    }
    static DEVICE void run_labels(const Pass &pass) {
        const unsigned count = (unsigned)pass.count, classes = (unsigned)pass.classes;
        Slot slot = {};
        UNROLL_NOT
        for (unsigned place = blockIdx.x; place < count; place += gridDim.x) {
            const int label = usual_sample(pass, read_integer(pass.targets, Place{place, 0})).first;
            const float *row = pass.state.soft_labels + label * pass.state.soft_labels_stride;
            UNROLL_NOT
            for (int sweep = 0; sweep < sweeps_over_labels(pass); ++sweep) {
                UNROLL_NOT
                for (unsigned begin = 0; begin < classes; begin += CHUNK) {
                    barriers().labels.fill(label_slots(), slot, row, begin, classes, label == 0, label == pass.classes - 1);
                    slot.next(slots_of_labels(pass));
                }
            }
        }
    }
};
