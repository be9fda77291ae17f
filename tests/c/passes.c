/* The results of the calls, compared with values calculated by hand. */
#include "check.h"

/* Two samples of class 0: p = (2/3, 1/3), classified correctly, and p = (1/4, 3/4), classified incorrectly. */
typedef struct {
    float logits[2][2], grad[2][2], loss;
    uint8_t targets[2];
    ols_batch_t batch;
    ols_tensor_t to_loss, to_grad;
} example_t;

static const double P[2][2] = {{2.0 / 3, 1.0 / 3}, {0.25, 0.75}};

static void example_init(example_t *e) {
    memset(e, 0, sizeof *e);
    e->logits[0][0] = logf(2.0f);
    e->logits[1][1] = logf(3.0f);
    OK(ols_batch_init(&e->batch, sizeof e->batch));
    e->batch.logits = ols_tensor_2d(e->logits, OLS_DTYPE_F32, 2, 2);
    e->batch.targets = ols_tensor_1d(e->targets, OLS_DTYPE_U8, 2);
    e->to_loss = ols_tensor_0d(&e->loss, OLS_DTYPE_F32);
    e->to_grad = ols_tensor_2d(e->grad, OLS_DTYPE_F32, 2, 2);
}

static const double *soft_row(ols_criterion_t *criterion, int row, double *out) {
    ols_tensor_t view;
    OK(ols_soft_labels(criterion, &view));
    for (int k = 0; k < view.shape[1]; k++) out[k] = ((float *)view.data)[row * view.strides[0] + k * view.strides[1]];
    return out;
}

static void an_epoch(void) {
    ols_options_t options = options_for(2);
    ols_criterion_t *criterion = create(&options);
    example_t e;
    double row[2];
    example_init(&e);
    OK(ols_forward(criterion, &e.batch, &e.to_loss, &e.to_grad));
    /* alpha = 0.5, S[0] = (0.9, 0.1): q = (0.95, 0.05). The mean of two samples. */
    const double q[2] = {0.95, 0.05};
    double loss = 0;
    for (int n = 0; n < 2; n++) {
        for (int k = 0; k < 2; k++) {
            loss -= q[k] * log(P[n][k]) / 2;
            CHECK(close_to(e.grad[n][k], (P[n][k] - q[k]) / 2, 4e-7));
        }
    }
    CHECK(close_to(e.loss, loss, 2e-6));

    ols_statistics_t statistics = {.struct_size = sizeof statistics};
    OK(ols_statistics(criterion, &statistics));
    CHECK(statistics.sums.ndim == 2 && statistics.sums.shape[0] == 2 && statistics.sums.dtype_code == OLS_CODE_INT && statistics.sums.dtype_bits == 64);
    CHECK(statistics.counts.ndim == 1 && statistics.counters.shape[0] == OLS_COUNTERS);
    const int64_t *sums = statistics.sums.data, *counts = statistics.counts.data;
    CHECK(counts[0] == 1 && counts[1] == 0);
    CHECK(close_to(ldexp((double)sums[0], -OLS_FRACTION_BITS), P[0][0], 1e-7) && close_to(ldexp((double)sums[1], -OLS_FRACTION_BITS), P[0][1], 1e-7));

    ols_report_t report = {.struct_size = sizeof report};
    OK(ols_report(criterion, NULL, &report));
    CHECK(report.epoch == 0 && report.rows_measured == 0 && report.running_epoch == 1 && report.running_samples_accumulated == 1);

    OK(ols_next_epoch(criterion, NULL));
    soft_row(criterion, 0, row);
    CHECK(close_to(row[0], P[0][0], 1e-6) && close_to(row[1], P[0][1], 1e-6));
    soft_row(criterion, 1, row);
    CHECK(row[0] == 0.1f && row[1] == 0.9f);
    CHECK(sums[0] == 0 && counts[0] == 0);
    OK(ols_report(criterion, NULL, &report));
    CHECK(report.epoch == 1 && report.rows_measured == 1 && report.rows_kept == 1 && report.samples_accumulated == 1 && report.running_epoch == 2);
    int64_t epoch;
    OK(ols_epoch(criterion, &epoch));
    CHECK(epoch == 1);

    /* A second pass uses the new soft label: q = 0.5*(1, 0) + 0.5*(2/3, 1/3). */
    OK(ols_forward(criterion, &e.batch, NULL, &e.to_grad));
    CHECK(close_to(e.grad[1][0], (0.25 - 5.0 / 6) / 2, 4e-7));
    ols_destroy(criterion);
}

