// state K IN OUT: loads IN through the C library, prints the state, adds one more batch, ends the epoch, and saves to
// OUT.
#include <inttypes.h>
#include <ols.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(ols_status_t status) {
    if (status == OLS_STATUS_OK) return;
    fprintf(stderr, "%s\n", ols_last_error());
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    ols_options_t options;
    ols_criterion_t *criterion;
    check(ols_options_init(&options, sizeof options));
    const int64_t k = options.num_classes = atoi(argv[1]);
    check(ols_create(&options, &criterion));
    check(ols_load(criterion, argv[2], NULL));

    int64_t epoch;
    ols_tensor_t soft_labels;
    ols_statistics_t statistics = {.struct_size = sizeof statistics};
    check(ols_epoch(criterion, &epoch));
    check(ols_soft_labels(criterion, &soft_labels));
    check(ols_statistics(criterion, &statistics));
    printf("%" PRId64 "\n", epoch);
    for (int64_t i = 0; i < k; i++) {
        printf("%" PRId64, ((const int64_t *)statistics.counts.data)[i]);
        for (int64_t j = 0; j < k; j++) {
            uint32_t bits;
            memcpy(&bits, (const float *)soft_labels.data + i * soft_labels.strides[0] + j, sizeof bits);
            printf(" %" PRIx32 " %" PRId64, bits, ((const int64_t *)statistics.sums.data)[i * statistics.sums.strides[0] + j]);
        }
        printf("\n");
    }

    float *logits = calloc((size_t)(k * k), sizeof *logits);
    int64_t *targets = calloc((size_t)k, sizeof *targets);
    for (int64_t i = 0; i < k; i++) logits[i * k + i] = 3, targets[i] = i;
    ols_batch_t batch;
    check(ols_batch_init(&batch, sizeof batch));
    batch.logits = ols_tensor_2d(logits, OLS_DTYPE_F32, k, k);
    batch.targets = ols_tensor_1d(targets, OLS_DTYPE_I64, k);
    check(ols_forward(criterion, &batch, NULL, NULL));
    check(ols_next_epoch(criterion, NULL));
    check(ols_save(criterion, argv[3], NULL));
    ols_destroy(criterion);
    free(logits);
    free(targets);
    return 0;
}
