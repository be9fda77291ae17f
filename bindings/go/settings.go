package ols

import (
	"fmt"
	"unsafe"

	"libols/ols/internal/capi"
)

// SetMode sets the mode, Train or Eval, which determines whether forward passes update the statistics.
func (c *Criterion) SetMode(mode Mode) error {
	core, err := c.use()
	if err != nil {
		return err
	}
	defer core.mutex.RUnlock()
	if mode < Train || mode > Eval {
		return &Error{InvalidArgument, fmt.Sprintf("ols.SetMode: mode = %d is neither Train nor Eval", int32(mode))}
	}
	return failure(capi.SetMode(core.handle, int32(mode)-1))
}

// Mode returns the mode.
func (c *Criterion) Mode() (Mode, error) {
	core, err := c.use()
	if err != nil {
		return 0, err
	}
	defer core.mutex.RUnlock()
	mode, result := capi.Mode(core.handle)
	if err := failure(result); err != nil {
		return 0, err
	}
	return Mode(mode + 1), nil
}

// SetAlpha sets the weight of the hard label, in [0, 1], for example to follow a schedule. It takes effect with the
// next call.
func (c *Criterion) SetAlpha(alpha float64) error {
	core, err := c.use()
	if err != nil {
		return err
	}
	defer core.mutex.RUnlock()
	return failure(capi.SetAlpha(core.handle, alpha))
}

// Epoch returns the number of completed epochs, initially 0.
func (c *Criterion) Epoch() (int64, error) {
	core, err := c.use()
	if err != nil {
		return 0, err
	}
	defer core.mutex.RUnlock()
	epoch, result := capi.Epoch(core.handle)
	return epoch, failure(result)
}

// SetEpoch sets the number of completed epochs, for callers that save and restore the state themselves.
func (c *Criterion) SetEpoch(epoch int64) error {
	core, err := c.use()
	if err != nil {
		return err
	}
	defer core.mutex.RUnlock()
	return failure(capi.SetEpoch(core.handle, epoch))
}

// Options returns the current options: Alpha and Mode as set last, and the options that a Load has replaced. All
// defaults are filled in. The memory of the state and AdoptState are omitted, so that the options can be used to create
// another criterion with a state of its own.
func (c *Criterion) Options() (Options, error) {
	// Exclusive, because the views of the weights and the initial soft labels are valid only until the next Load.
	core, err := c.useAlone()
	if err != nil {
		return Options{}, err
	}
	defer core.mutex.Unlock()
	var all capi.Options
	weights, matrix, result := capi.GetOptions(core.handle, &all)
	if err := failure(result); err != nil {
		return Options{}, err
	}
	minCount, ignoreIndex, threads := int(all.MinCount), int(all.IgnoreIndex), int(all.Threads)
	options := Options{
		Classes:     int(all.NumClasses),
		Alpha:       &all.Alpha,
		Initial:     Initial(all.Initial + 1),
		Smoothing:   &all.Smoothing,
		EmptyClass:  EmptyClass(all.EmptyClass + 1),
		MinCount:    &minCount,
		Momentum:    &all.Momentum,
		FreezeAbove: &all.FreezeAbove,
		IgnoreIndex: &ignoreIndex,
		Reduction:   Reduction(all.Reduction + 1),
		Mode:        Mode(all.Mode + 1),
		Device:      Device{DeviceType(all.DeviceType), int(all.DeviceID)},
		Threads:     &threads,
	}
	k := core.classes
	if weights != nil {
		options.ClassWeights = Vector(append([]float64{}, unsafe.Slice((*float64)(weights), k)...))
	}
	if matrix != nil {
		options.InitialSoftLabels = Matrix(rowsOf[float32](matrix, k, int(all.InitialSoftLabels.Strides[0])).compact(), k, k)
	}
	return options, nil
}

// Report summarises the last completed epoch and the current epoch so far. RowsMeasured and the other Rows fields add
// up to K.
type Report struct {
	// Epoch is the number of the last completed epoch, counted from 1. It is 0, like all other fields for that epoch,
	// if no epoch has ended since the criterion was created or a state was loaded.
	Epoch int64
	// RowsMeasured is the number of classes whose new soft label was measured.
	RowsMeasured int64
	// RowsKept is the number of classes that kept their row, by EmptyClassKeep or because nothing at all was
	// accumulated.
	RowsKept int64
	// RowsUniform, RowsInitial, RowsOneHot and RowsZero are the numbers of classes that got a row by the policy of that
	// name.
	RowsUniform, RowsInitial, RowsOneHot, RowsZero int64
	// RowsFrozen is the number of classes that kept their row because of FreezeAbove.
	RowsFrozen int64
	// SamplesAccumulated is the number of samples that were accumulated, that is, classified correctly.
	SamplesAccumulated int64
	// SamplesSkipped is the number of samples that were skipped because their logits contain NaN or +Inf, or are -Inf
	// throughout.
	SamplesSkipped int64
	// ClassesFull is the number of classes that were full and accepted no more samples.
	ClassesFull int64
	// TargetsOutOfRange is the number of targets that were neither a class nor the ignore index (CUDA only; an error on
	// the CPU).
	TargetsOutOfRange int64
	// RunningEpoch is the number of the current epoch, counted from 1. The other Running fields are about this epoch so
	// far.
	RunningEpoch, RunningSamplesAccumulated, RunningSamplesSkipped, RunningClassesFull, RunningTargetsOutOfRange int64
}

// Report returns a summary of the last completed epoch and of the current one. On CUDA it is the only call of a
// training loop that may wait for the device.
func (c *Criterion) Report(on ...Stream) (Report, error) {
	var r capi.Report
	if err := c.onStream(on, func(handle capi.Criterion, stream uintptr) capi.Result { return capi.GetReport(handle, stream, &r) }); err != nil {
		return Report{}, err
	}
	return Report{
		Epoch:                     r.Epoch,
		RowsMeasured:              r.RowsMeasured,
		RowsKept:                  r.RowsKept,
		RowsUniform:               r.RowsUniform,
		RowsInitial:               r.RowsInitial,
		RowsOneHot:                r.RowsOneHot,
		RowsZero:                  r.RowsZero,
		RowsFrozen:                r.RowsFrozen,
		SamplesAccumulated:        r.SamplesAccumulated,
		SamplesSkipped:            r.SamplesSkipped,
		ClassesFull:               r.ClassesFull,
		TargetsOutOfRange:         r.TargetsOutOfRange,
		RunningEpoch:              r.RunningEpoch,
		RunningSamplesAccumulated: r.RunningSamplesAccumulated,
		RunningSamplesSkipped:     r.RunningSamplesSkipped,
		RunningClassesFull:        r.RunningClassesFull,
		RunningTargetsOutOfRange:  r.RunningTargetsOutOfRange,
	}, nil
}
