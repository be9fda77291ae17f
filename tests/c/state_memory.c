/* State in the caller's memory: strided rows, minimal alignment, adopted or initialised. */
#include "check.h"

enum { ROW = 7 }; /* row stride in elements, greater than K = 5 */

/* The blocks are aligned to the size of an element, and no more. */
typedef struct {
    int64_t pad;
    float soft_gap;
    float soft_labels[K * ROW], gap0[K * ROW];
    int64_t sums[K * ROW], gap1[K * ROW], counts[K], counters[OLS_COUNTERS];
} owned_t;

static ols_options_t options_over(owned_t *owned) {
    ols_options_t options = options_for(K);
    options.soft_labels = ols_tensor_2d(owned->soft_labels, OLS_DTYPE_F32, K, K);
    options.soft_labels.strides[0] = ROW;
    options.sums = ols_tensor_2d(owned->sums, OLS_DTYPE_I64, K, K);
    options.sums.strides[0] = ROW;
    options.counts = ols_tensor_1d(owned->counts, OLS_DTYPE_I64, K);
    options.counters = ols_tensor_1d(owned->counters, OLS_DTYPE_I64, OLS_COUNTERS);
    return options;
}

static void one_truth(void) {
    ols_options_t own = options_for(K);
    world_t w;
    world_init(&w, &own);
    memory_t *m = &w.now;
    owned_t *owned = malloc(sizeof *owned);
    memset(owned, 0x77, sizeof *owned);
    const float gap = owned->soft_labels[K];
    CHECK((uintptr_t)owned->soft_labels % 8 == 4);
    ols_options_t options = options_over(owned);
    ols_criterion_t *criterion = create(&options);
    CHECK(owned->soft_labels[0] == 0.9f && owned->soft_labels[ROW] == 0.025f && owned->sums[0] == 0 && owned->counts[K - 1] == 0);
    OK(ols_forward(criterion, &m->batch, NULL, NULL));
    OK(ols_next_epoch(criterion, NULL));
    OK(ols_forward(criterion, &m->batch, NULL, NULL));
    /* Bitwise the same results and saved state as with memory of the library. */
    size_t size, own_size;
    void *bytes = saved(criterion, &size), *own_bytes = saved(m->criterion, &own_size);
    CHECK(size == own_size && memcmp(bytes, own_bytes, size) == 0);
    int64_t total = 0;
    for (int k = 0; k < K; k++) total += owned->counts[k];
    CHECK(total > 0);
    for (int i = 0; i < K; i++) CHECK(memcmp(&owned->soft_labels[i * ROW + K], &gap, sizeof gap) == 0); /* the gaps are unchanged */
    ols_tensor_t view;
    OK(ols_soft_labels(criterion, &view));
    CHECK(view.data == (void *)owned->soft_labels && view.strides[0] == ROW && view.strides[1] == 1);

    /* The statistics are written during a call, so they cannot be its targets. */
    ols_batch_t circular = m->batch;
    circular.logits = ols_tensor_2d(m->logits, OLS_DTYPE_F32, K, K);
    circular.targets = ols_tensor_1d(owned->counts, OLS_DTYPE_I64, K);
    FAILS(OLS_STATUS_INVALID_ARGUMENT, "targets overlaps the criterion's statistics", ols_forward(criterion, &circular, NULL, NULL));

    /* Changes that the caller makes between calls take effect: doubled statistics, other soft labels. */
    for (int i = 0; i < K; i++) {
        for (int k = 0; k < K; k++) owned->sums[i * ROW + k] *= 2;
    }
    for (int k = 0; k < K; k++) owned->counts[k] *= 2;
    ols_report_t report = {.struct_size = sizeof report};
    OK(ols_report(criterion, NULL, &report));
    CHECK(report.running_samples_accumulated == 2 * total);
    float before[N][K], after[N][K];
    ols_tensor_t to_before = ols_tensor_2d(before, OLS_DTYPE_F32, N, K), to_after = ols_tensor_2d(after, OLS_DTYPE_F32, N, K);
    OK(ols_backward(criterion, &m->batch, NULL, &to_before));
    for (int i = 0; i < K * ROW; i++) owned->soft_labels[i] = 0.2f;
    OK(ols_backward(criterion, &m->batch, NULL, &to_after));
    CHECK(memcmp(before, after, sizeof before) != 0);

    /* Loading writes to the caller's memory. */
    OK(ols_load_memory(criterion, own_bytes, own_size, NULL));
    void *loaded = saved(criterion, &size);
    CHECK(size == own_size && memcmp(loaded, own_bytes, size) == 0);
    ols_destroy(criterion);

    /* The memory outlives its criterion, and another criterion adopts it. */
    options.flags = OLS_OPTIONS_ADOPT_STATE;
    criterion = create(&options);
    OK(ols_set_epoch(criterion, 1));
    void *adopted = saved(criterion, &size);
    CHECK(size == own_size && memcmp(adopted, own_bytes, size) == 0);
    ols_destroy(criterion);

    /* A part of the state: the library allocates and initialises the rest. */
    ols_options_t part = options_for(K);
    part.flags = OLS_OPTIONS_ADOPT_STATE;
    part.soft_labels = options.soft_labels;
    criterion = create(&part);
    OK(ols_report(criterion, NULL, &report));
    CHECK(report.running_samples_accumulated == 0);
    OK(ols_soft_labels(criterion, &view));
    CHECK(view.data == (void *)owned->soft_labels);
    ols_destroy(criterion);
    free(adopted);
    free(loaded);
    free(bytes);
    free(own_bytes);
    free(owned);
    world_free(&w);
}

