/* Invalid pointers, struct sizes, flags, enums and numbers: each is reported, and nothing is changed. */
#include "check.h"

static void null_pointers(void) {
    ols_options_t options = options_for(K);
    world_t w;
    world_init(&w, &options);
    memory_t *m = &w.now;
    ols_criterion_t *criterion = (ols_criterion_t *)(uintptr_t)64, *untouched = criterion;
    ols_report_t report = {.struct_size = sizeof report};
    ols_statistics_t statistics = {.struct_size = sizeof statistics};
    ols_tensor_t tensor;
    size_t size = 77;
    int32_t mode = 77;
    int64_t epoch = 77;
    const ols_status_t BAD = OLS_STATUS_INVALID_ARGUMENT;
    memset(&tensor, 0x5a, sizeof tensor);

    REFUSED(&w, BAD, "options is NULL", ols_options_init(NULL, sizeof options));
    REFUSED(&w, BAD, "options is NULL", ols_options_preset(NULL, OLS_PRESET_PAPER));
    REFUSED(&w, BAD, "batch is NULL", ols_batch_init(NULL, sizeof m->batch));
    REFUSED(&w, BAD, "options is NULL", ols_create(NULL, &criterion));
    REFUSED(&w, BAD, "out is NULL", ols_create(&options, NULL));
    ols_destroy(NULL);
    REFUSED(&w, BAD, "criterion is NULL", ols_forward(NULL, &m->batch, &m->to_loss, &m->to_grad));
    REFUSED(&w, BAD, "batch is NULL", ols_forward(m->criterion, NULL, &m->to_loss, &m->to_grad));
    REFUSED(&w, BAD, "criterion is NULL", ols_backward(NULL, &m->batch, NULL, &m->to_grad));
    REFUSED(&w, BAD, "batch is NULL", ols_backward(m->criterion, NULL, NULL, &m->to_grad));
    REFUSED(&w, BAD, "grad is NULL", ols_backward(m->criterion, &m->batch, NULL, NULL));
    REFUSED(&w, BAD, "criterion is NULL", ols_accumulate(NULL, &m->batch));
    REFUSED(&w, BAD, "batch is NULL", ols_accumulate(m->criterion, NULL));
    REFUSED(&w, BAD, "criterion is NULL", ols_set_mode(NULL, OLS_MODE_EVAL));
    REFUSED(&w, BAD, "criterion is NULL", ols_mode(NULL, &mode));
    REFUSED(&w, BAD, "out is NULL", ols_mode(m->criterion, NULL));
    REFUSED(&w, BAD, "criterion is NULL", ols_set_alpha(NULL, 0.5));
    REFUSED(&w, BAD, "criterion is NULL", ols_epoch(NULL, &epoch));
    REFUSED(&w, BAD, "out is NULL", ols_epoch(m->criterion, NULL));
    REFUSED(&w, BAD, "criterion is NULL", ols_set_epoch(NULL, 1));
    REFUSED(&w, BAD, "criterion is NULL", ols_next_epoch(NULL, NULL));
    REFUSED(&w, BAD, "criterion is NULL", ols_report(NULL, NULL, &report));
    REFUSED(&w, BAD, "out is NULL", ols_report(m->criterion, NULL, NULL));
    REFUSED(&w, BAD, "criterion is NULL", ols_statistics(NULL, &statistics));
    REFUSED(&w, BAD, "out is NULL", ols_statistics(m->criterion, NULL));
    REFUSED(&w, BAD, "criterion is NULL", ols_soft_labels(NULL, &tensor));
    REFUSED(&w, BAD, "out is NULL", ols_soft_labels(m->criterion, NULL));
    REFUSED(&w, BAD, "criterion is NULL", ols_set_soft_labels(NULL, &m->to_grad, NULL));
    REFUSED(&w, BAD, "soft_labels is NULL", ols_set_soft_labels(m->criterion, NULL, NULL));
    REFUSED(&w, BAD, "criterion is NULL", ols_get_options(NULL, &options));
    REFUSED(&w, BAD, "out is NULL", ols_get_options(m->criterion, NULL));
    REFUSED(&w, BAD, "criterion is NULL", ols_save(NULL, "x", NULL));
    REFUSED(&w, BAD, "path is NULL", ols_save(m->criterion, NULL, NULL));
    REFUSED(&w, BAD, "criterion is NULL", ols_load(NULL, "x", NULL));
    REFUSED(&w, BAD, "path is NULL", ols_load(m->criterion, NULL, NULL));
    REFUSED(&w, BAD, "criterion is NULL", ols_save_memory(NULL, NULL, 0, NULL, &size));
    REFUSED(&w, BAD, "size is NULL", ols_save_memory(m->criterion, NULL, 0, NULL, NULL));
    REFUSED(&w, BAD, "buffer is NULL|capacity = 10", ols_save_memory(m->criterion, NULL, 10, NULL, &size));
    REFUSED(&w, BAD, "capacity = 10 is less than", ols_save_memory(m->criterion, &report, 10, NULL, &size));
    REFUSED(&w, BAD, "size and buffer overlap", ols_save_memory(m->criterion, &size, sizeof size, NULL, &size));
    REFUSED(&w, BAD, "criterion is NULL", ols_load_memory(NULL, &size, sizeof size, NULL));
    REFUSED(&w, BAD, "buffer is NULL", ols_load_memory(m->criterion, NULL, 0, NULL));
    REFUSED(&w, BAD, "size = ", ols_load_memory(m->criterion, &size, SIZE_MAX, NULL));

    /* The outputs are unchanged. */
    CHECK(criterion == untouched && size == 77 && mode == 77 && epoch == 77);
    for (size_t i = 0; i < sizeof tensor; i++) CHECK(((unsigned char *)&tensor)[i] == 0x5a);
    ols_report_t empty_report = {.struct_size = sizeof report};
    ols_statistics_t empty_statistics = {.struct_size = sizeof statistics};
    CHECK(memcmp(&report, &empty_report, sizeof report) == 0 && memcmp(&statistics, &empty_statistics, sizeof statistics) == 0);
    world_free(&w);
}

