/* The conformance vectors through the C ABI. vectors.inc says what its cases mean. */
#include "check.h"

/* vectors.inc describes itself with more names than one program needs. */
#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#include "vectors.inc"

static const char *case_name;
static size_t step_number;

static void wrong(const char *what, int64_t at, double got, double expected) {
    if (failures++ < 40) {
        fprintf(stderr, "%s, step %zu: %s[%lld] = %.17g, expected %.17g [%s]\n", case_name, step_number, what, (long long)at, got, expected,
                ols_last_error());
    }
}

static const int32_t DTYPES[] = {OLS_DTYPE_F32, OLS_DTYPE_F64, OLS_DTYPE_F16, OLS_DTYPE_BF16, OLS_DTYPE_I64, OLS_DTYPE_I32, OLS_DTYPE_U8};
static const size_t SIZES[] = {4, 8, 2, 2, 8, 4, 1};
static const int32_t UPDATES[] = {0, OLS_BATCH_NO_UPDATE, OLS_BATCH_TAKE_BACK};
static const ols_status_t ERRORS[] = {OLS_STATUS_OK, OLS_STATUS_INVALID_ARGUMENT, OLS_STATUS_INVALID_DTYPE,
                                      OLS_STATUS_INVALID_SHAPE, OLS_STATUS_TARGET_OUT_OF_RANGE, OLS_STATUS_INVALID_STATE};

/* 16-bit floating-point numbers. Values to encode are exactly representable. */
static uint16_t to_f16(double value) {
    const uint16_t sign = signbit(value) ? 0x8000 : 0;
    int exponent;
    if (isnan(value)) return 0x7e00;
    if (isinf(value)) return sign | 0x7c00;
    const double fraction = frexp(fabs(value), &exponent); /* in [0.5, 1) */
    if (fraction == 0) return sign;
    if (exponent < -13) return (uint16_t)(sign | (int)ldexp(fraction, exponent + 24));
    return (uint16_t)(sign | (exponent + 14) << 10 | ((int)ldexp(fraction, 11) & 1023));
}

static double from_f16(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double value = exponent == 31 ? (fraction ? NAN : INFINITY) : exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return bits & 0x8000 ? -value : value;
}

static void put(void *data, int dtype, int64_t place, double value) {
    const float single = (float)value;
    uint32_t bits;
    switch (dtype) {
    case VEC_F64: ((double *)data)[place] = value; break;
    case VEC_F16: ((uint16_t *)data)[place] = to_f16(value); break;
    case VEC_BF16:
        memcpy(&bits, &single, sizeof bits);
        ((uint16_t *)data)[place] = (uint16_t)(bits >> 16);
        break;
    default: ((float *)data)[place] = single;
    }
}

static double get(const void *data, int dtype, int64_t place) {
    uint32_t bits;
    float single;
    switch (dtype) {
    case VEC_F64: return ((const double *)data)[place];
    case VEC_F16: return from_f16(((const uint16_t *)data)[place]);
    case VEC_BF16:
        bits = (uint32_t)((const uint16_t *)data)[place] << 16;
        memcpy(&single, &bits, sizeof single);
        return single;
    default: return ((const float *)data)[place];
    }
}

/* A block of memory and a view of it. */
typedef struct {
    unsigned char *data, *before;
    size_t bytes;
    int dtype;
    vec_view view;
    ols_tensor_t tensor;
} block_t;

static int64_t elements(const vec_view *view) {
    int64_t count = 1;
    for (int d = 0; d < view->ndim; d++) count *= view->shape[d];
    return count;
}

static block_t block_of(int dtype, const vec_view *view) {
    block_t block;
    memset(&block, 0, sizeof block);
    block.dtype = dtype;
    block.view = *view;
    block.bytes = (size_t)view->length * SIZES[dtype];
    block.data = malloc(block.bytes + 1);
    block.before = malloc(block.bytes + 1);
    memset(block.data, 0xa5, block.bytes);
    block.tensor = ols_tensor_0d(block.data + (size_t)view->offset * SIZES[dtype], DTYPES[dtype]);
    block.tensor.ndim = view->ndim;
    memcpy(block.tensor.shape, view->shape, sizeof block.tensor.shape);
    memcpy(block.tensor.strides, view->strides, sizeof block.tensor.strides);
    return block;
}

