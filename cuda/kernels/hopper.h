// What compute capability 9.0 has beyond the others: blocks of a cluster that write into each other's shared memory, and a copy engine that adds
// shared memory to global memory. The PTX manual's names: barrier.cluster, mapa, st.shared::cluster, cp.reduce.async.bulk, fence.proxy.async.
#pragma once
#include "platform.h"

// Blocks of a cluster: as many as every device with clusters runs.
#define CLUSTER_BLOCKS 8

#ifdef OLS_EMULATED
static DEVICE unsigned cluster_rank() { return cpucuda::block->rank; }
static DEVICE void cluster_sync() { cpucuda::cluster_sync(); }
template <class V> DEVICE void store_remote(V *mine, unsigned rank, V value) { *cpucuda::in_block(mine, rank) = value; }
static DEVICE void fence_for_bulk() { cpucuda::fence_for_bulk(); }
static DEVICE void bulk_add(i64 *to, const i64 *from, unsigned bytes) { cpucuda::bulk_add(to, from, bytes); }
static DEVICE void bulk_wait_until_read() { cpucuda::bulk_wait(); }
static DEVICE void bulk_wait() { cpucuda::bulk_wait(); }
#else
static DEVICE unsigned cluster_rank() {
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// For all threads of all blocks of the cluster; what was written before is seen after. Not the .aligned forms: nothing says that a warp has come
// together again.
static DEVICE void cluster_sync() { asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" ::: "memory"); }

static DEVICE unsigned shared_address(const void *p) { return (unsigned)__cvta_generic_to_shared(p); }
static DEVICE void store_word(unsigned to, int word) { asm volatile("st.shared::cluster.b32 [%0], %1;" ::"r"(to), "r"(word) : "memory"); }
static DEVICE void store_word(unsigned to, i64 word) { asm volatile("st.shared::cluster.b64 [%0], %1;" ::"r"(to), "l"(word) : "memory"); }
static DEVICE void store_word(unsigned to, float word) { store_word(to, __float_as_int(word)); }
static DEVICE void store_word(unsigned to, double word) { store_word(to, (i64)__double_as_longlong(word)); }

// Writes to where block `rank` of the cluster has what `mine` is here.
template <class V> DEVICE void store_remote(V *mine, unsigned rank, V value) {
    unsigned to;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(to) : "r"(shared_address(mine)), "r"(rank));
    store_word(to, value);
}

// By each thread that wrote shared memory, before a barrier behind which one thread lets the copy engine read it.
static DEVICE void fence_for_bulk() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Adds 64-bit integers of shared memory to global memory, atomically one by one; addresses and size are multiples of 16 bytes. Returns at once.
static DEVICE void bulk_add(i64 *to, const i64 *from, unsigned bytes) {
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u64 [%0], [%1], %2;\n\tcp.async.bulk.commit_group;" ::"l"(
                     __cvta_generic_to_global(to)),
                 "r"(shared_address(from)), "r"(bytes)
                 : "memory");
}

// By the thread that called bulk_add: until all that it named was read, or also added.
static DEVICE void bulk_wait_until_read() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
static DEVICE void bulk_wait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }
#endif

// Writes to all blocks of the cluster, this one too; one thread's work.
template <class V> DEVICE void tell(V *mine, V value) {
    UNROLL_NOT
    for (unsigned rank = 0; rank < CLUSTER_BLOCKS; ++rank) store_remote(mine, rank, value);
}

// The units of a row on their way to A. A tile of classes is written to shared memory, and added by the copy engine while the next tile is written
// to the other buffer. Tiles begin at even classes; where a row of A begins between two multiples of 16 bytes, what is at the ends of a tile is
// added plainly. Within a kernel an entry of A is always added to in the same way.
template <int TILE> struct BulkStatistics {
    alignas(16) i64 units[2][TILE + 2];

    // Entry k of the tile that begins at class `begin`, with `count` classes, of the row `sums`.
    DEVICE void put(int buffer, i64 *sums, int begin, int count, int k, i64 value) {
        const int odd = is_odd(sums), place = k - begin + odd;
        units[buffer][place] = value;
        if (place < 2 * odd || place >= end_of(odd, count)) add_i64(sums + k, value);
    }
    // By all threads of the block, once they have put their entries; one of them is the sender.
    DEVICE void send(int buffer, i64 *sums, int begin, int count, bool sender) {
        fence_for_bulk();
        if (sender) bulk_wait_until_read(); // the other buffer, which is written next
        __syncthreads();
        const int odd = is_odd(sums), first = 2 * odd, end = end_of(odd, count);
        if (sender && first < end) bulk_add(sums + begin - odd + first, units[buffer] + first, (unsigned)(end - first) * 8);
    }

private:
    static DEVICE int is_odd(const i64 *sums) { return (int)(reinterpret_cast<u64>(sums) >> 3 & 1); }
    static DEVICE int end_of(int odd, int count) { return (odd + count) & ~1; }
};
