// The functions of ols.h in a form that suits cgo. Each function makes one call and returns its message with the
// status: the message belongs to the thread, and a goroutine may be on another thread after the call.
//
// Structs that contain addresses are passed as 64-bit words in Go memory that holds no Go pointer. In them `data` is 0
// for host memory, whose addresses are passed as separate arguments (`char *`). This satisfies cgo's pointer rules, and
// nothing has to be pinned.
#ifndef OLSGO_CAPI_H
#define OLSGO_CAPI_H

#include <ols.h>

#if OLS_ABI_VERSION != 0
#error "this package was written for version 0 of the ABI of libols; ols.h has another one"
#endif

// The outcome of a call. The message is NULL after a successful call; otherwise the caller must free it.
typedef struct {
    ols_status_t status;
    char *message;
} olsgo_result;

// A criterion is passed as an integer, so that cgo need not check what it points to.

// The addresses of the host memory of a batch; NULL for tensors that are elsewhere or not given.
#define OLSGO_BATCH                                                                                                                        \
    const uint64_t *batch, char *logits, char *targets, char *sample_weights, char *targets2, char *lam, char *grad_loss

typedef struct {
    olsgo_result result;
    uintptr_t criterion;
} olsgo_created;

typedef struct {
    olsgo_result result;
    float *data;
    int64_t stride; // between rows, in elements
    int32_t device_type, device_id;
} olsgo_soft_labels_view;

typedef struct {
    olsgo_result result;
    int64_t *sums, *counts, *counters;
    int64_t stride; // between the rows of sums, in elements
    int32_t device_type, device_id;
} olsgo_statistics_view;

// Returns NULL, or a message, to be freed by the caller, that says why this package cannot use the loaded library.
char *olsgo_check_library(void);

olsgo_result olsgo_options_init(uint64_t *options, int32_t preset);
olsgo_created olsgo_create(const uint64_t *options, char *class_weights, char *initial_soft_labels, char *soft_labels, char *sums,
                           char *counts, char *counters);
// Sets `class_weights` and `initial_soft_labels` to the addresses of the criterion's copies; `options` contains no
// address.
olsgo_result olsgo_get_options(uintptr_t criterion, uint64_t *options, void **class_weights, void **initial_soft_labels);

void olsgo_destroy(uintptr_t criterion);

olsgo_result olsgo_forward(uintptr_t criterion, OLSGO_BATCH, const uint64_t *loss, char *loss_data, const uint64_t *grad,
                           char *grad_data);
olsgo_result olsgo_backward(uintptr_t criterion, OLSGO_BATCH, const uint64_t *given_grad_loss, char *given_grad_loss_data,
                            const uint64_t *grad, char *grad_data);
olsgo_result olsgo_accumulate(uintptr_t criterion, OLSGO_BATCH);

olsgo_result olsgo_next_epoch(uintptr_t criterion, uintptr_t stream);
olsgo_result olsgo_report(uintptr_t criterion, uintptr_t stream, uint64_t *report);
olsgo_statistics_view olsgo_statistics(uintptr_t criterion);
olsgo_soft_labels_view olsgo_soft_labels(uintptr_t criterion);
olsgo_result olsgo_set_soft_labels(uintptr_t criterion, const uint64_t *soft_labels, char *data, uintptr_t stream);

olsgo_result olsgo_set_mode(uintptr_t criterion, int32_t mode);
olsgo_result olsgo_mode(uintptr_t criterion, int32_t *mode);
olsgo_result olsgo_set_alpha(uintptr_t criterion, double alpha);
olsgo_result olsgo_epoch(uintptr_t criterion, int64_t *epoch);
olsgo_result olsgo_set_epoch(uintptr_t criterion, int64_t epoch);

olsgo_result olsgo_save(uintptr_t criterion, const char *path, uintptr_t stream);
olsgo_result olsgo_load(uintptr_t criterion, const char *path, uintptr_t stream);
olsgo_result olsgo_save_memory(uintptr_t criterion, char *buffer, size_t capacity, uintptr_t stream, size_t *size);
olsgo_result olsgo_load_memory(uintptr_t criterion, const char *buffer, size_t size, uintptr_t stream);

#endif