static void gradients_agree(void) {
    ols_options_t options = options_for(2);
    ols_criterion_t *criterion = create(&options);
    example_t e;
    float again[2][2];
    example_init(&e);
    const ols_tensor_t to_again = ols_tensor_2d(again, OLS_DTYPE_F32, 2, 2);
    OK(ols_forward(criterion, &e.batch, &e.to_loss, &e.to_grad));
    OK(ols_backward(criterion, &e.batch, NULL, &to_again));
    CHECK(memcmp(again, e.grad, sizeof again) == 0);
    /* The upstream gradient, as an argument and in the batch. */
    const float scale = 1024;
    ols_tensor_t grad_loss = ols_tensor_0d(&scale, OLS_DTYPE_F32);
    OK(ols_backward(criterion, &e.batch, &grad_loss, &to_again));
    CHECK(again[0][0] == 1024 * e.grad[0][0] && again[1][1] == 1024 * e.grad[1][1]);
    e.batch.grad_loss = grad_loss;
    OK(ols_backward(criterion, &e.batch, NULL, &e.to_grad));
    CHECK(memcmp(again, e.grad, sizeof again) == 0);
    /* In place of the logits. */
    OK(ols_forward(criterion, &e.batch, &e.to_loss, &e.batch.logits));
    CHECK(memcmp(again, e.logits, sizeof again) == 0);
    ols_destroy(criterion);
}

static void counted(ols_criterion_t *criterion, int64_t samples) {
    ols_report_t report = {.struct_size = sizeof report};
    OK(ols_report(criterion, NULL, &report));
    CHECK(report.running_samples_accumulated == samples);
}

static void modes_and_flags(void) {
    ols_options_t options = options_for(2);
    ols_criterion_t *criterion = create(&options);
    example_t e;
    size_t size, size_after;
    int32_t mode;
    example_init(&e);
    OK(ols_forward(criterion, &e.batch, NULL, NULL));
    counted(criterion, 1);
    void *before = saved(criterion, &size);
    e.batch.flags = OLS_BATCH_NO_UPDATE;
    OK(ols_forward(criterion, &e.batch, &e.to_loss, NULL));
    counted(criterion, 1);
    e.batch.flags = 0;
    OK(ols_set_mode(criterion, OLS_MODE_EVAL));
    OK(ols_mode(criterion, &mode));
    CHECK(mode == OLS_MODE_EVAL);
    OK(ols_forward(criterion, &e.batch, &e.to_loss, NULL));
    counted(criterion, 1);
    OK(ols_set_mode(criterion, OLS_MODE_TRAIN));
    /* Adding and taking back a batch restores the statistics bitwise. */
    OK(ols_forward(criterion, &e.batch, NULL, NULL));
    counted(criterion, 2);
    e.batch.flags = OLS_BATCH_TAKE_BACK;
    OK(ols_forward(criterion, &e.batch, NULL, NULL));
    counted(criterion, 1);
    void *after = saved(criterion, &size_after);
    CHECK(size == size_after && memcmp(before, after, size) == 0);
    free(before);
    free(after);
    /* An epoch of evaluation only, and an epoch without any call, do not change S. */
    ols_destroy(criterion);
    criterion = create(&options);
    double row[2];
    OK(ols_next_epoch(criterion, NULL));
    OK(ols_next_epoch(criterion, NULL));
    soft_row(criterion, 0, row);
    CHECK(row[0] == 0.9f && row[1] == 0.1f);
    ols_destroy(criterion);
}

static void given_probabilities(void) {
    ols_options_t options = options_for(2);
    ols_criterion_t *criterion = create(&options);
    double p[2][2] = {{0.75, 0.25}, {0.25, 0.75}}, row[2];
    int32_t targets[2] = {1, 2};
    ols_batch_t batch;
    OK(ols_batch_init(&batch, sizeof batch));
    batch.logits = ols_tensor_2d(p, OLS_DTYPE_F64, 2, 2);
    batch.targets = ols_tensor_1d(targets, OLS_DTYPE_I32, 2);
    batch.target_offset = 1; /* one-based labels */
    OK(ols_accumulate(criterion, &batch));
    OK(ols_next_epoch(criterion, NULL));
    soft_row(criterion, 0, row);
    CHECK(row[0] == 0.75 && row[1] == 0.25);
    soft_row(criterion, 1, row);
    CHECK(row[0] == 0.25 && row[1] == 0.75);
    ols_destroy(criterion);
}

