// A library that is not libols but has its functions, for behaviour that the real one cannot be made to show. The
// environment variable FAKE selects it.
#include <ols.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fake(const char *what) {
    const char *asked = getenv("FAKE");
    return asked != NULL && strcmp(asked, what) == 0;
}

static const char *message = "";

uint32_t ols_abi_version(void) { return fake("abi") ? 99 : OLS_ABI_VERSION; }
const char *ols_version(void) { return fake("version") ? "0.77.3" : OLS_VERSION; }
const char *ols_last_error(void) { return message; }
const char *ols_status_string(int32_t status) { return status == 77 ? "FROM_THE_FUTURE" : "KNOWN"; }

ols_status_t ols_options_init(ols_options_t *options, size_t size) {
    memset(options, 0, size);
    options->struct_size = size;
    // These are not the real library's defaults.
    options->alpha = 0.125;
    options->reduction = OLS_REDUCTION_SUM;
    options->min_count = 7;
    options->device_type = OLS_DEVICE_CUDA;
    options->device_id = 3;
    return OLS_STATUS_OK;
}

ols_status_t ols_create(const ols_options_t *options, ols_criterion_t **out) {
    printf("create: alpha %g, reduction %d, min_count %d, device %d:%d, threads %d\n", options->alpha, options->reduction, (int)options->min_count,
           options->device_type, options->device_id, options->n_threads);
    fflush(stdout);
    *out = malloc(1);
    return OLS_STATUS_OK;
}

void ols_destroy(ols_criterion_t *criterion) {
    printf("destroy\n");
    fflush(stdout);
    free(criterion);
}

static void show(const char *name, const ols_tensor_t *t) {
    if (t == NULL || t->dtype_bits == 0) return;
    printf("%s: %p, device %d:%d, dtype %d/%d/%d, ndim %d, shape %lld %lld %lld, strides %lld %lld %lld, reserved %d\n", name, t->data,
           t->device_type, t->device_id, t->dtype_code, t->dtype_bits, t->dtype_lanes, t->ndim, (long long)t->shape[0], (long long)t->shape[1],
           (long long)t->shape[2], (long long)t->strides[0], (long long)t->strides[1], (long long)t->strides[2], (int)t->reserved);
}

static ols_status_t pass(const ols_batch_t *batch, const ols_tensor_t *loss, const ols_tensor_t *grad) {
    message = "";
    if (fake("status")) return message = "ols_forward: something new", 77;
    if (fake("silent")) return 77;
    printf("batch: size %d, offset %lld, stream %p, flags %d, reserved %d\n", (int)(batch->struct_size - sizeof *batch),
           (long long)batch->target_offset, batch->stream, (int)batch->flags, (int)batch->reserved);
    show("logits", &batch->logits);
    show("targets", &batch->targets);
    show("sample_weights", &batch->sample_weights);
    show("targets2", &batch->targets2);
    show("lam", &batch->lam);
    show("grad_loss", &batch->grad_loss);
    show("loss", loss);
    show("grad", grad);
    fflush(stdout);
    return OLS_STATUS_OK;
}

ols_status_t ols_forward(ols_criterion_t *criterion, const ols_batch_t *batch, const ols_tensor_t *loss, const ols_tensor_t *grad) {
    (void)criterion;
    return pass(batch, loss, grad);
}

ols_status_t ols_backward(ols_criterion_t *criterion, const ols_batch_t *batch, const ols_tensor_t *grad_loss, const ols_tensor_t *grad) {
    (void)criterion;
    return pass(batch, grad_loss, grad);
}

ols_status_t ols_next_epoch(ols_criterion_t *criterion, void *stream) {
    (void)criterion;
    printf("next_epoch: stream %p\n", stream);
    fflush(stdout);
    return OLS_STATUS_OK;
}
