// dladdr
#define _GNU_SOURCE

#include "capi.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static olsgo_result result_of(ols_status_t status) {
    // If there is no memory for the message, the status must suffice.
    const olsgo_result result = {status, status == OLS_STATUS_OK ? NULL : strdup(ols_last_error())};
    return result;
}

char *olsgo_check_library(void) {
    const char *version = ols_version();
    char same[32];
    Dl_info info;
    const char *path = dladdr((const void *)(uintptr_t)&ols_abi_version, &info) && info.dli_fname ? info.dli_fname : "of unknown path";
    // Before 1.0 the ABI may change with each minor version, while its number remains 0.
    const int written = snprintf(same, sizeof same, "%d.%d.", OLS_VERSION_MAJOR, OLS_VERSION_MINOR);
    const int is_same = ols_abi_version() == OLS_ABI_VERSION && (OLS_ABI_VERSION != 0 || strncmp(version, same, (size_t)written) == 0);
    if (is_same) return NULL;
    char *text = malloc(512);
    if (text == NULL) abort();
    snprintf(text, 512, "the library %s has version %s with ABI %u; this program was built for version %s with ABI %u", path, version,
             (unsigned)ols_abi_version(), OLS_VERSION, (unsigned)OLS_ABI_VERSION);
    return text;
}

static void host(ols_tensor_t *tensor, char *data) {
    if (data != NULL) tensor->data = data;
}

static ols_tensor_t tensor_of(const uint64_t *words, char *data) {
    ols_tensor_t tensor;
    memcpy(&tensor, words, sizeof tensor);
    host(&tensor, data);
    return tensor;
}

static inline void set_batch(ols_batch_t *whole, OLSGO_BATCH) {
    memcpy(whole, batch, sizeof *whole);
    host(&whole->logits, logits);
    host(&whole->targets, targets);
    host(&whole->sample_weights, sample_weights);
    host(&whole->targets2, targets2);
    host(&whole->lam, lam);
    host(&whole->grad_loss, grad_loss);
}

#define SET_BATCH(whole) set_batch(&whole, batch, logits, targets, sample_weights, targets2, lam, grad_loss)

olsgo_result olsgo_options_init(uint64_t *options, int32_t preset) {
    ols_options_t whole;
    ols_status_t status = ols_options_init(&whole, sizeof whole);
    if (status == OLS_STATUS_OK && preset >= 0) status = ols_options_preset(&whole, preset);
    if (status == OLS_STATUS_OK) memcpy(options, &whole, sizeof whole);
    return result_of(status);
}

olsgo_created olsgo_create(const uint64_t *options, char *class_weights, char *initial_soft_labels, char *soft_labels, char *sums,
                           char *counts, char *counters) {
    ols_options_t whole;
    memcpy(&whole, options, sizeof whole);
    host(&whole.class_weights, class_weights);
    host(&whole.initial_soft_labels, initial_soft_labels);
    host(&whole.soft_labels, soft_labels);
    host(&whole.sums, sums);
    host(&whole.counts, counts);
    host(&whole.counters, counters);
    olsgo_created created;
    ols_criterion_t *criterion = NULL;
    created.result = result_of(ols_create(&whole, &criterion));
    created.criterion = (uintptr_t)criterion;
    return created;
}

olsgo_result olsgo_get_options(uintptr_t criterion, uint64_t *options, void **class_weights, void **initial_soft_labels) {
    ols_options_t whole;
    whole.struct_size = sizeof whole;
    const olsgo_result result = result_of(ols_get_options((ols_criterion_t *)criterion, &whole));
    if (result.status != OLS_STATUS_OK) return result;
    *class_weights = whole.class_weights.data;
    *initial_soft_labels = whole.initial_soft_labels.data;
    whole.class_weights.data = whole.initial_soft_labels.data = NULL;
    memcpy(options, &whole, sizeof whole);
    return result;
}

void olsgo_destroy(uintptr_t criterion) { ols_destroy((ols_criterion_t *)criterion); }

olsgo_result olsgo_forward(uintptr_t criterion, OLSGO_BATCH, const uint64_t *loss, char *loss_data, const uint64_t *grad,
                           char *grad_data) {
    ols_batch_t whole;
    SET_BATCH(whole);
    ols_tensor_t to_loss, to_grad;
    if (loss != NULL) to_loss = tensor_of(loss, loss_data);
    if (grad != NULL) to_grad = tensor_of(grad, grad_data);
    return result_of(ols_forward((ols_criterion_t *)criterion, &whole, loss ? &to_loss : NULL, grad ? &to_grad : NULL));
}

