package capi

// #include <ols.h>
import "C"

import "unsafe"

// The structs of ols.h, field by field. Addresses are of type uintptr: those of host memory are 0 and are passed
// separately (see capi.h), those of device memory are as given by the caller.

// Tensor is an ols_tensor_t. A zero Tensor means "not given".
type Tensor struct {
	Address    uintptr
	DeviceType int32
	DeviceID   int32
	Code       uint8
	Bits       uint8
	Lanes      uint16
	NDim       int32
	Shape      [3]int64
	Strides    [3]int64
	Reserved   uint64
}

// Options is an ols_options_t.
type Options struct {
	StructSize        uintptr
	NumClasses        int64
	Alpha             float64
	Smoothing         float64
	Momentum          float64
	FreezeAbove       float64
	MinCount          int64
	IgnoreIndex       int64
	Initial           int32
	EmptyClass        int32
	Reduction         int32
	Mode              int32
	DeviceType        int32
	DeviceID          int32
	Threads           int32
	Flags             uint32
	ClassWeights      Tensor
	InitialSoftLabels Tensor
	SoftLabels        Tensor
	Sums              Tensor
	Counts            Tensor
	Counters          Tensor
}

// Batch is an ols_batch_t.
type Batch struct {
	StructSize    uintptr
	Logits        Tensor
	Targets       Tensor
	SampleWeights Tensor
	Targets2      Tensor
	Lam           Tensor
	GradLoss      Tensor
	TargetOffset  int64
	Stream        uintptr
	Flags         uint32
	Reserved      uint32
}

// Report is an ols_report_t.
type Report struct {
	StructSize                uintptr
	Epoch                     int64
	RowsMeasured              int64
	RowsKept                  int64
	RowsUniform               int64
	RowsInitial               int64
	RowsOneHot                int64
	RowsZero                  int64
	RowsFrozen                int64
	SamplesAccumulated        int64
	SamplesSkipped            int64
	ClassesFull               int64
	TargetsOutOfRange         int64
	RunningEpoch              int64
	RunningSamplesAccumulated int64
	RunningSamplesSkipped     int64
	RunningClassesFull        int64
	RunningTargetsOutOfRange  int64
}

// This compiles only if the sizes and offsets are those of C: the index is a constant, and the array has one element.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(Tensor{})-unsafe.Sizeof(C.ols_tensor_t{})]
	_ = [1]struct{}{}[unsafe.Sizeof(Options{})-unsafe.Sizeof(C.ols_options_t{})]
	_ = [1]struct{}{}[unsafe.Sizeof(Batch{})-unsafe.Sizeof(C.ols_batch_t{})]
	_ = [1]struct{}{}[unsafe.Sizeof(Report{})-unsafe.Sizeof(C.ols_report_t{})]
)

var (
	_ = [1]struct{}{}[unsafe.Offsetof(Tensor{}.Address)-unsafe.Offsetof(C.ols_tensor_t{}.data)]
	_ = [1]struct{}{}[unsafe.Offsetof(Tensor{}.DeviceType)-unsafe.Offsetof(C.ols_tensor_t{}.device_type)]
	_ = [1]struct{}{}[unsafe.Offsetof(Tensor{}.DeviceID)-unsafe.Offsetof(C.ols_tensor_t{}.device_id)]
	_ = [1]struct{}{}[unsafe.Offsetof(Tensor{}.Code)-unsafe.Offsetof(C.ols_tensor_t{}.dtype_code)]
	_ = [1]struct{}{}[unsafe.Offsetof(Tensor{}.Bits)-unsafe.Offsetof(C.ols_tensor_t{}.dtype_bits)]
	_ = [1]struct{}{}[unsafe.Offsetof(Tensor{}.Lanes)-unsafe.Offsetof(C.ols_tensor_t{}.dtype_lanes)]
	_ = [1]struct{}{}[unsafe.Offsetof(Tensor{}.NDim)-unsafe.Offsetof(C.ols_tensor_t{}.ndim)]
	_ = [1]struct{}{}[unsafe.Offsetof(Tensor{}.Shape)-unsafe.Offsetof(C.ols_tensor_t{}.shape)]
	_ = [1]struct{}{}[unsafe.Offsetof(Tensor{}.Strides)-unsafe.Offsetof(C.ols_tensor_t{}.strides)]
	_ = [1]struct{}{}[unsafe.Offsetof(Tensor{}.Reserved)-unsafe.Offsetof(C.ols_tensor_t{}.reserved)]
)

var (
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.StructSize)-unsafe.Offsetof(C.ols_options_t{}.struct_size)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.NumClasses)-unsafe.Offsetof(C.ols_options_t{}.num_classes)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.Alpha)-unsafe.Offsetof(C.ols_options_t{}.alpha)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.Smoothing)-unsafe.Offsetof(C.ols_options_t{}.smoothing)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.Momentum)-unsafe.Offsetof(C.ols_options_t{}.momentum)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.FreezeAbove)-unsafe.Offsetof(C.ols_options_t{}.freeze_above)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.MinCount)-unsafe.Offsetof(C.ols_options_t{}.min_count)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.IgnoreIndex)-unsafe.Offsetof(C.ols_options_t{}.ignore_index)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.Initial)-unsafe.Offsetof(C.ols_options_t{}.initial)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.EmptyClass)-unsafe.Offsetof(C.ols_options_t{}.empty_class)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.Reduction)-unsafe.Offsetof(C.ols_options_t{}.reduction)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.Mode)-unsafe.Offsetof(C.ols_options_t{}.mode)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.DeviceType)-unsafe.Offsetof(C.ols_options_t{}.device_type)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.DeviceID)-unsafe.Offsetof(C.ols_options_t{}.device_id)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.Threads)-unsafe.Offsetof(C.ols_options_t{}.n_threads)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.Flags)-unsafe.Offsetof(C.ols_options_t{}.flags)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.ClassWeights)-unsafe.Offsetof(C.ols_options_t{}.class_weights)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.InitialSoftLabels)-unsafe.Offsetof(C.ols_options_t{}.initial_soft_labels)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.SoftLabels)-unsafe.Offsetof(C.ols_options_t{}.soft_labels)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.Sums)-unsafe.Offsetof(C.ols_options_t{}.sums)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.Counts)-unsafe.Offsetof(C.ols_options_t{}.counts)]
	_ = [1]struct{}{}[unsafe.Offsetof(Options{}.Counters)-unsafe.Offsetof(C.ols_options_t{}.counters)]
)