static void refused(void) {
    ols_options_t own = options_for(K);
    world_t w;
    world_init(&w, &own);
    static owned_t owned, before;
    memset(&owned, 0x77, sizeof owned);
    before = owned;
    ols_options_t options, good = options_over(&owned);
    ols_criterion_t *criterion = NULL;
#define BREAK(tensor, field, value, status, words) \
    options = good;                                \
    options.tensor.field = value;                  \
    REFUSED(&w, status, words, ols_create(&options, &criterion))
    BREAK(soft_labels, dtype_bits, 64, OLS_STATUS_INVALID_DTYPE, "soft_labels.dtype = f64|f32");
    BREAK(sums, dtype_bits, 32, OLS_STATUS_INVALID_DTYPE, "sums.dtype = i32|i64");
    BREAK(counts, dtype_code, OLS_CODE_FLOAT, OLS_STATUS_INVALID_DTYPE, "counts.dtype = f64|i64");
    BREAK(counters, dtype_lanes, 4, OLS_STATUS_INVALID_DTYPE, "counters.dtype_lanes = 4");
    BREAK(soft_labels, device_type, OLS_DEVICE_CUDA, OLS_STATUS_INVALID_DEVICE, "soft_labels.device = cuda:0");
    BREAK(soft_labels, shape[1], K - 1, OLS_STATUS_INVALID_SHAPE, "soft_labels.shape = (5, 4)|(5, 5)");
    BREAK(sums, ndim, 1, OLS_STATUS_INVALID_SHAPE, "sums.shape = (5)|(5, 5)");
    BREAK(counts, shape[0], 1, OLS_STATUS_INVALID_SHAPE, "counts.shape = (1)|(5)");
    BREAK(counters, shape[0], 3, OLS_STATUS_INVALID_SHAPE, "counters.shape = (3)|(4)");
    BREAK(soft_labels, strides[0], K - 1, OLS_STATUS_INVALID_SHAPE, "soft_labels|strides are 4 and 1");
    BREAK(soft_labels, strides[0], -ROW, OLS_STATUS_INVALID_SHAPE, "soft_labels|strides are -7 and 1");
    BREAK(sums, strides[1], 2, OLS_STATUS_INVALID_SHAPE, "sums|strides are 7 and 2");
    BREAK(counts, strides[0], 0, OLS_STATUS_INVALID_SHAPE, "counts|strides are 5 and 0");
    BREAK(sums, data, NULL, OLS_STATUS_INVALID_ARGUMENT, "sums.data is NULL");
    BREAK(sums, data, (char *)owned.sums + 4, OLS_STATUS_INVALID_ARGUMENT, "sums.data = 0x|not aligned");
    BREAK(counts, data, owned.sums, OLS_STATUS_INVALID_ARGUMENT, "sums|counts|overlap");
    BREAK(counters, data, &owned.counts[1], OLS_STATUS_INVALID_ARGUMENT, "counts|counters|overlap");
    BREAK(soft_labels, data, owned.sums, OLS_STATUS_INVALID_ARGUMENT, "soft_labels|sums|overlap");
    /* Overlap with inputs, and with the options themselves. */
    options = good;
    options.class_weights = ols_tensor_1d(owned.soft_labels, OLS_DTYPE_F32, K);
    REFUSED(&w, OLS_STATUS_INVALID_ARGUMENT, "soft_labels|class_weights|overlap", ols_create(&options, &criterion));
    options = good;
    options.initial = OLS_INITIAL_MATRIX;
    options.initial_soft_labels = good.soft_labels;
    REFUSED(&w, OLS_STATUS_INVALID_ARGUMENT, "soft_labels|initial_soft_labels|overlap", ols_create(&options, &criterion));
    options = good;
    options.counts.data = &options.alpha;
    REFUSED(&w, OLS_STATUS_INVALID_ARGUMENT, "counts|options|overlap", ols_create(&options, &criterion));
    options = good;
    REFUSED(&w, OLS_STATUS_INVALID_ARGUMENT, "out|counts|overlap", ols_create(&options, (ols_criterion_t **)(void *)owned.counts));
    options = good;
    options.alpha = 2;
    REFUSED(&w, OLS_STATUS_INVALID_ARGUMENT, "alpha = 2", ols_create(&options, &criterion));
    CHECK(criterion == NULL && memcmp(&owned, &before, sizeof owned) == 0);

    /* Outputs of a call that overlap the state. */
    criterion = create(&good);
    w.now.to_grad.data = owned.soft_labels;
    FAILS(OLS_STATUS_INVALID_ARGUMENT, "grad|state", ols_backward(criterion, &w.now.batch, NULL, &w.now.to_grad));
    ols_destroy(criterion);
    world_free(&w);
}

