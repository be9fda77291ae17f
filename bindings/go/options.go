package ols

import (
	"fmt"

	"libols/ols/internal/capi"
)

// Options are the options of a criterion. Classes must be set; every other field that is zero gets the library's
// default. Numbers are pointers, so that 0 can be distinguished from "not given"; [Ptr] creates them.
//
//	ols.Options{Classes: 10, Alpha: ols.Ptr(0.0), EmptyClass: ols.EmptyClassUniform}
type Options struct {
	// Classes is K, the number of classes, at least 2.
	Classes int
	// Preset changes the defaults of the fields that are zero.
	Preset Preset
	// Alpha is the weight of the hard label, in [0, 1]: 1 gives cross entropy, 0 gives label smoothing in the first
	// epoch. The default is 0.5.
	Alpha *float64
	// Initial selects the initial soft labels. The default is InitialSmoothing, or InitialMatrix if InitialSoftLabels is
	// given.
	Initial Initial
	// Smoothing is the smoothing of InitialSmoothing, in [0, 1]. The default is 0.1.
	Smoothing *float64
	// InitialSoftLabels is a float32 or float64 matrix of shape (K, K), one row per class, finite and >= 0. It is
	// copied, and allowed only with InitialMatrix.
	InitialSoftLabels Tensor
	// EmptyClass is the policy for classes that were not measured in an epoch. The default is EmptyClassKeep.
	EmptyClass EmptyClass
	// MinCount is the number of samples per epoch from which on a class counts as measured, at least 1. The default
	// is 1.
	MinCount *int
	// Momentum is the fraction of the old soft label that is kept in the new one, in [0, 1). The default is 0.
	Momentum *float64
	// FreezeAbove is a threshold, greater than 0: a class whose largest soft label is at least this value keeps its row
	// from then on. The default is +Inf, with which this never happens. Note that a smoothing of 0.1 puts 0.9 on the
	// diagonal, so that 0.88 would freeze every class from the start.
	FreezeAbove *float64
	// ClassWeights are w: float32 or float64 of shape (K), finite and >= 0. They are copied. Without them all are 1.
	ClassWeights Tensor
	// IgnoreIndex is the target whose samples are ignored. The default is -100.
	IgnoreIndex *int
	// Reduction is the reduction of the loss. The default is ReductionMean.
	Reduction Reduction
	// Mode is the initial mode. The default is Train.
	Mode Mode
	// Device is the device of the criterion, on which all tensors of its calls must be.
	Device Device
	// Threads is the maximum number of threads that a call uses. The default is 0: as many as the process may run on.
	// Results do not depend on it.
	Threads *int

	// SoftLabels (K, K) float32, Sums (K, K) int64, Counts (K) int64 and Counters (NumCounters) int64 may be given as
	// memory for the state; the library allocates whatever is not given. Rows must be contiguous, but may be more than
	// K elements apart. Go memory is pinned until Close. The caller may read and modify this memory while no call is in
	// progress.
	SoftLabels, Sums, Counts, Counters Tensor
	// AdoptState uses the state that this memory already holds, instead of initialising it.
	AdoptState bool
}

// Ptr returns a pointer to value, for the fields of Options.
func Ptr[T any](value T) *T { return &value }

// Initial says how the soft labels of the first epoch are initialised. 0 is the library's default.
type Initial int32

// The constants of options are those of the library plus 1, so that 0 can mean the default.
const (
	// InitialSmoothing is 1 - smoothing for the class itself and smoothing/(K-1) for every other class.
	InitialSmoothing Initial = capi.InitialSmoothing + 1
	// InitialUniform is 1/K for every class.
	InitialUniform Initial = capi.InitialUniform + 1
	// InitialZero is 0 for every class.
	InitialZero Initial = capi.InitialZero + 1
	// InitialOneHot is 1 for the class itself and 0 for every other class.
	InitialOneHot Initial = capi.InitialOneHot + 1
	// InitialMatrix is the matrix Options.InitialSoftLabels.
	InitialMatrix Initial = capi.InitialMatrix + 1
)

// String returns the name, such as "one_hot".
func (i Initial) String() string {
	return nameOf(i, "Initial", "default", "smoothing", "uniform", "zero", "one_hot", "matrix")
}

// EmptyClass says which soft label a class gets at the end of an epoch in which it was not measured. 0 is the library's
// default.
type EmptyClass int32

const (
	// EmptyClassKeep keeps the current row of the class.
	EmptyClassKeep EmptyClass = capi.EmptyClassKeep + 1
	// EmptyClassUniform is 1/K for every class, as in the authors' code.
	EmptyClassUniform EmptyClass = capi.EmptyClassUniform + 1
	// EmptyClassInitial is the row that the class had in the first epoch.
	EmptyClassInitial EmptyClass = capi.EmptyClassInitial + 1
	// EmptyClassOneHot is 1 for the class itself and 0 for every other class.
	EmptyClassOneHot EmptyClass = capi.EmptyClassOneHot + 1
	// EmptyClassZero is 0 for every class, as in the PyTorch package: the class then trains on its hard label alone.
	EmptyClassZero EmptyClass = capi.EmptyClassZero + 1
)

// String returns the name, such as "one_hot".
func (e EmptyClass) String() string {
	return nameOf(e, "EmptyClass", "default", "keep", "uniform", "initial", "one_hot", "zero")
}

// Reduction says how the losses of a batch are reduced. 0 is the library's default.
type Reduction int32

