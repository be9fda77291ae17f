package ols

import (
	"fmt"

	"libols/ols/internal/capi"
)

// Options is what a criterion is told at its creation. Classes must be set; whatever else is left zero has the library's default. Numbers are
// pointers, as 0 is a value like any other: [Ptr] makes one.
//
//	ols.Options{Classes: 10, Alpha: ols.Ptr(0.0), EmptyClass: ols.EmptyClassUniform}
type Options struct {
	// Classes is K, at least 2.
	Classes int
	// Preset sets other defaults for what is left zero here.
	Preset Preset
	// Alpha is the weight of the hard label in [0, 1]; 1 is cross entropy, 0 in the first epoch is label smoothing.
	Alpha *float64
	// Initial are the soft labels of the first epoch. Left zero beside an InitialSoftLabels, it is InitialMatrix.
	Initial Initial
	// Smoothing is for InitialSmoothing, in [0, 1].
	Smoothing *float64
	// InitialSoftLabels is a matrix (K, K), float32 or float64, a row per class, finite and >= 0; copied. With InitialMatrix alone.
	InitialSoftLabels Tensor
	// EmptyClass says what becomes of a class that was not measured in an epoch.
	EmptyClass EmptyClass
	// MinCount is how many samples of a class in an epoch make it measured, at least 1.
	MinCount *int
	// Momentum is the share of the old soft label in the new one, in [0, 1).
	Momentum *float64
	// FreezeAbove: a class whose largest soft label is at least this keeps its row for good; greater than 0, +Inf: never. A smoothing of 0.1
	// puts 0.9 on the diagonal, so that 0.88 freezes every class at once.
	FreezeAbove *float64
	// ClassWeights is w (K), float32 or float64, finite and >= 0; copied.
	ClassWeights Tensor
	// IgnoreIndex: a sample with this target takes no part.
	IgnoreIndex *int
	// Reduction says how the losses of a batch become one number.
	Reduction Reduction
	// Mode is the mode to begin in.
	Mode Mode
	// Device is where the tensors of a call live.
	Device Device
	// Threads is the most threads that a call may use; 0: as many as the process may run on. Results do not depend on it.
	Threads *int

	// SoftLabels (K, K) float32, Sums (K, K) int64, Counts (K) int64 and Counters (NumCounters) int64 may name memory of the caller's for the
	// state; what is not given is the library's own. Rows are contiguous and may lie further apart than K. Go memory is pinned until Close.
	// It is the caller's to read and to change while no call runs.
	SoftLabels, Sums, Counts, Counters Tensor
	// AdoptState takes the state that this memory holds over, instead of beginning anew.
	AdoptState bool
}

// Ptr makes a pointer for a field of Options.
func Ptr[T any](value T) *T { return &value }

// Initial names the soft labels of the first epoch. 0 is the library's default.
type Initial int32

// The constants of options are those of the library plus 1, so that 0 can stand for its default.
const (
	// InitialSmoothing: 1 - smoothing for the class itself, smoothing/(K-1) elsewhere.
	InitialSmoothing Initial = capi.InitialSmoothing + 1
	// InitialUniform: 1/K everywhere.
	InitialUniform Initial = capi.InitialUniform + 1
	// InitialZero: 0 everywhere.
	InitialZero Initial = capi.InitialZero + 1
	// InitialOneHot: 1 for the class itself, 0 elsewhere.
	InitialOneHot Initial = capi.InitialOneHot + 1
	// InitialMatrix: those of Options.InitialSoftLabels.
	InitialMatrix Initial = capi.InitialMatrix + 1
)

// String gives the name, such as "one_hot".
func (i Initial) String() string {
	return nameOf(i, "Initial", "default", "smoothing", "uniform", "zero", "one_hot", "matrix")
}

// EmptyClass names the soft label of a class that was not measured in an epoch. 0 is the library's default.
type EmptyClass int32

const (
	// EmptyClassKeep: the class keeps the row it has.
	EmptyClassKeep EmptyClass = capi.EmptyClassKeep + 1
	// EmptyClassUniform: 1/K everywhere, as the paper's released code does.
	EmptyClassUniform EmptyClass = capi.EmptyClassUniform + 1
	// EmptyClassInitial: the row that the class began with.
	EmptyClassInitial EmptyClass = capi.EmptyClassInitial + 1
	// EmptyClassOneHot: 1 for the class itself, 0 elsewhere.
	EmptyClassOneHot EmptyClass = capi.EmptyClassOneHot + 1
	// EmptyClassZero: 0 everywhere, as the PyTorch package does: the class then trains against its hard label alone.
	EmptyClassZero EmptyClass = capi.EmptyClassZero + 1
)

// String gives the name, such as "one_hot".
func (e EmptyClass) String() string {
	return nameOf(e, "EmptyClass", "default", "keep", "uniform", "initial", "one_hot", "zero")
}

// Reduction says how the losses of a batch become one number. 0 is the library's default.
type Reduction int32

const (
	// ReductionNone: one loss per sample, times its sample weight v.
	ReductionNone Reduction = capi.ReductionNone + 1
	// ReductionMean: sum v*loss / sum v*w[y] over the samples that take part; 0 where the divisor is 0.
	ReductionMean Reduction = capi.ReductionMean + 1
	// ReductionSum: sum v*loss.
	ReductionSum Reduction = capi.ReductionSum + 1
)

// String gives the name, such as "mean".
func (r Reduction) String() string { return nameOf(r, "Reduction", "default", "none", "mean", "sum") }

// Mode says whether a forward pass adds to the statistics. 0 is the library's default in Options.
type Mode int32

const (
	// Train: a forward pass adds the distributions of the samples that are classified right.
	Train Mode = capi.ModeTrain + 1
	// Eval: a forward pass changes no state.
	Eval Mode = capi.ModeEval + 1
)

// String gives the name, such as "train".
func (m Mode) String() string { return nameOf(m, "Mode", "default", "train", "eval") }

// Preset names options that reproduce what others do. 0 is none.
type Preset int32

const (
	// PresetReference is the PyTorch package.
	PresetReference Preset = capi.PresetReference + 1
	// PresetPaper is the released code of the paper's authors.
	PresetPaper Preset = capi.PresetPaper + 1
)

// String gives the name, such as "paper".
func (p Preset) String() string { return nameOf(p, "Preset", "none", "reference", "paper") }

func nameOf[T ~int32](value T, kind string, names ...string) string {
	if value < 0 || int(value) >= len(names) {
		return fmt.Sprintf("%s(%d)", kind, int32(value))
	}
	return names[value]
}

// set writes a constant over the default, unless it is 0. Numbers without a constant are refused here: one less would mean another thing.
func set[T ~int32](field *int32, value, last T, name string) error {
	if value < 0 || value > last {
		return &Error{InvalidArgument, fmt.Sprintf("ols.New: options: %s = %d is none of the package's constants", name, int32(value))}
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

// setInt32 is setNumber for a field that not every int fits.
func setInt32(field *int32, value *int, name string) error {
	if value != nil && int(int32(*value)) != *value {
		return &Error{InvalidArgument, fmt.Sprintf("ols.New: options: %s = %d does not fit 32 bits", name, *value)}
	}
	setNumber(field, value)
	return nil
}

// complete gives the options as the library has them, its defaults included, and the memory that they name.
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
