// The bare C call in a loop, for a language whose own calls of C cost more than what is measured: the same as bindings/cpp/bench/overhead.cpp makes.
#include <ols.h>
#include <time.h>

/// Nanoseconds per call, mean of `calls`; less than 0 where one fails.
double bare_call(ols_criterion_t *criterion, float *logits, int64_t *targets, float *gradient, int64_t n, int64_t k, int64_t calls) {
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int64_t i = 0; i < calls; i++) {
        ols_batch_t batch;
        if (ols_batch_init(&batch, sizeof batch) != OLS_STATUS_OK) return -1;
        batch.logits = ols_tensor_2d(logits, OLS_DTYPE_F32, n, k);
        batch.targets = ols_tensor_1d(targets, OLS_DTYPE_I64, n);
        float loss = 0;
        const ols_tensor_t to_loss = ols_tensor_0d(&loss, OLS_DTYPE_F32), to_grad = ols_tensor_2d(gradient, OLS_DTYPE_F32, n, k);
        if (ols_forward(criterion, &batch, &to_loss, &to_grad) != OLS_STATUS_OK) return -1;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    return ((double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec)) / (double)calls;
}

/// A criterion as the others have it; NULL where it cannot be made.
ols_criterion_t *bare_criterion(int64_t k) {
    ols_options_t options;
    ols_criterion_t *criterion;
    if (ols_options_init(&options, sizeof options) != OLS_STATUS_OK) return NULL;
    options.num_classes = k;
    options.n_threads = 1;
    return ols_create(&options, &criterion) == OLS_STATUS_OK ? criterion : NULL;
}
