// Copies into shared memory by the copy engine (compute capability 9.0), which needs no registers: a thread starts a copy,
// and a barrier tells when it has ended.
#pragma once
#include "row.h"

// The copy engine copies whole units of this many bytes.
enum { COPY_UNIT = 16 };

// Elements of a slot of shared memory for at most MOST values, which may begin and end inside a unit.
template <class V, int MOST> struct SlotSize { enum { value = MOST + COPY_UNIT / sizeof(V) }; };

// Where in its slot a value lies that was copied from here.
template <class V> DEVICE unsigned offset_in_slot(const V *from) { return (unsigned)(u64)from % COPY_UNIT / sizeof(V); }

// Starts to copy `count` values into a slot; `filled` completes its phase when they are there. Called by one thread. The
// copy includes the rest of the units at both ends. Only at the `first` and the `last` value of a tensor, where that might
// not be the caller's memory, values of an incomplete unit are copied one by one.
template <class V> DEVICE void copy_to_slot(V *slot, const V *from, unsigned count, bool first, bool last, Mbarrier *filled) {
    enum { PER_UNIT = COPY_UNIT / sizeof(V) };
    const unsigned offset = offset_in_slot(from);
    unsigned begin = 0, end = offset + count; // in the slot
    from -= offset;
    if (first && offset) {
        begin = PER_UNIT;
        UNROLL_NOT
        for (unsigned at = offset; at < PER_UNIT && at < end; ++at) slot[at] = from[at];
    }
    if (last) {
        const unsigned complete = end / PER_UNIT * PER_UNIT;
        UNROLL_NOT
        for (unsigned at = complete > begin ? complete : begin; at < end; ++at) slot[at] = from[at];
        end = complete;
    } else {
        end = (end + PER_UNIT - 1) / PER_UNIT * PER_UNIT;
    }
    const unsigned bytes = end > begin ? (end - begin) * (unsigned)sizeof(V) : 0;
    arrive_and_expect(filled, bytes);
    if (bytes) copy_to_shared(slot + begin, from + begin, bytes, filled);
}
