/* The C leg of tests/ring/run, which says what it does. With an empty IN it makes the first file: the middle of a third epoch, with every option that a file
 * holds away from its default. */
#include <inttypes.h>
#include <ols.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLASSES = 5, SAMPLES = 11 };

static void check(ols_status_t status) {
    if (status == OLS_STATUS_OK) return;
    fprintf(stderr, "%s\n", ols_last_error());
    exit(1);
}

static void train(ols_criterion_t *criterion, int step) {
    float logits[SAMPLES][CLASSES];
    uint8_t targets[SAMPLES];
    ols_batch_t batch;
    for (int n = 0; n < SAMPLES; n++) {
        for (int k = 0; k < CLASSES; k++) logits[n][k] = (float)((n * 37 + k * 11 + step * 101) % 97) / 16;
        targets[n] = (uint8_t)(n == 3 ? 255 : (n * 3 + step) % CLASSES);
        if (n % 3 > 0 && n != 3) logits[n][targets[n]] = 7;
    }
    check(ols_batch_init(&batch, sizeof batch));
    batch.logits = ols_tensor_2d(logits, OLS_DTYPE_F32, SAMPLES, CLASSES);
    batch.targets = ols_tensor_1d(targets, OLS_DTYPE_U8, SAMPLES);
    check(ols_forward(criterion, &batch, NULL, NULL));
}

static ols_criterion_t *make_first(void) {
    static const double class_weights[CLASSES] = {1, 0.5, 0.1, 2, 0};
    ols_options_t options;
    ols_criterion_t *criterion;
    check(ols_options_init(&options, sizeof options));
    options.num_classes = CLASSES;
    options.alpha = 0.3;
    options.smoothing = 0.2;
    options.momentum = 0.125;
    options.freeze_above = 0.99;
    options.min_count = 2;
    options.ignore_index = 255;
    options.empty_class = OLS_EMPTY_CLASS_UNIFORM;
    options.class_weights = ols_tensor_1d(class_weights, OLS_DTYPE_F64, CLASSES);
    check(ols_create(&options, &criterion));
    for (int step = 0; step < 7; step++) {
        train(criterion, step);
        if (step == 2 || step == 4) check(ols_next_epoch(criterion, NULL));
    }
    return criterion;
}

static ols_criterion_t *load(const char *path) {
    ols_options_t options;
    ols_criterion_t *criterion;
    check(ols_options_init(&options, sizeof options));
    options.num_classes = CLASSES;
    check(ols_create(&options, &criterion));
    check(ols_load(criterion, path, NULL));
    return criterion;
}

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: %s IN OUT\n", argv[0]), 2;
    ols_criterion_t *criterion = *argv[1] ? load(argv[1]) : make_first();
    ols_options_t options;
    ols_statistics_t statistics;
    ols_tensor_t soft_labels;
    int64_t epoch;
    memset(&options, 0, sizeof options);
    memset(&statistics, 0, sizeof statistics);
    options.struct_size = sizeof options;
    statistics.struct_size = sizeof statistics;
    check(ols_get_options(criterion, &options));
    check(ols_statistics(criterion, &statistics));
    check(ols_soft_labels(criterion, &soft_labels));
    check(ols_epoch(criterion, &epoch));
    printf("epoch %" PRId64 " alpha %.6f ignore_index %" PRId64 " counts", epoch, options.alpha, options.ignore_index);
    for (int k = 0; k < CLASSES; k++) printf(" %" PRId64, ((int64_t *)statistics.counts.data)[k]);
    printf(" sums");
    for (int k = 0; k < CLASSES; k++) printf(" %" PRId64, ((int64_t *)statistics.sums.data)[statistics.sums.strides[0] + k]);
    printf(" soft_labels");
    for (int k = 0; k < CLASSES; k++) {
        uint32_t bits;
        memcpy(&bits, (float *)soft_labels.data + soft_labels.strides[0] + k, sizeof bits);
        printf(" %08" PRIx32, bits);
    }
    printf("\n");
    check(ols_save(criterion, argv[2], NULL));
    ols_destroy(criterion);
    return 0;
}