static void misaligned_pointers(void) {
    ols_options_t options = options_for(K);
    world_t w;
    world_init(&w, &options);
    static union { char bytes[1024]; ols_options_t options; } memory;
    const ols_status_t BAD = OLS_STATUS_INVALID_ARGUMENT;
    REFUSED(&w, BAD, "options = 0x|not aligned", ols_options_init((void *)(memory.bytes + 1), sizeof options));
    REFUSED(&w, BAD, "batch = 0x|not aligned", ols_forward(w.now.criterion, (void *)(memory.bytes + 1), NULL, NULL));
    REFUSED(&w, BAD, "loss = 0x|not aligned", ols_forward(w.now.criterion, &w.now.batch, (void *)(memory.bytes + 4), NULL));
    REFUSED(&w, BAD, "out = 0x|not aligned", ols_epoch(w.now.criterion, (void *)(memory.bytes + 4)));
    REFUSED(&w, BAD, "out = 0x|not aligned", ols_report(w.now.criterion, NULL, (void *)(memory.bytes + 4)));
    world_free(&w);
}

/* Structs of other releases: smaller than in the first one, larger and zero at the end, larger and nonzero at the end. */
static void struct_sizes(void) {
    ols_options_t options = options_for(K);
    world_t w;
    world_init(&w, &options);
    memory_t *m = &w.now;
    struct { ols_options_t options; uint64_t tail[2]; } newer_options = {.tail = {0, 0}};
    struct { ols_batch_t batch; uint64_t tail[2]; } newer_batch = {.tail = {0, 0}};
    struct { ols_report_t report; uint64_t tail[2]; } newer_report = {.tail = {0, 0}};
    struct { ols_statistics_t statistics; uint64_t tail[2]; } newer_statistics = {.tail = {0, 0}};
    ols_criterion_t *criterion = NULL;
    const ols_status_t BAD = OLS_STATUS_INVALID_ARGUMENT;

    size_t sizes[] = {0, 8, sizeof options - 1, 65537, SIZE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        options.struct_size = sizes[i];
        REFUSED(&w, BAD, "options.struct_size = ", ols_create(&options, &criterion));
        REFUSED(&w, BAD, "options.struct_size = ", ols_options_preset(&options, OLS_PRESET_PAPER));
        REFUSED(&w, BAD, "out.struct_size = ", ols_get_options(m->criterion, &options));
        size_t size = sizes[i] == sizeof options - 1 ? sizeof m->batch - 1 : sizes[i];
        m->batch.struct_size = size;
        REFUSED(&w, BAD, "batch.struct_size = ", ols_forward(m->criterion, &m->batch, &m->to_loss, &m->to_grad));
        REFUSED(&w, BAD, "batch.struct_size = ", ols_backward(m->criterion, &m->batch, NULL, &m->to_grad));
        REFUSED(&w, BAD, "batch.struct_size = ", ols_accumulate(m->criterion, &m->batch));
        m->batch.struct_size = sizeof m->batch;
        ols_report_t report = {.struct_size = size > 65536 ? size : i};
        REFUSED(&w, BAD, "out.struct_size = ", ols_report(m->criterion, NULL, &report));
        ols_statistics_t statistics = {.struct_size = size > 65536 ? size : i};
        REFUSED(&w, BAD, "out.struct_size = ", ols_statistics(m->criterion, &statistics));
        REFUSED(&w, BAD, "struct_size = ", ols_options_init(&options, sizes[i]));
        REFUSED(&w, BAD, "struct_size = ", ols_batch_init(&newer_batch.batch, size));
    }

    OK(ols_options_init(&newer_options.options, sizeof newer_options));
    CHECK(newer_options.options.struct_size == sizeof newer_options && newer_options.tail[0] == 0 && newer_options.tail[1] == 0);
    newer_options.options.num_classes = K;
    OK(ols_options_preset(&newer_options.options, OLS_PRESET_PAPER));
    OK(ols_create(&newer_options.options, &criterion));
    OK(ols_get_options(criterion, &newer_options.options));
    CHECK(newer_options.options.struct_size == sizeof newer_options && newer_options.options.initial == OLS_INITIAL_ZERO);
    ols_destroy(criterion);
    criterion = NULL;
    newer_options.tail[1] = 1;
    REFUSED(&w, BAD, "options.struct_size = |not all 0", ols_create(&newer_options.options, &criterion));
    REFUSED(&w, BAD, "out.struct_size = |not all 0", ols_get_options(m->criterion, &newer_options.options));

    newer_batch.batch = m->batch;
    newer_batch.batch.struct_size = sizeof newer_batch;
    OK(ols_backward(m->criterion, &newer_batch.batch, NULL, &m->to_grad));
    newer_batch.tail[0] = 1;
    REFUSED(&w, BAD, "batch.struct_size = |not all 0", ols_forward(m->criterion, &newer_batch.batch, &m->to_loss, &m->to_grad));

    newer_report.report.struct_size = sizeof newer_report;
    OK(ols_report(m->criterion, NULL, &newer_report.report));
    CHECK(newer_report.report.struct_size == sizeof newer_report && newer_report.report.epoch == 1);
    newer_report.tail[0] = UINT64_MAX;
    REFUSED(&w, BAD, "out.struct_size = |not all 0", ols_report(m->criterion, NULL, &newer_report.report));
    CHECK(newer_report.tail[0] == UINT64_MAX);

    newer_statistics.statistics.struct_size = sizeof newer_statistics;
    OK(ols_statistics(m->criterion, &newer_statistics.statistics));
    CHECK(newer_statistics.statistics.counts.shape[0] == K);

    /* No byte after struct_size is written. */
    struct { ols_report_t report; uint64_t canary; } exact = {.report = {.struct_size = sizeof exact.report}, .canary = 0xfeedfacefeedfaceu};
    OK(ols_report(m->criterion, NULL, &exact.report));
    CHECK(exact.canary == 0xfeedfacefeedfaceu);
    CHECK(criterion == NULL);
    world_free(&w);
}

