package ols

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"libols/ols/internal/capi"
)

const (
	// FractionBits is the number of fraction bits of the sums, which are integers in units of 2^-FractionBits.
	FractionBits = capi.FractionBits
	// NumCounters is the number of counters; those without a name are 0.
	NumCounters = capi.Counters
	// CounterSkippedNonFinite is the index of the counter of rows that were skipped because they contain NaN or +Inf,
	// or are -Inf throughout.
	CounterSkippedNonFinite = capi.CounterSkippedNonFinite
	// CounterTargetsOutOfRange is the index of the counter of targets that are neither a class nor the ignore index. It
	// is used on CUDA; on the CPU such a target is an error.
	CounterTargetsOutOfRange = capi.CounterTargetsOutOfRange
	// CounterTakeBacksRefused is the index of the counter of rows that could not be taken back. It is used on CUDA; on
	// the CPU this is an error.
	CounterTakeBacksRefused = capi.CounterTakeBacksRefused
)

// RowsOf is an in-place view of a matrix with K columns. Row i begins at Data[i*Stride].
type RowsOf[T any] struct {
	Data   []T
	Stride int
	// Columns is K.
	Columns int
}

// Row returns row i, in place.
func (r RowsOf[T]) Row(i int) []T {
	begin := i * r.Stride
	return r.Data[begin : begin+r.Columns : begin+r.Columns]
}

// compact returns a contiguous copy of the K rows.
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

// Statistics are the statistics of the current epoch, in place. All values are integers, so that sums over workers and
// batches are exact in any order.
type Statistics struct {
	// Sums is A (K, K), one row per class: summed probabilities in units of 2^-FractionBits.
	Sums RowsOf[int64]
	// Counts is c (K): the number of samples in each row of Sums.
	Counts []int64
	// Counters has NumCounters elements, indexed by the Counter constants.
	Counters []int64
}

// WithStatistics calls f with the statistics in place, to read or modify them. With several workers, each of which has
// its own criterion, sum Sums, Counts and Counters over all of them before NextEpoch, and write the sums to every
// criterion; all then get the soft labels of a single worker that has seen every sample, bit for bit. No other call on
// the criterion runs meanwhile, so f itself must not make one, and f must not keep what it was given. The error is that
// of f, or ErrClosed.
//
// WithStatistics works for host memory only; on a device it returns [InvalidDevice]. To access the state on a device,
// give memory for it in Options.
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

// WithSoftLabels calls f with the soft labels S (K, K), one row per class, in place, in the same way as WithStatistics.
// If f modifies them, they must remain finite and >= 0.
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

// hostMemory returns an error unless the memory is readable by the host.
func hostMemory(what string, kind, id int32) error {
	if kind != capi.DeviceCUDA {
		return nil
	}
	return &Error{InvalidDevice, fmt.Sprintf("%s on cuda:%d, which the host cannot read; to access them, pass memory of that device in Options", what, id)}
}

// SoftLabels returns a copy of the soft labels S: (K, K), row-major, one row per class. Like WithSoftLabels, it works
// for host memory only.
func (c *Criterion) SoftLabels() ([]float32, error) {
	var all []float32
	err := c.WithSoftLabels(func(rows RowsOf[float32]) error {
		all = rows.compact()
		return nil
	})
	return all, err
}

// SetSoftLabels replaces the soft labels S by a float32 or float64 matrix of shape (K, K), finite and >= 0. Rows need
// not sum to 1. The values are copied.
func (c *Criterion) SetSoftLabels(softLabels Tensor, on ...Stream) error {
	if err := softLabels.check("ols.SetSoftLabels", "soft_labels"); err != nil {
		return c.orClosed(err)
	}
	return c.onStream(on, func(handle capi.Criterion, stream uintptr) capi.Result {
		return capi.SetSoftLabels(handle, softLabels.given(), softLabels.host, stream)
	})
}

// Save saves the criterion to a file: the state (S, statistics, counters, epoch) and the options that affect the
// results. The file is in the safetensors format, with a checksum, and can be loaded by libols in any language. Saving
// is atomic: at any moment, path names either the old file or the complete new one.
func (c *Criterion) Save(path string, on ...Stream) error {
	return c.file("ols.Save", path, on, capi.Save)
}

// Load restores the criterion from a file written by Save. It replaces the state, the epoch, and the options that
// affect the results; mode, reduction, device and number of threads are not changed. A criterion that is saved and
// loaded continues bitwise identically to one that was never interrupted. A file that is truncated, corrupted or not a
// saved state is [InvalidFile]; one with a different number of classes is [InvalidArgument]. On failure the criterion
// is unchanged.
func (c *Criterion) Load(path string, on ...Stream) error {
	return c.file("ols.Load", path, on, capi.Load)
}

func (c *Criterion) file(call, path string, on []Stream, work func(capi.Criterion, string, uintptr) capi.Result) error {
	if strings.IndexByte(path, 0) >= 0 {
		return c.orClosed(&Error{InvalidArgument, fmt.Sprintf("%s: path = %q contains a NUL byte", call, path)})
	}
	return c.onStream(on, func(handle capi.Criterion, stream uintptr) capi.Result { return work(handle, path, stream) })
}

// MarshalBinary returns the contents of the file that Save would write, for encoding/gob or for a checkpoint of your
// own. On a device, MarshalBinary and UnmarshalBinary work on the default stream; work on streams that do not
// synchronise with it must have completed.
func (c *Criterion) MarshalBinary() ([]byte, error) {
	// Exclusive, because no other call may come between the query of the size and the copy.
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

// MarshalJSON always fails: encoding/json would otherwise write {}, and the state would be lost without a word.
func (c Criterion) MarshalJSON() ([]byte, error) { return nil, errJSON }

// UnmarshalJSON always fails: encoding/json would otherwise ignore what it reads.
func (c *Criterion) UnmarshalJSON([]byte) error { return errJSON }

var errJSON = errors.New("ols: a criterion has no JSON form; write the bytes of MarshalBinary instead")

// UnmarshalBinary restores the criterion from the bytes that MarshalBinary returned or Save wrote; otherwise it is like
// Load. The criterion must have been created by New, with the same number of classes.
func (c *Criterion) UnmarshalBinary(data []byte) error {
	core, err := c.use()
	if err != nil {
		return err
	}
	defer core.mutex.RUnlock()
	return failure(capi.LoadMemory(core.handle, data, 0))
}
