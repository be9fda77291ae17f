package ols

import (
	"fmt"
	"unsafe"

	"libols/ols/internal/capi"
)

// SetMode sets whether forward passes add to the statistics: Train or Eval.
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

// Mode gives the mode.
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

// SetAlpha sets the weight of the hard label, in [0, 1]: for schedules. Holds from the next call on.
func (c *Criterion) SetAlpha(alpha float64) error {
	core, err := c.use()
	if err != nil {
		return err
	}
	defer core.mutex.RUnlock()
	return failure(capi.SetAlpha(core.handle, alpha))
}

// Epoch gives the number of epochs that have ended; 0 at first.
func (c *Criterion) Epoch() (int64, error) {
	core, err := c.use()
	if err != nil {
		return 0, err
	}
	defer core.mutex.RUnlock()
	epoch, result := capi.Epoch(core.handle)
	return epoch, failure(result)
}

// SetEpoch sets the number of epochs that have ended, for those who keep and restore a state themselves.
func (c *Criterion) SetEpoch(epoch int64) error {
	core, err := c.use()
	if err != nil {
		return err
	}
	defer core.mutex.RUnlock()
	return failure(capi.SetEpoch(core.handle, epoch))
}

// Options gives the options as they are now: Alpha and Mode as set last, and what a Load replaced. Nothing is left to a default. The memory of
// the state and AdoptState are left out, so that the options can make another criterion with a state of its own.
func (c *Criterion) Options() (Options, error) {
	// Alone: the views of the class weights hold until the next Load.
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

// Report says what happened in the epoch that ended last, and so far in the running one. RowsMeasured and all other Rows add up to K.
type Report struct {
	// Epoch is the number of the epoch that ended last, counted from 1; 0 where none has ended yet (or since a Load), and then all of it is 0.
	Epoch int64
	// RowsMeasured: classes whose new soft label was measured.
	RowsMeasured int64
	// RowsKept: classes that kept their row by EmptyClassKeep, or because nothing at all was accumulated.
	RowsKept int64
	// RowsUniform, RowsInitial, RowsOneHot and RowsZero: classes with a row by the policy of this name.
	RowsUniform, RowsInitial, RowsOneHot, RowsZero int64
	// RowsFrozen: classes that stay as they are because of FreezeAbove.
	RowsFrozen int64
	// SamplesAccumulated: those classified right.
	SamplesAccumulated int64
	// SamplesSkipped: those kept out because their logits hold NaN, +Inf, or nothing but -Inf.
	SamplesSkipped int64
	// ClassesFull: classes that were full and took no more samples.
	ClassesFull int64
	// TargetsOutOfRange: targets that were neither a class nor the ignore index (on CUDA; an error on the CPU).
	TargetsOutOfRange int64
	// RunningEpoch is the number of the running epoch; what follows is its own.
	RunningEpoch, RunningSamplesAccumulated, RunningSamplesSkipped, RunningClassesFull, RunningTargetsOutOfRange int64
}

// Report tells what happened; on CUDA it is the one call that may wait for the device.
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