const (
	// ReductionNone is no reduction: v*loss for each sample, where v is its sample weight.
	ReductionNone Reduction = capi.ReductionNone + 1
	// ReductionMean is sum v*loss / sum v*w[y] over all samples that are not ignored; 0 if the divisor is 0.
	ReductionMean Reduction = capi.ReductionMean + 1
	// ReductionSum is sum v*loss.
	ReductionSum Reduction = capi.ReductionSum + 1
)

// String returns the name, such as "mean".
func (r Reduction) String() string { return nameOf(r, "Reduction", "default", "none", "mean", "sum") }

// Mode says whether forward passes update the statistics. In Options, 0 is the library's default.
type Mode int32

const (
	// Train is the mode in which forward passes add the predictions of correctly classified samples to the statistics.
	Train Mode = capi.ModeTrain + 1
	// Eval is the mode in which forward passes change no state.
	Eval Mode = capi.ModeEval + 1
)

// String returns the name, such as "train".
func (m Mode) String() string { return nameOf(m, "Mode", "default", "train", "eval") }

// Preset is a set of options that reproduces another implementation. 0 means none.
type Preset int32

const (
	// PresetReference reproduces the PyTorch package.
	PresetReference Preset = capi.PresetReference + 1
	// PresetPaper reproduces the code released by the authors of the paper.
	PresetPaper Preset = capi.PresetPaper + 1
)

// String returns the name, such as "paper".
func (p Preset) String() string { return nameOf(p, "Preset", "none", "reference", "paper") }

func nameOf[T ~int32](value T, kind string, names ...string) string {
	if value < 0 || int(value) >= len(names) {
		return fmt.Sprintf("%s(%d)", kind, int32(value))
	}
	return names[value]
}

// set replaces the default by a constant, unless the constant is 0. Unknown values are rejected here, because
// subtracting 1 could turn them into a valid number of the library.
func set[T ~int32](field *int32, value, last T, name string) error {
	if value < 0 || value > last {
		return &Error{InvalidArgument, fmt.Sprintf("ols.New: options: %s = %d is not one of the package's constants", name, int32(value))}
	}
	if value != 0 {
		*field = int32(value) - 1
	}
	return nil
}

func setNumber[F, V int | int32 | int64 | float64](field *F, value *V) {
	if value != nil {
		*field = F(*value)
	}
}

// setInt32 is setNumber with a check that the value fits.
func setInt32(field *int32, value *int, name string) error {
	if value != nil && int(int32(*value)) != *value {
		return &Error{InvalidArgument, fmt.Sprintf("ols.New: options: %s = %d does not fit in 32 bits", name, *value)}
	}
	setNumber(field, value)
	return nil
}

// complete returns the library's struct, including defaults, and the addresses of the memory given in the options.
func (o *Options) complete() (capi.Options, capi.OptionsData, error) {
	var options capi.Options
	var data capi.OptionsData
	var preset int32 = -1
	if err := set(&preset, o.Preset, PresetPaper, "preset"); err != nil {
		return options, data, err
	}
	if err := failure(capi.InitOptions(&options, preset)); err != nil {
		return options, data, err
	}
	initial := o.Initial
	if initial == 0 && !o.InitialSoftLabels.IsZero() {
		initial = InitialMatrix
	}
	var device int32
	if o.Device.Type != 0 {
		device = int32(o.Device.Type)
	} else {
		device = options.DeviceType
	}
	var deviceID *int
	if o.Device.ID != 0 {
		deviceID = &o.Device.ID
	}
	for _, err := range []error{
		set(&options.Initial, initial, InitialMatrix, "initial"),
		set(&options.EmptyClass, o.EmptyClass, EmptyClassZero, "empty_class"),
		set(&options.Reduction, o.Reduction, ReductionSum, "reduction"),
		set(&options.Mode, o.Mode, Eval, "mode"),
		setInt32(&options.Threads, o.Threads, "n_threads"),
		setInt32(&options.DeviceID, deviceID, "device_id"),
		o.tensors(&options, &data),
	} {
		if err != nil {
			return options, data, err
		}
	}
	options.NumClasses = int64(o.Classes)
	setNumber(&options.Alpha, o.Alpha)
	setNumber(&options.Smoothing, o.Smoothing)
	setNumber(&options.MinCount, o.MinCount)
	setNumber(&options.Momentum, o.Momentum)
	setNumber(&options.FreezeAbove, o.FreezeAbove)
	setNumber(&options.IgnoreIndex, o.IgnoreIndex)
	options.DeviceType = device
	if o.AdoptState {
		options.Flags |= capi.OptionsAdoptState
	}
	return options, data, nil
}

func (o *Options) tensors(options *capi.Options, data *capi.OptionsData) error {
	const call = "ols.New"
	for _, it := range []struct {
		name   string
		tensor *Tensor
		view   *capi.Tensor
		host   *pointer
	}{
		{"class_weights", &o.ClassWeights, &options.ClassWeights, &data.ClassWeights},
		{"initial_soft_labels", &o.InitialSoftLabels, &options.InitialSoftLabels, &data.InitialSoftLabels},
		{"soft_labels", &o.SoftLabels, &options.SoftLabels, &data.SoftLabels},
		{"sums", &o.Sums, &options.Sums, &data.Sums},
		{"counts", &o.Counts, &options.Counts, &data.Counts},
		{"counters", &o.Counters, &options.Counters, &data.Counters},
	} {
		if err := it.tensor.check(call, it.name); err != nil {
			return err
		}
		*it.view, *it.host = it.tensor.view, it.tensor.host
	}
	return nil
}