static block_t block_of_numbers(const vec_numbers *numbers) {
    block_t block = block_of(numbers->dtype, &numbers->view);
    for (size_t i = 0; i < numbers->n; i++) put(block.data, numbers->dtype, vec_place(&numbers->view, (int64_t)i, NULL), numbers->values[i]);
    return block;
}

static block_t block_of_targets(const vec_targets *targets) {
    block_t block = block_of(targets->dtype, &targets->view);
    for (size_t i = 0; i < targets->n; i++) {
        const int64_t place = vec_place(&targets->view, (int64_t)i, NULL), value = targets->values[i];
        if (targets->dtype == VEC_I64) ((int64_t *)(void *)block.data)[place] = value;
        if (targets->dtype == VEC_I32) ((int32_t *)(void *)block.data)[place] = (int32_t)value;
        if (targets->dtype == VEC_U8) block.data[place] = (uint8_t)value;
    }
    return block;
}

static block_t block_of_logits(const vec_logits *logits) {
    block_t block = block_of(logits->dtype, &logits->view);
    const int64_t count = elements(&logits->view);
    for (int64_t i = 0; i < count; i++) put(block.data, logits->dtype, vec_place(&logits->view, i, NULL), vec_logit(logits, i));
    return block;
}

static void release(block_t *block) {
    free(block->data);
    free(block->before);
}

/* Compares the `n` values `value(of, i)` with the expected ones. */
static void compare(const char *what, const vec_values *expect, double (*value)(const void *, int64_t), const void *of, int64_t count) {
    if (!expect->present) return;
    if (!expect->at && (int64_t)expect->n != count) wrong(what, -1, (double)count, (double)expect->n);
    for (size_t i = 0; i < expect->n; i++) {
        const int64_t at = expect->at ? expect->at[i] : (int64_t)i;
        const double got = value(of, at), want = expect->values[i];
        const int same = isnan(want) ? isnan(got) : isinf(want) ? got == want : fabs(got - want) <= expect->atol + expect->rtol * fabs(want);
        if (!same) wrong(what, at, got, want);
    }
}

static double value_of_block(const void *of, int64_t flat) {
    const block_t *block = of;
    return get(block->data, block->dtype, vec_place(&block->view, flat, NULL));
}

static double value_of_state(const void *of, int64_t flat) {
    const ols_tensor_t *tensor = of;
    const int64_t row = flat / tensor->shape[1], column = flat % tensor->shape[1];
    return ((const float *)tensor->data)[row * tensor->strides[0] + column * tensor->strides[1]];
}

/* Checks that memory outside an output's view is unchanged; after an error, all of it. */
static void check_untouched(const char *what, const block_t *block, int all) {
    unsigned char *named = calloc(1, block->bytes + 1);
    const size_t size = SIZES[block->dtype];
    const int64_t count = all ? 0 : elements(&block->view);
    for (int64_t i = 0; i < count; i++) memset(named + (size_t)vec_place(&block->view, i, NULL) * size, 1, size);
    for (size_t i = 0; i < block->bytes; i++) {
        if (!named[i] && block->data[i] != block->before[i]) wrong(what, (int64_t)i, block->data[i], block->before[i]);
    }
    free(named);
}

static ols_options_t options_of(const vec_options *given, float *matrix) {
    ols_options_t options = options_for(given->classes);
    options.alpha = given->alpha;
    options.initial = given->initial; /* the numbers are in the same order */
    options.smoothing = given->initial == VEC_SMOOTHING ? given->smoothing : 0.1;
    options.empty_class = given->empty_class;
    options.min_count = given->min_count;
    options.momentum = given->momentum;
    if (given->has_freeze_above) options.freeze_above = given->freeze_above;
    options.ignore_index = given->ignore_index;
    options.reduction = given->reduction;
    options.mode = given->mode;
    if (given->class_weights) options.class_weights = ols_tensor_1d(given->class_weights, OLS_DTYPE_F64, (int64_t)given->n_class_weights);
    if (given->initial == VEC_MATRIX) {
        const int64_t k = given->classes;
        options.initial_soft_labels = ols_tensor_2d(matrix, OLS_DTYPE_F32, (int64_t)given->n_matrix / (k > 0 ? k : 1), k);
    }
    return options;
}