/* A saved state would be written over what it saves; one is loaded from where it goes. */
static void saved_states_lie_apart(void) {
    static struct {
        owned_t owned;
        char room[1 << 12];
    } block, before;
    const ols_options_t options = options_over(&block.owned);
    ols_criterion_t *criterion = create(&options);
    char *inside = (char *)block.owned.sums, *behind = block.room;
    const size_t capacity = sizeof block - (size_t)(inside - (char *)&block);
    size_t size = 77;
    before = block;
    FAILS(OLS_STATUS_INVALID_ARGUMENT, "buffer|state", ols_save_memory(criterion, inside, capacity, NULL, &size));
    FAILS(OLS_STATUS_INVALID_ARGUMENT, "size|state", ols_save_memory(criterion, NULL, 0, NULL, (size_t *)(void *)block.owned.counts));
    CHECK(size == 77 && memcmp(&block, &before, sizeof block) == 0);
    OK(ols_save_memory(criterion, behind, sizeof block.room, NULL, &size));
    OK(ols_load_memory(criterion, behind, size, NULL));
    CHECK(memcmp(&block.owned, &before.owned, sizeof block.owned) == 0);
    FAILS(OLS_STATUS_INVALID_ARGUMENT, "buffer|state", ols_load_memory(criterion, inside, size, NULL));
    /* What the caller has written into the state may make it one that could not be loaded. */
    block.owned.counters[0] = -1;
    FAILS(OLS_STATUS_INVALID_STATE, "could not be loaded|counters", ols_save_memory(criterion, behind, sizeof block.room, NULL, &size));
    CHECK(strstr(ols_last_error(), "taken back") == NULL);
    block.owned.counters[0] = 0;
    block.owned.soft_labels[0] = NAN;
    FAILS(OLS_STATUS_INVALID_STATE, "could not be loaded|soft_labels", ols_save_memory(criterion, behind, sizeof block.room, NULL, &size));
    CHECK(strstr(ols_last_error(), "taken back") == NULL);
    ols_destroy(criterion);
}

int main(void) {
    one_truth();
    refused();
    saved_states_lie_apart();
    return finish();
}
