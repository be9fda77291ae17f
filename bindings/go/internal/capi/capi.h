// The calls of ols.h in a form that suits cgo: each function makes one call and takes its message along, in a single crossing, as the message
// belongs to the thread and a goroutine may be on another one when it comes back.
//
// Structs that hold addresses arrive as 64-bit words, in Go memory that holds no Go pointer: `data` is 0 there for host memory, whose
// addresses travel as arguments of their own (`char *`), so that Go's rules for pointers hold and nothing has to be pinned.
#ifndef OLSGO_CAPI_H
#define OLSGO_CAPI_H

#include <ols.h>

#if OLS_ABI_VERSION != 0
#error "this package was written for version 0 of the ABI of libols; ols.h has another one"
#endif

// What a call came to; the message is NULL after a success, else the caller's to free.
typedef struct {
    ols_status_t status;
    char *message;
} olsgo_result;

// A criterion arrives as its address, which spares Go a look at what it points to.

// The host memory of a batch, NULL where a tensor lives elsewhere or is not given.
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

// NULL, or why the library that was loaded is not one that this package can use: to be freed.
char *olsgo_check_library(void);

olsgo_result olsgo_options_init(uint64_t *options, int32_t preset);
olsgo_created olsgo_create(const uint64_t *options, char *class_weights, char *initial_soft_labels, char *soft_labels, char *sums,
                           char *counts, char *counters);
// `class_weights` and `initial_soft_labels`: where the criterion's copies lie; `options` gets no address.
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