static float *floats(const double *values, size_t n) {
    float *copy = malloc(sizeof *copy * (n + 1));
    for (size_t i = 0; i < n; i++) copy[i] = (float)values[i];
    return copy;
}

static void check_status(ols_status_t status, int error, const char *message) {
    if (status != ERRORS[error]) wrong("status", 0, status, ERRORS[error]);
    if (message && !strstr(ols_last_error(), message)) fprintf(stderr, "the message should contain: %s\n", message), wrong("message", 0, 0, 0);
}

static void check_state(ols_criterion_t *criterion, const vec_expect *expect, int64_t classes) {
    ols_statistics_t statistics = {.struct_size = sizeof statistics};
    ols_report_t report = {.struct_size = sizeof report};
    ols_tensor_t soft_labels;
    int64_t epoch;
    OK(ols_statistics(criterion, &statistics));
    OK(ols_soft_labels(criterion, &soft_labels));
    OK(ols_report(criterion, NULL, &report));
    OK(ols_epoch(criterion, &epoch));
    for (size_t i = 0; expect->counts && i < expect->n_counts; i++) {
        const int64_t got = ((int64_t *)statistics.counts.data)[i];
        if (got != expect->counts[i]) wrong("counts", (int64_t)i, (double)got, (double)expect->counts[i]);
    }
    for (size_t i = 0; expect->sums.present && i < expect->sums.n; i++) {
        const int64_t at = expect->sums.at ? expect->sums.at[i] : (int64_t)i;
        const double got = (double)((int64_t *)statistics.sums.data)[at], want = (double)expect->sums.values[i];
        if (fabs(got - want) > (double)expect->sums.atol + expect->sums.rtol * fabs(want)) wrong("sums", at, got, want);
    }
    if (expect->samples_skipped != -1 && report.running_samples_skipped != expect->samples_skipped) {
        wrong("samples_skipped", 0, (double)report.running_samples_skipped, (double)expect->samples_skipped);
    }
    if (expect->epoch != -1 && epoch != expect->epoch) wrong("epoch", 0, (double)epoch, (double)expect->epoch);
    compare("soft_labels", &expect->soft_labels, value_of_state, &soft_labels, classes * classes);
    if (expect->has_report) {
        const vec_report *want = &expect->report;
#define SAME(field) \
    if (report.field != want->field) wrong(#field, 0, (double)report.field, (double)want->field)
        VEC_REPORT_FIELDS(SAME);
    }
}

/* A step that processes a batch. */
static ols_status_t run_batch(ols_criterion_t *criterion, const vec_case *c, const vec_step *step) {
    const vec_batch *given = &c->batches[step->batch];
    block_t logits = block_of_logits(&given->logits), targets = block_of_targets(&given->targets), weights, targets2, lam, grad_loss, loss, grad;
    ols_batch_t batch;
    ols_status_t status;
    OK(ols_batch_init(&batch, sizeof batch));
    batch.logits = logits.tensor;
    batch.targets = targets.tensor;
    batch.target_offset = given->target_offset;
    batch.flags = (uint32_t)UPDATES[step->update];
    if (given->sample_weights.present) weights = block_of_numbers(&given->sample_weights), batch.sample_weights = weights.tensor;
    if (given->targets2.present) targets2 = block_of_targets(&given->targets2), batch.targets2 = targets2.tensor;
    if (given->lam.present) lam = block_of_numbers(&given->lam), batch.lam = lam.tensor;
    if (given->grad_loss.present) grad_loss = block_of_numbers(&given->grad_loss), batch.grad_loss = grad_loss.tensor;
    const int has_grad = step->action == VEC_BACKWARD || step->has_grad;
    loss = block_of(given->logits.dtype == VEC_F64 ? VEC_F64 : VEC_F32, &step->loss);
    grad = has_grad ? block_of(given->logits.dtype, &step->grad) : loss;
    block_t *written = step->in_place ? &logits : &grad;
    memcpy(loss.before, loss.data, loss.bytes);
    memcpy(written->before, written->data, written->bytes);
    size_t size_before, size_after;
    void *before = saved(criterion, &size_before);

    switch (step->action) {
    case VEC_FORWARD:
        status = ols_forward(criterion, &batch, step->has_loss ? &loss.tensor : NULL, has_grad || step->in_place ? &written->tensor : NULL);
        break;
    case VEC_BACKWARD: status = ols_backward(criterion, &batch, NULL, &written->tensor); break;
    default: status = ols_accumulate(criterion, &batch);
    }
    check_status(status, step->expect.error, step->expect.message);
    const int failed = status != OLS_STATUS_OK;
    if (failed) {
        void *after = saved(criterion, &size_after);
        if (size_before != size_after || memcmp(before, after, size_before) != 0) wrong("state after an error", 0, 0, 0);
        free(after);
    }
    if (step->has_loss) check_untouched("loss", &loss, failed);
    if (has_grad || step->in_place) check_untouched("grad", written, failed);
    if (!failed) {
        double sum = 0;
        const int64_t count = elements(&written->view);
        compare("loss", &step->expect.loss, value_of_block, &loss, elements(&loss.view));
        compare("grad", &step->expect.grad, value_of_block, written, count);
        for (int64_t i = 0; i < count; i++) sum += fabs(value_of_block(written, i));
        const vec_values *expect = &step->expect.grad_abs_sum;
        if (expect->present && !(fabs(sum - *expect->values) <= expect->atol + expect->rtol * fabs(*expect->values))) {
            wrong("grad_abs_sum", 0, sum, *expect->values);
        }
    }
    free(before);
    release(&logits);
    release(&targets);
    if (given->sample_weights.present) release(&weights);
    if (given->targets2.present) release(&targets2);
    if (given->lam.present) release(&lam);
    if (given->grad_loss.present) release(&grad_loss);
    if (has_grad) release(&grad);
    release(&loss);
    return status;
}

/* Saves the criterion and continues with a new one. */
static ols_criterion_t *save_load(ols_criterion_t *criterion, const vec_case *c) {
    ols_options_t options = options_for(c->options.classes);
    size_t size;
    void *bytes = saved(criterion, &size);
    options.reduction = c->options.reduction;
    OK(ols_mode(criterion, &options.mode));
    ols_criterion_t *other = create(&options);
    OK(ols_load_memory(other, bytes, size, NULL));
    free(bytes);
    ols_destroy(criterion);
    return other;
}

static void run_case(const vec_case *c) {
    float *matrix = floats(c->options.matrix, c->options.n_matrix);
    ols_options_t options = options_of(&c->options, matrix);
    ols_criterion_t *criterion = NULL;
    case_name = c->name;
    step_number = 0;
    check_status(ols_create(&options, &criterion), c->error, c->message);
    if (!criterion != !!c->error) wrong("criterion", 0, 0, 0);
    for (size_t i = 0; criterion && i < c->n_steps; i++) {
        const vec_step *step = &c->steps[i];
        float *values;
        ols_tensor_t soft_labels;
        step_number = i;
        switch (step->action) {
        case VEC_NEXT_EPOCH: check_status(ols_next_epoch(criterion, NULL), step->expect.error, step->expect.message); break;
        case VEC_SET_MODE: check_status(ols_set_mode(criterion, step->mode), step->expect.error, step->expect.message); break;
        case VEC_SET_ALPHA: check_status(ols_set_alpha(criterion, step->alpha), step->expect.error, step->expect.message); break;
        case VEC_SET_SOFT_LABELS:
            values = floats(step->values, step->n_values);
            soft_labels = ols_tensor_2d(values, OLS_DTYPE_F32, c->options.classes, (int64_t)step->n_values / c->options.classes);
            check_status(ols_set_soft_labels(criterion, &soft_labels, NULL), step->expect.error, step->expect.message);
            free(values);
            break;
        case VEC_SAVE_LOAD: criterion = save_load(criterion, c); break;
        default: run_batch(criterion, c, step);
        }
        check_state(criterion, &step->expect, c->options.classes);
    }
    ols_destroy(criterion);
    free(matrix);
}

int main(void) {
    const size_t count = sizeof vec_cases / sizeof *vec_cases;
    CHECK(count > 50 && vec_splitmix64(0, 0) == UINT64_C(0xe220a8397b1dcdaf));
    for (size_t i = 0; i < count; i++) run_case(&vec_cases[i]);
    return finish();
}