var (
	_ = [1]struct{}{}[unsafe.Offsetof(Batch{}.StructSize)-unsafe.Offsetof(C.ols_batch_t{}.struct_size)]
	_ = [1]struct{}{}[unsafe.Offsetof(Batch{}.Logits)-unsafe.Offsetof(C.ols_batch_t{}.logits)]
	_ = [1]struct{}{}[unsafe.Offsetof(Batch{}.Targets)-unsafe.Offsetof(C.ols_batch_t{}.targets)]
	_ = [1]struct{}{}[unsafe.Offsetof(Batch{}.SampleWeights)-unsafe.Offsetof(C.ols_batch_t{}.sample_weights)]
	_ = [1]struct{}{}[unsafe.Offsetof(Batch{}.Targets2)-unsafe.Offsetof(C.ols_batch_t{}.targets2)]
	_ = [1]struct{}{}[unsafe.Offsetof(Batch{}.Lam)-unsafe.Offsetof(C.ols_batch_t{}.lam)]
	_ = [1]struct{}{}[unsafe.Offsetof(Batch{}.GradLoss)-unsafe.Offsetof(C.ols_batch_t{}.grad_loss)]
	_ = [1]struct{}{}[unsafe.Offsetof(Batch{}.TargetOffset)-unsafe.Offsetof(C.ols_batch_t{}.target_offset)]
	_ = [1]struct{}{}[unsafe.Offsetof(Batch{}.Stream)-unsafe.Offsetof(C.ols_batch_t{}.stream)]
	_ = [1]struct{}{}[unsafe.Offsetof(Batch{}.Flags)-unsafe.Offsetof(C.ols_batch_t{}.flags)]
	_ = [1]struct{}{}[unsafe.Offsetof(Batch{}.Reserved)-unsafe.Offsetof(C.ols_batch_t{}.reserved)]
)

var (
	_ = [1]struct{}{}[unsafe.Offsetof(Report{}.StructSize)-unsafe.Offsetof(C.ols_report_t{}.struct_size)]
	_ = [1]struct{}{}[unsafe.Offsetof(Report{}.Epoch)-unsafe.Offsetof(C.ols_report_t{}.epoch)]
	_ = [1]struct{}{}[unsafe.Offsetof(Report{}.RowsMeasured)-unsafe.Offsetof(C.ols_report_t{}.rows_measured)]
	_ = [1]struct{}{}[unsafe.Offsetof(Report{}.RowsKept)-unsafe.Offsetof(C.ols_report_t{}.rows_kept)]
	_ = [1]struct{}{}[unsafe.Offsetof(Report{}.RowsUniform)-unsafe.Offsetof(C.ols_report_t{}.rows_uniform)]
	_ = [1]struct{}{}[unsafe.Offsetof(Report{}.RowsInitial)-unsafe.Offsetof(C.ols_report_t{}.rows_initial)]
	_ = [1]struct{}{}[unsafe.Offsetof(Report{}.RowsOneHot)-unsafe.Offsetof(C.ols_report_t{}.rows_one_hot)]
	_ = [1]struct{}{}[unsafe.Offsetof(Report{}.RowsZero)-unsafe.Offsetof(C.ols_report_t{}.rows_zero)]
	_ = [1]struct{}{}[unsafe.Offsetof(Report{}.RowsFrozen)-unsafe.Offsetof(C.ols_report_t{}.rows_frozen)]
	_ = [1]struct{}{}[unsafe.Offsetof(Report{}.SamplesAccumulated)-unsafe.Offsetof(C.ols_report_t{}.samples_accumulated)]
	_ = [1]struct{}{}[unsafe.Offsetof(Report{}.SamplesSkipped)-unsafe.Offsetof(C.ols_report_t{}.samples_skipped)]
	_ = [1]struct{}{}[unsafe.Offsetof(Report{}.ClassesFull)-unsafe.Offsetof(C.ols_report_t{}.classes_full)]
	_ = [1]struct{}{}[unsafe.Offsetof(Report{}.TargetsOutOfRange)-unsafe.Offsetof(C.ols_report_t{}.targets_out_of_range)]
	_ = [1]struct{}{}[unsafe.Offsetof(Report{}.RunningEpoch)-unsafe.Offsetof(C.ols_report_t{}.running_epoch)]
	_ = [1]struct{}{}[unsafe.Offsetof(Report{}.RunningSamplesAccumulated)-unsafe.Offsetof(C.ols_report_t{}.running_samples_accumulated)]
	_ = [1]struct{}{}[unsafe.Offsetof(Report{}.RunningSamplesSkipped)-unsafe.Offsetof(C.ols_report_t{}.running_samples_skipped)]
	_ = [1]struct{}{}[unsafe.Offsetof(Report{}.RunningClassesFull)-unsafe.Offsetof(C.ols_report_t{}.running_classes_full)]
	_ = [1]struct{}{}[unsafe.Offsetof(Report{}.RunningTargetsOutOfRange)-unsafe.Offsetof(C.ols_report_t{}.running_targets_out_of_range)]
)