static void flags_and_enums(void) {
    ols_options_t options = options_for(K), good = options;
    world_t w;
    world_init(&w, &options);
    memory_t *m = &w.now;
    ols_criterion_t *criterion = NULL;
    const ols_status_t BAD = OLS_STATUS_INVALID_ARGUMENT;
    int32_t wrong[] = {-1, 5, 99, INT32_MIN, INT32_MAX};

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
#define WRONG(field)                                                                        \
    options = good;                                                                         \
    options.field = wrong[i];                                                               \
    REFUSED(&w, BAD, #field " = |outside", ols_create(&options, &criterion))
        WRONG(initial);
        WRONG(empty_class);
        WRONG(reduction);
        WRONG(mode);
        options = good;
        REFUSED(&w, BAD, "preset = |outside", ols_options_preset(&options, wrong[i]));
        CHECK(memcmp(&options, &good, sizeof options) == 0);
        REFUSED(&w, BAD, "mode = |outside", ols_set_mode(m->criterion, wrong[i]));
    }
    uint32_t flags[] = {2, 4, 0x80000000u, 0xffffffffu};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        options = good;
        options.flags = flags[i];
        REFUSED(&w, BAD, "options.flags = 0x", ols_create(&options, &criterion));
        m->batch.flags = flags[i] | 4;
        REFUSED(&w, BAD, "batch.flags = 0x", ols_forward(m->criterion, &m->batch, &m->to_loss, &m->to_grad));
    }
    options = good;
    options.flags = OLS_OPTIONS_ADOPT_STATE;
    REFUSED(&w, BAD, "OLS_OPTIONS_ADOPT_STATE|no state memory", ols_create(&options, &criterion));
    m->batch.flags = OLS_BATCH_NO_UPDATE | OLS_BATCH_TAKE_BACK;
    REFUSED(&w, BAD, "batch.flags|mutually exclusive", ols_forward(m->criterion, &m->batch, &m->to_loss, &m->to_grad));
    m->batch.flags = OLS_BATCH_TAKE_BACK;
    REFUSED(&w, BAD, "flags", ols_backward(m->criterion, &m->batch, NULL, &m->to_grad));
    m->batch.flags = 0;
    m->batch.reserved = 1;
    REFUSED(&w, BAD, "batch.reserved = 1", ols_forward(m->criterion, &m->batch, &m->to_loss, &m->to_grad));
    CHECK(criterion == NULL);
    world_free(&w);
}