static void mixed_targets(void) {
    ols_options_t options = options_for(2);
    options.alpha = 1;
    ols_criterion_t *criterion = create(&options);
    example_t e;
    uint8_t second[2] = {1, 1};
    const float lam = 0.25f;
    example_init(&e);
    e.batch.targets2 = ols_tensor_1d(second, OLS_DTYPE_U8, 2);
    e.batch.lam = ols_tensor_0d(&lam, OLS_DTYPE_F32);
    OK(ols_forward(criterion, &e.batch, &e.to_loss, &e.to_grad));
    double loss = 0;
    for (int n = 0; n < 2; n++) loss -= (0.25 * log(P[n][0]) + 0.75 * log(P[n][1])) / 2;
    CHECK(close_to(e.loss, loss, 2e-6) && close_to(e.grad[0][0], (P[0][0] - 0.25) / 2, 4e-7));
    counted(criterion, 1); /* the second sample: its argmax is the target of larger weight */
    ols_destroy(criterion);
}

static void weights(void) {
    const double class_weights[2] = {3, 1};
    ols_options_t options = options_for(2);
    options.alpha = 1;
    options.class_weights = ols_tensor_1d(class_weights, OLS_DTYPE_F64, 2);
    ols_criterion_t *criterion = create(&options);
    example_t e;
    const float sample_weights[2] = {1, 0};
    example_init(&e);
    e.batch.sample_weights = ols_tensor_1d(sample_weights, OLS_DTYPE_F32, 2);
    OK(ols_forward(criterion, &e.batch, &e.to_loss, &e.to_grad));
    CHECK(close_to(e.loss, -log(P[0][0]), 2e-6)); /* 3*loss / 3 */
    CHECK(e.grad[1][0] == 0 && e.grad[1][1] == 0);
    ols_destroy(criterion);
}

static void options_come_back(void) {
    const float class_weights[3] = {1, 0.5f, 2}, matrix[3][3] = {{1, 0, 0}, {0, 1, 0}, {0.5f, 0, 0.5f}};
    ols_options_t options = options_for(3), got = {.struct_size = sizeof got}, defaults = options_for(3);
    options.alpha = 0.25;
    options.momentum = 0.5;
    options.freeze_above = 0.875;
    options.min_count = 7;
    options.ignore_index = 255;
    options.initial = OLS_INITIAL_MATRIX;
    options.initial_soft_labels = ols_tensor_2d(matrix, OLS_DTYPE_F32, 3, 3);
    options.class_weights = ols_tensor_1d(class_weights, OLS_DTYPE_F32, 3);
    options.empty_class = OLS_EMPTY_CLASS_INITIAL;
    options.reduction = OLS_REDUCTION_SUM;
    options.mode = OLS_MODE_EVAL;
    options.n_threads = 3;
    ols_criterion_t *criterion = create(&options), *other;
    OK(ols_set_alpha(criterion, 0.75));
    OK(ols_set_mode(criterion, OLS_MODE_TRAIN));
    OK(ols_get_options(criterion, &got));
    CHECK(got.alpha == 0.75 && got.mode == OLS_MODE_TRAIN);
    CHECK(((double *)got.class_weights.data)[2] == 2 && got.class_weights.dtype_bits == 64);
    CHECK(((float *)got.initial_soft_labels.data)[6] == 0.5f && got.initial_soft_labels.strides[0] == 3);
    CHECK(got.momentum == 0.5 && got.freeze_above == 0.875 && got.min_count == 7 && got.ignore_index == 255 && got.initial == OLS_INITIAL_MATRIX);
    CHECK(got.empty_class == OLS_EMPTY_CLASS_INITIAL && got.reduction == OLS_REDUCTION_SUM && got.n_threads == 3 && got.num_classes == 3);
    /* The retrieved options create an equal criterion. */
    OK(ols_create(&got, &other));
    size_t size, other_size;
    void *bytes = saved(criterion, &size), *other_bytes = saved(other, &other_size);
    CHECK(size == other_size && memcmp(bytes, other_bytes, size) == 0);
    free(bytes);
    free(other_bytes);
    ols_destroy(other);
    ols_destroy(criterion);

    criterion = create(&defaults);
    OK(ols_get_options(criterion, &got));
    CHECK(memcmp(&got, &defaults, sizeof got) == 0);
    ols_destroy(criterion);

    OK(ols_options_preset(&options, OLS_PRESET_REFERENCE));
    CHECK(options.initial == OLS_INITIAL_SMOOTHING && options.smoothing == 0.1 && options.empty_class == OLS_EMPTY_CLASS_ZERO && options.alpha == 0.25);
    OK(ols_options_preset(&options, OLS_PRESET_PAPER));
    CHECK(options.initial == OLS_INITIAL_ZERO && options.empty_class == OLS_EMPTY_CLASS_UNIFORM);
}