olsgo_result olsgo_backward(uintptr_t criterion, OLSGO_BATCH, const uint64_t *given_grad_loss, char *given_grad_loss_data,
                            const uint64_t *grad, char *grad_data) {
    ols_batch_t whole;
    SET_BATCH(whole);
    ols_tensor_t from_behind, to_grad;
    if (given_grad_loss != NULL) from_behind = tensor_of(given_grad_loss, given_grad_loss_data);
    if (grad != NULL) to_grad = tensor_of(grad, grad_data);
    return result_of(ols_backward((ols_criterion_t *)criterion, &whole, given_grad_loss ? &from_behind : NULL, grad ? &to_grad : NULL));
}

olsgo_result olsgo_accumulate(uintptr_t criterion, OLSGO_BATCH) {
    ols_batch_t whole;
    SET_BATCH(whole);
    return result_of(ols_accumulate((ols_criterion_t *)criterion, &whole));
}

olsgo_result olsgo_next_epoch(uintptr_t criterion, uintptr_t stream) { return result_of(ols_next_epoch((ols_criterion_t *)criterion, (void *)stream)); }

olsgo_result olsgo_report(uintptr_t criterion, uintptr_t stream, uint64_t *report) {
    ols_report_t whole;
    whole.struct_size = sizeof whole;
    const ols_status_t status = ols_report((ols_criterion_t *)criterion, (void *)stream, &whole);
    if (status == OLS_STATUS_OK) memcpy(report, &whole, sizeof whole);
    return result_of(status);
}

olsgo_statistics_view olsgo_statistics(uintptr_t criterion) {
    ols_statistics_t statistics;
    statistics.struct_size = sizeof statistics;
    olsgo_statistics_view view;
    memset(&view, 0, sizeof view);
    view.result = result_of(ols_statistics((ols_criterion_t *)criterion, &statistics));
    if (view.result.status != OLS_STATUS_OK) return view;
    view.sums = statistics.sums.data;
    view.counts = statistics.counts.data;
    view.counters = statistics.counters.data;
    view.stride = statistics.sums.strides[0];
    view.device_type = statistics.sums.device_type;
    view.device_id = statistics.sums.device_id;
    return view;
}

olsgo_soft_labels_view olsgo_soft_labels(uintptr_t criterion) {
    ols_tensor_t soft_labels;
    olsgo_soft_labels_view view;
    memset(&view, 0, sizeof view);
    view.result = result_of(ols_soft_labels((ols_criterion_t *)criterion, &soft_labels));
    if (view.result.status != OLS_STATUS_OK) return view;
    view.data = soft_labels.data;
    view.stride = soft_labels.strides[0];
    view.device_type = soft_labels.device_type;
    view.device_id = soft_labels.device_id;
    return view;
}

olsgo_result olsgo_set_soft_labels(uintptr_t criterion, const uint64_t *soft_labels, char *data, uintptr_t stream) {
    ols_tensor_t tensor;
    if (soft_labels != NULL) tensor = tensor_of(soft_labels, data);
    return result_of(ols_set_soft_labels((ols_criterion_t *)criterion, soft_labels ? &tensor : NULL, (void *)stream));
}

olsgo_result olsgo_set_mode(uintptr_t criterion, int32_t mode) { return result_of(ols_set_mode((ols_criterion_t *)criterion, mode)); }
olsgo_result olsgo_mode(uintptr_t criterion, int32_t *mode) { return result_of(ols_mode((ols_criterion_t *)criterion, mode)); }
olsgo_result olsgo_set_alpha(uintptr_t criterion, double alpha) { return result_of(ols_set_alpha((ols_criterion_t *)criterion, alpha)); }
olsgo_result olsgo_epoch(uintptr_t criterion, int64_t *epoch) { return result_of(ols_epoch((ols_criterion_t *)criterion, epoch)); }
olsgo_result olsgo_set_epoch(uintptr_t criterion, int64_t epoch) { return result_of(ols_set_epoch((ols_criterion_t *)criterion, epoch)); }

olsgo_result olsgo_save(uintptr_t criterion, const char *path, uintptr_t stream) {
    return result_of(ols_save((ols_criterion_t *)criterion, path, (void *)stream));
}

olsgo_result olsgo_load(uintptr_t criterion, const char *path, uintptr_t stream) {
    return result_of(ols_load((ols_criterion_t *)criterion, path, (void *)stream));
}

olsgo_result olsgo_save_memory(uintptr_t criterion, char *buffer, size_t capacity, uintptr_t stream, size_t *size) {
    return result_of(ols_save_memory((ols_criterion_t *)criterion, buffer, capacity, (void *)stream, size));
}

olsgo_result olsgo_load_memory(uintptr_t criterion, const char *buffer, size_t size, uintptr_t stream) {
    return result_of(ols_load_memory((ols_criterion_t *)criterion, buffer, size, (void *)stream));
}
