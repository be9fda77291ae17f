// Package bare calls libols from C in a loop, as the baseline for benchmarks of this module. Only tests and benchmarks
// import it.
package bare

/*
#cgo noescape olsgo_bare_loop
#cgo nocallback olsgo_bare_loop

#include <stdlib.h>
#include <time.h>
#include <ols.h>

typedef struct {
    ols_criterion_t *criterion;
    float *logits, *grad;
    int64_t *targets;
    int64_t n, k;
} olsgo_bare;

static ols_status_t olsgo_bare_init(olsgo_bare *bare) {
    ols_options_t options;
    ols_status_t status = ols_options_init(&options, sizeof options);
    if (status != OLS_STATUS_OK) return status;
    options.num_classes = bare->k;
    return ols_create(&options, &bare->criterion);
}

// What a C program does for each batch. Returns the elapsed nanoseconds, or a negative number on failure.
static int64_t olsgo_bare_loop(const olsgo_bare *bare, float *logits, float *grad, int64_t *targets, int64_t calls) {
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int64_t i = 0; i < calls; i++) {
        float loss;
        ols_batch_t batch;
        if (ols_batch_init(&batch, sizeof batch) != OLS_STATUS_OK) return -1;
        batch.logits = ols_tensor_2d(logits, OLS_DTYPE_F32, bare->n, bare->k);
        batch.targets = ols_tensor_1d(targets, OLS_DTYPE_I64, bare->n);
        const ols_tensor_t to_loss = ols_tensor_0d(&loss, OLS_DTYPE_F32);
        const ols_tensor_t to_grad = ols_tensor_2d(grad, OLS_DTYPE_F32, bare->n, bare->k);
        if (ols_forward(bare->criterion, &batch, &to_loss, &to_grad) != OLS_STATUS_OK) return -1;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (int64_t)(end.tv_sec - begin.tv_sec) * 1000000000 + (end.tv_nsec - begin.tv_nsec);
}
*/
import "C"

import (
	"errors"
	"time"
	"unsafe"
)

// Loop is a criterion with default options that is called from C.
type Loop struct {
	bare C.olsgo_bare
}

// New creates a loop over batches of (n, k) float32.
func New(n, k int) (*Loop, error) {
	loop := &Loop{C.olsgo_bare{n: C.int64_t(n), k: C.int64_t(k)}}
	if C.olsgo_bare_init(&loop.bare) != C.OLS_STATUS_OK {
		return nil, errors.New(C.GoString(C.ols_last_error()))
	}
	return loop, nil
}

// Close destroys the criterion.
func (l *Loop) Close() { C.ols_destroy(l.bare.criterion) }

// Run calls ols_forward for loss and gradient repeatedly on the same memory, and returns the elapsed time of all calls.
func (l *Loop) Run(logits []float32, targets []int64, grad []float32, calls int) (time.Duration, error) {
	elapsed := C.olsgo_bare_loop(&l.bare, (*C.float)(unsafe.SliceData(logits)), (*C.float)(unsafe.SliceData(grad)),
		(*C.int64_t)(unsafe.SliceData(targets)), C.int64_t(calls))
	if elapsed < 0 {
		return 0, errors.New("the loop over ols_forward failed")
	}
	return time.Duration(elapsed), nil
}