/* A saved and loaded criterion continues like one that was never interrupted: state, epoch, and the options that affect the results. */
static void saving(const char *folder) {
    ols_options_t options = options_for(2), other_options = options_for(2), three = options_for(3), got = {.struct_size = sizeof got};
    options.alpha = 0.125;
    options.ignore_index = 7;
    options.empty_class = OLS_EMPTY_CLASS_ONE_HOT;
    other_options.reduction = OLS_REDUCTION_SUM;
    other_options.mode = OLS_MODE_EVAL;
    ols_criterion_t *criterion = create(&options), *other = create(&other_options), *third = create(&three);
    const float matrix[2][2] = {{0.5f, 0.5f}, {0.25f, 0.75f}};
    const ols_tensor_t to_set = ols_tensor_2d(matrix, OLS_DTYPE_F32, 2, 2);
    example_t e;
    char path[4096];
    size_t size, other_size;
    snprintf(path, sizeof path, "%s/state.safetensors", folder);
    example_init(&e);
    OK(ols_forward(criterion, &e.batch, NULL, NULL));
    OK(ols_set_epoch(criterion, 41));
    OK(ols_set_soft_labels(criterion, &to_set, NULL));
    OK(ols_save(criterion, path, NULL));
    OK(ols_load(other, path, NULL));
    OK(ols_get_options(other, &got));
    CHECK(got.alpha == 0.125 && got.ignore_index == 7 && got.empty_class == OLS_EMPTY_CLASS_ONE_HOT);
    CHECK(got.reduction == OLS_REDUCTION_SUM && got.mode == OLS_MODE_EVAL);
    OK(ols_next_epoch(criterion, NULL));
    OK(ols_next_epoch(other, NULL));
    void *bytes = saved(criterion, &size), *other_bytes = saved(other, &other_size);
    CHECK(size == other_size && memcmp(bytes, other_bytes, size) == 0);
    FAILS(OLS_STATUS_INVALID_ARGUMENT, "num_classes = 2|3", ols_load(third, path, NULL));
    FAILS(OLS_STATUS_INVALID_ARGUMENT, "num_classes = 2|3", ols_load_memory(third, bytes, size, NULL));
    /* From memory at an unaligned address; the file contains the same bytes. */
    ols_criterion_t *fourth = create(&other_options);
    char *moved = malloc(size + 1);
    memcpy(moved + 1, bytes, size);
    OK(ols_load_memory(fourth, moved + 1, size, NULL));
    int64_t epoch;
    OK(ols_epoch(fourth, &epoch));
    CHECK(epoch == 42);
    OK(ols_save(fourth, path, NULL));
    FILE *file = fopen(path, "rb");
    CHECK(file && fread(other_bytes, 1, size, file) == size && fgetc(file) == EOF && memcmp(other_bytes, bytes, size) == 0);
    if (file) fclose(file);
    free(moved);
    free(bytes);
    free(other_bytes);
    ols_destroy(fourth);
    ols_destroy(third);
    ols_destroy(other);
    ols_destroy(criterion);
}

int main(int argc, char **argv) {
    an_epoch();
    gradients_agree();
    modes_and_flags();
    given_probabilities();
    mixed_targets();
    weights();
    options_come_back();
    saving(argc > 1 ? argv[1] : ".");
    return finish();
}