static void numbers_of_options(void) {
    ols_options_t options = options_for(K), good = options;
    world_t w;
    world_init(&w, &options);
    ols_criterion_t *criterion = NULL;
    const ols_status_t BAD = OLS_STATUS_INVALID_ARGUMENT;
#define BREAKS(field, value, words)    \
    options = good;                    \
    options.field = value;             \
    REFUSED(&w, BAD, words, ols_create(&options, &criterion))
    BREAKS(num_classes, 0, "num_classes = 0 is outside [2, ");
    BREAKS(num_classes, 1, "num_classes = 1 is outside [2, ");
    BREAKS(num_classes, -5, "num_classes = -5 is outside [2, ");
    BREAKS(num_classes, INT64_MAX, "num_classes = 9223372036854775807 is outside");
    BREAKS(num_classes, INT64_MIN, "num_classes = -9223372036854775808 is outside");
    BREAKS(alpha, -0.1, "alpha = -0.1 is outside [0, 1]");
    BREAKS(alpha, 1.5, "alpha = 1.5 is outside [0, 1]");
    BREAKS(alpha, NAN, "alpha = NaN is outside [0, 1]");
    BREAKS(alpha, INFINITY, "alpha = inf is outside [0, 1]");
    BREAKS(smoothing, 1.5, "smoothing = 1.5 is outside [0, 1]");
    BREAKS(smoothing, -0.1, "smoothing = -0.1 is outside [0, 1]");
    BREAKS(smoothing, NAN, "smoothing = NaN is outside [0, 1]");
    options = good;
    options.initial = OLS_INITIAL_UNIFORM;
    options.smoothing = NAN;
    REFUSED(&w, BAD, "smoothing = NaN is outside [0, 1]", ols_create(&options, &criterion));
    BREAKS(momentum, 1.0, "momentum = 1 is outside [0, 1)");
    BREAKS(momentum, -1.0, "momentum = -1 is outside [0, 1)");
    BREAKS(momentum, NAN, "momentum = NaN is outside [0, 1)");
    BREAKS(freeze_above, NAN, "freeze_above = NaN");
    BREAKS(freeze_above, 0.0, "freeze_above = 0");
    BREAKS(freeze_above, -INFINITY, "freeze_above = -inf");
    BREAKS(min_count, 0, "min_count = 0 is less than 1");
    BREAKS(n_threads, -1, "n_threads = -1 is outside");
    BREAKS(n_threads, INT32_MAX, "n_threads = 2147483647 is outside");
    options = good;
    options.device_type = OLS_DEVICE_CUDA;
    options.device_id = 1 << 20; // no machine has it; most have no CUDA at all
    ols_status_t status = ols_create(&options, &criterion);
    CHECK(status == OLS_STATUS_UNSUPPORTED || status == OLS_STATUS_INVALID_DEVICE);
    CHECK(strstr(ols_last_error(), "device = cuda:1048576") || strstr(ols_last_error(), "device_id = 1048576"));
    options.device_id = 0;
    options.device_type = OLS_DEVICE_CUDA_MANAGED;
    REFUSED(&w, OLS_STATUS_INVALID_DEVICE, "device_type = 13|managed", ols_create(&options, &criterion));
    options.device_type = 0;
    REFUSED(&w, OLS_STATUS_INVALID_DEVICE, "device_type = 0", ols_create(&options, &criterion));

    REFUSED(&w, BAD, "alpha = 1.5 is outside [0, 1]", ols_set_alpha(w.now.criterion, 1.5));
    REFUSED(&w, BAD, "alpha = NaN is outside [0, 1]", ols_set_alpha(w.now.criterion, NAN));
    REFUSED(&w, BAD, "epoch = -1|outside [0, 9223372036854775807)", ols_set_epoch(w.now.criterion, -1));
    CHECK(criterion == NULL);
    options = good;
    REFUSED(&w, BAD, "out and options overlap", ols_create(&options, (ols_criterion_t **)(void *)&options.alpha));
    world_free(&w);
}

static void strings(void) {
    CHECK(strcmp(ols_version(), OLS_VERSION) == 0);
    CHECK(ols_abi_version() == OLS_ABI_VERSION);
    CHECK(strcmp(ols_status_string(OLS_STATUS_OK), "OK") == 0);
    CHECK(strcmp(ols_status_string(OLS_STATUS_PANIC), "PANIC") == 0);
    CHECK(strcmp(ols_status_string(-7), "UNKNOWN") == 0 && strcmp(ols_status_string(12), "UNKNOWN") == 0);
    /* The message belongs to the latest call that returns a status; other calls do not change it. */
    CHECK(ols_next_epoch(NULL, NULL) == OLS_STATUS_INVALID_ARGUMENT);
    ols_destroy(NULL);
    CHECK(*ols_status_string(0) == 'O' && *ols_version() != '\0');
    CHECK(strcmp(ols_last_error(), "ols_next_epoch: criterion is NULL") == 0);
    ols_options_t options = options_for(2);
    CHECK(*ols_last_error() == '\0' && options.num_classes == 2);
}

int main(void) {
    null_pointers();
    misaligned_pointers();
    struct_sizes();
    flags_and_enums();
    numbers_of_options();
    strings();
    return finish();
}
