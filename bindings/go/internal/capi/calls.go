// Package capi contains all cgo code: one function for each function of the C ABI. It checks nothing and owns nothing.
package capi

// #cgo noescape olsgo_options_init
// #cgo nocallback olsgo_options_init
// #cgo noescape olsgo_get_options
// #cgo nocallback olsgo_get_options
// #cgo noescape olsgo_forward
// #cgo nocallback olsgo_forward
// #cgo noescape olsgo_backward
// #cgo nocallback olsgo_backward
// #cgo noescape olsgo_accumulate
// #cgo nocallback olsgo_accumulate
// #cgo nocallback olsgo_next_epoch
// #cgo noescape olsgo_report
// #cgo nocallback olsgo_report
// #cgo noescape olsgo_set_soft_labels
// #cgo nocallback olsgo_set_soft_labels
// #cgo noescape olsgo_mode
// #cgo nocallback olsgo_mode
// #cgo noescape olsgo_epoch
// #cgo nocallback olsgo_epoch
// #cgo noescape olsgo_save_memory
// #cgo nocallback olsgo_save_memory
// #cgo noescape olsgo_load_memory
// #cgo nocallback olsgo_load_memory
// #include <stdlib.h>
// #include "capi.h"
import "C"

import (
	"sync/atomic"
	"unsafe"
)

// Criterion is an ols_criterion_t *, which does not point to Go memory; 0 means none.
type Criterion uintptr

func (c Criterion) address() C.uintptr_t { return C.uintptr_t(c) }

// BatchData holds the addresses of the host memory of a batch's tensors.
type BatchData struct {
	Logits, Targets, SampleWeights, Targets2, Lam, GradLoss unsafe.Pointer
}

// Result is the outcome of a call. The message is the library's, and empty after a successful call.
type Result struct {
	Status  int32
	Message string
}

func result(r C.olsgo_result) Result {
	if r.status == StatusOK {
		return Result{}
	}
	return failure(r)
}

func failure(r C.olsgo_result) Result {
	message := C.GoString(r.message)
	C.free(unsafe.Pointer(r.message))
	return Result{int32(r.status), message}
}

// The C side copies a struct from these words; the type `*uint64` tells cgo that they contain no Go pointer.

func tensorWords(t *Tensor) *C.uint64_t   { return (*C.uint64_t)(unsafe.Pointer(t)) }
func batchWords(b *Batch) *C.uint64_t     { return (*C.uint64_t)(unsafe.Pointer(b)) }
func optionsWords(o *Options) *C.uint64_t { return (*C.uint64_t)(unsafe.Pointer(o)) }
func reportWords(r *Report) *C.uint64_t   { return (*C.uint64_t)(unsafe.Pointer(r)) }

func bytes(data unsafe.Pointer) *C.char { return (*C.char)(data) }

// CheckLibrary says why the loaded library cannot be used, or returns "" if it can.
func CheckLibrary() string {
	text := C.olsgo_check_library()
	if text == nil {
		return ""
	}
	defer C.free(unsafe.Pointer(text))
	return C.GoString(text)
}

// LibraryVersion calls ols_version.
func LibraryVersion() string { return C.GoString(C.ols_version()) }

// StatusString calls ols_status_string.
func StatusString(status int32) string { return C.GoString(C.ols_status_string(C.int32_t(status))) }

// InitOptions fills in the library's defaults and then, if preset is not negative, applies that preset.
func InitOptions(options *Options, preset int32) Result {
	return result(C.olsgo_options_init(optionsWords(options), C.int32_t(preset)))
}

// OptionsData holds the addresses of the host memory of the options' tensors. Memory of the state must remain pinned
// until Destroy.
type OptionsData struct {
	ClassWeights, InitialSoftLabels, SoftLabels, Sums, Counts, Counters unsafe.Pointer
}

var live atomic.Int64

// Live returns the number of criteria that were created and not yet destroyed.
func Live() int64 { return live.Load() }

// Create calls ols_create.
func Create(options *Options, data *OptionsData) (Criterion, Result) {
	created := C.olsgo_create(optionsWords(options), bytes(data.ClassWeights), bytes(data.InitialSoftLabels), bytes(data.SoftLabels),
		bytes(data.Sums), bytes(data.Counts), bytes(data.Counters))
	r := result(created.result)
	if r.Status == StatusOK {
		live.Add(1)
	}
	return Criterion(created.criterion), r
}

// Destroy calls ols_destroy.
func Destroy(c Criterion) {
	C.olsgo_destroy(c.address())
	live.Add(-1)
}

// GetOptions calls ols_get_options; the addresses are those of the criterion's own copies, or nil.
func GetOptions(c Criterion, options *Options) (classWeights, initialSoftLabels unsafe.Pointer, r Result) {
	r = result(C.olsgo_get_options(c.address(), optionsWords(options), &classWeights, &initialSoftLabels))
	return classWeights, initialSoftLabels, r
}

// Forward calls ols_forward. loss or grad is nil if it is not wanted.
func Forward(c Criterion, batch *Batch, data *BatchData, loss *Tensor, lossData unsafe.Pointer, grad *Tensor, gradData unsafe.Pointer) Result {
	return result(C.olsgo_forward(c.address(), batchWords(batch), bytes(data.Logits), bytes(data.Targets), bytes(data.SampleWeights),
		bytes(data.Targets2), bytes(data.Lam), bytes(data.GradLoss), tensorWords(loss), bytes(lossData), tensorWords(grad), bytes(gradData)))
}

