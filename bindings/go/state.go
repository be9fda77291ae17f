package ols

import (
	"fmt"
	"strings"
	"unsafe"

	"libols/ols/internal/capi"
)

const (
	// FractionBits: the summed probabilities are integers in units of 2^-FractionBits.
	FractionBits = capi.FractionBits
	// NumCounters is the number of counters; those without a name are 0.
	NumCounters = capi.Counters
	// CounterSkippedNonFinite counts rows that were kept out because they hold NaN, +Inf, or nothing but -Inf.
	CounterSkippedNonFinite = capi.CounterSkippedNonFinite
	// CounterTargetsOutOfRange counts targets that are neither a class nor the ignore index (on CUDA; on the CPU they are an error).
	CounterTargetsOutOfRange = capi.CounterTargetsOutOfRange
	// CounterTakeBacksRefused counts rows that could not be taken back (on CUDA; on the CPU that is an error).
	CounterTakeBacksRefused = capi.CounterTakeBacksRefused
)

// RowsOf is a matrix of K columns in place: row i begins at Data[i*Stride].
type RowsOf[T any] struct {
	Data   []T
	Stride int
	// Columns is K.
	Columns int
}

// Row gives row i, in place.
func (r RowsOf[T]) Row(i int) []T {
	begin := i * r.Stride
	return r.Data[begin : begin+r.Columns : begin+r.Columns]
}

// compact copies the K rows, one right after the other.
func (r RowsOf[T]) compact() []T {
	all := make([]T, 0, r.Columns*r.Columns)
	for i := range r.Columns {
		all = append(all, r.Row(i)...)
	}
	return all
}

func rowsOf[T any](data unsafe.Pointer, classes, stride int) RowsOf[T] {
	return RowsOf[T]{unsafe.Slice((*T)(data), (classes-1)*stride+classes), stride, classes}
}

// Statistics are those of the running epoch, in place. All are integers, so that sums over workers and batches are exact in any order.
type Statistics struct {
	// Sums is A (K, K), a row per class: summed probabilities in units of 2^-FractionBits.
	Sums RowsOf[int64]
	// Counts is c (K): samples that were summed.
	Counts []int64
	// Counters are what the Counter constants name (NumCounters).
	Counters []int64
}

// WithStatistics calls f with the statistics in place, to read or to change them: for a sum over workers before NextEpoch. While f runs no other
// call on the criterion does, nor can f make one; what it was given must not be kept beyond it. The error is that of f, or ErrClosed.
// Host memory alone: on a device it is [InvalidDevice], and the caller gives the memory for the state in Options.
func (c *Criterion) WithStatistics(f func(Statistics) error) error {
	core, err := c.useAlone()
	if err != nil {
		return err
	}
	defer core.mutex.Unlock()
	view, result := capi.Statistics(core.handle)
	if err := failure(result); err != nil {
		return err
	}
	if err := hostMemory("ols.WithStatistics: the statistics are", view.DeviceType, view.DeviceID); err != nil {
		return err
	}
	return f(Statistics{
		Sums:     rowsOf[int64](view.Sums, core.classes, view.Stride),
		Counts:   unsafe.Slice((*int64)(view.Counts), core.classes),
		Counters: unsafe.Slice((*int64)(view.Counters), NumCounters),
	})
}

// WithSoftLabels calls f with the soft labels S (K, K), a row per class, in place, as WithStatistics does with the statistics. Whoever changes
// them keeps them finite and >= 0.
func (c *Criterion) WithSoftLabels(f func(RowsOf[float32]) error) error {
	core, err := c.useAlone()
	if err != nil {
		return err
	}
	defer core.mutex.Unlock()
	view, result := capi.SoftLabels(core.handle)
	if err := failure(result); err != nil {
		return err
	}
	if err := hostMemory("ols.WithSoftLabels: the soft labels are", view.DeviceType, view.DeviceID); err != nil {
		return err
	}
	return f(rowsOf[float32](view.Data, core.classes, view.Stride))
}

// hostMemory is an error where the memory is none that Go may read.
func hostMemory(what string, kind, id int32) error {
	if kind != capi.DeviceCUDA {
		return nil
	}
	return &Error{InvalidDevice, fmt.Sprintf("%s on cuda:%d; give memory of that device for them in Options", what, id)}
}

// SoftLabels gives a copy of the soft labels S, row-major (K, K), a row per class. Host memory alone, as WithSoftLabels.
func (c *Criterion) SoftLabels() ([]float32, error) {
	var all []float32
	err := c.WithSoftLabels(func(rows RowsOf[float32]) error {
		all = rows.compact()
		return nil
	})
	return all, err
}

// SetSoftLabels replaces the soft labels S by a matrix (K, K), float32 or float64, finite and >= 0; rows need not sum to 1. Copied.
func (c *Criterion) SetSoftLabels(softLabels Tensor, on ...Stream) error {
	if err := softLabels.check("ols.SetSoftLabels", "soft_labels"); err != nil {
		return err
	}
	return c.onStream(on, func(handle capi.Criterion, stream uintptr) capi.Result {
		return capi.SetSoftLabels(handle, softLabels.given(), softLabels.host, stream)
	})
}

// Save writes the state (S, statistics, counters, epoch) and the options that shape the result to a file, in the safetensors format with a
// checksum. Atomic: whatever happens, the name stands for the old file or for the whole new one. Every language's libols reads it.
func (c *Criterion) Save(path string, on ...Stream) error {
	return c.file("ols.Save", path, on, capi.Save)
}

// Load replaces the state, the epoch, and the options that shape the result by what Save wrote. Mode, reduction, device and threads stay the
// criterion's. A criterion that was saved and loaded goes on bit for bit as one that never stopped. A file that is truncated, damaged or no
// saved state is [InvalidFile]; one with another number of classes is [InvalidArgument]. On an error the criterion is as before.
func (c *Criterion) Load(path string, on ...Stream) error {
	return c.file("ols.Load", path, on, capi.Load)
}

func (c *Criterion) file(call, path string, on []Stream, work func(capi.Criterion, string, uintptr) capi.Result) error {
	if strings.IndexByte(path, 0) >= 0 {
		return &Error{InvalidArgument, fmt.Sprintf("%s: path = %q holds a NUL byte", call, path)}
	}
	return c.onStream(on, func(handle capi.Criterion, stream uintptr) capi.Result { return work(handle, path, stream) })
}

// MarshalBinary gives the bytes that Save would write: for encoding/gob, or a checkpoint of the caller's own. On a device it works on the default
// stream, and so does UnmarshalBinary: the work that was enqueued on streams that do not wait for that one must have run.
func (c *Criterion) MarshalBinary() ([]byte, error) {
	// Alone: no call may lie between asking for the size and for the bytes.
	core, err := c.useAlone()
	if err != nil {
		return nil, err
	}
	defer core.mutex.Unlock()
	size, result := capi.SaveMemory(core.handle, nil, 0)
	if err := failure(result); err != nil {
		return nil, err
	}
	buffer := make([]byte, size)
	size, result = capi.SaveMemory(core.handle, buffer, 0)
	if err := failure(result); err != nil {
		return nil, err
	}
	return buffer[:size], nil
}

// UnmarshalBinary is Load from bytes. The criterion must have been made by New, with as many classes.
func (c *Criterion) UnmarshalBinary(data []byte) error {
	core, err := c.use()
	if err != nil {
		return err
	}
	defer core.mutex.RUnlock()
	return failure(capi.LoadMemory(core.handle, data, 0))
}