// Backward calls ols_backward.
func Backward(c Criterion, batch *Batch, data *BatchData, gradLoss *Tensor, gradLossData unsafe.Pointer, grad *Tensor, gradData unsafe.Pointer) Result {
	return result(C.olsgo_backward(c.address(), batchWords(batch), bytes(data.Logits), bytes(data.Targets), bytes(data.SampleWeights),
		bytes(data.Targets2), bytes(data.Lam), bytes(data.GradLoss), tensorWords(gradLoss), bytes(gradLossData), tensorWords(grad),
		bytes(gradData)))
}

// Accumulate calls ols_accumulate.
func Accumulate(c Criterion, batch *Batch, data *BatchData) Result {
	return result(C.olsgo_accumulate(c.address(), batchWords(batch), bytes(data.Logits), bytes(data.Targets), bytes(data.SampleWeights),
		bytes(data.Targets2), bytes(data.Lam), bytes(data.GradLoss)))
}

// NextEpoch calls ols_next_epoch.
func NextEpoch(c Criterion, stream uintptr) Result {
	return result(C.olsgo_next_epoch(c.address(), C.uintptr_t(stream)))
}

// GetReport calls ols_report.
func GetReport(c Criterion, stream uintptr, report *Report) Result {
	return result(C.olsgo_report(c.address(), C.uintptr_t(stream), reportWords(report)))
}

// StatisticsView says where the statistics are. Addresses on a device cannot be read by the host.
type StatisticsView struct {
	Sums, Counts, Counters unsafe.Pointer
	Stride                 int
	DeviceType, DeviceID   int32
}

// Statistics calls ols_statistics.
func Statistics(c Criterion) (StatisticsView, Result) {
	view := C.olsgo_statistics(c.address())
	return StatisticsView{
		unsafe.Pointer(view.sums), unsafe.Pointer(view.counts), unsafe.Pointer(view.counters), int(view.stride),
		int32(view.device_type), int32(view.device_id),
	}, result(view.result)
}

// SoftLabelsView says where S is, like StatisticsView.
type SoftLabelsView struct {
	Data                 unsafe.Pointer
	Stride               int
	DeviceType, DeviceID int32
}

// SoftLabels calls ols_soft_labels.
func SoftLabels(c Criterion) (SoftLabelsView, Result) {
	view := C.olsgo_soft_labels(c.address())
	return SoftLabelsView{unsafe.Pointer(view.data), int(view.stride), int32(view.device_type), int32(view.device_id)}, result(view.result)
}

// SetSoftLabels calls ols_set_soft_labels.
func SetSoftLabels(c Criterion, softLabels *Tensor, data unsafe.Pointer, stream uintptr) Result {
	return result(C.olsgo_set_soft_labels(c.address(), tensorWords(softLabels), bytes(data), C.uintptr_t(stream)))
}

// SetMode calls ols_set_mode.
func SetMode(c Criterion, mode int32) Result {
	return result(C.olsgo_set_mode(c.address(), C.int32_t(mode)))
}

// Mode calls ols_mode.
func Mode(c Criterion) (int32, Result) {
	var mode C.int32_t
	r := result(C.olsgo_mode(c.address(), &mode))
	return int32(mode), r
}

// SetAlpha calls ols_set_alpha.
func SetAlpha(c Criterion, alpha float64) Result {
	return result(C.olsgo_set_alpha(c.address(), C.double(alpha)))
}

// Epoch calls ols_epoch.
func Epoch(c Criterion) (int64, Result) {
	var epoch C.int64_t
	r := result(C.olsgo_epoch(c.address(), &epoch))
	return int64(epoch), r
}

// SetEpoch calls ols_set_epoch.
func SetEpoch(c Criterion, epoch int64) Result {
	return result(C.olsgo_set_epoch(c.address(), C.int64_t(epoch)))
}

// Save calls ols_save.
func Save(c Criterion, path string, stream uintptr) Result {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	return result(C.olsgo_save(c.address(), name, C.uintptr_t(stream)))
}

// Load calls ols_load.
func Load(c Criterion, path string, stream uintptr) Result {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	return result(C.olsgo_load(c.address(), name, C.uintptr_t(stream)))
}

// SaveMemory calls ols_save_memory; with an empty buffer it only queries the size.
func SaveMemory(c Criterion, buffer []byte, stream uintptr) (int, Result) {
	var size C.size_t
	r := result(C.olsgo_save_memory(c.address(), bytes(unsafe.Pointer(unsafe.SliceData(buffer))), C.size_t(len(buffer)), C.uintptr_t(stream), &size))
	return int(size), r
}

// LoadMemory calls ols_load_memory.
func LoadMemory(c Criterion, buffer []byte, stream uintptr) Result {
	if len(buffer) == 0 {
		// An empty buffer is a truncated file, not a missing argument, so it needs an address.
		buffer = make([]byte, 1)[:0]
	}
	return result(C.olsgo_load_memory(c.address(), bytes(unsafe.Pointer(unsafe.SliceData(buffer))), C.size_t(len(buffer)), C.uintptr_t(stream)))
}
