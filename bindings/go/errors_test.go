package ols_test

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"libols/ols"
)

// r6: after two failures, both messages are still available.
func TestR06MessagesAreKept(t *testing.T) {
	criterion := newCriterion(t, ols.Options{Classes: 3})
	first := criterion.SetAlpha(1.5)
	_, second := ols.LossAndGrad(criterion, make([]float32, 6), []int{0, 7}, make([]float32, 6))
	must(t, criterion.SetAlpha(0.25))
	fails(t, first, ols.InvalidArgument, "ols_set_alpha: alpha = 1.5 is outside [0, 1]")
	fails(t, second, ols.TargetOutOfRange, "ols_forward: target[1] = 7 is outside [0, 3) and is not ignore_index (-100)")
}

// r6: goroutines that fail at the same time each get their own message. The scheduler moves them between threads.
func TestR06MessagesInGoroutines(t *testing.T) {
	criterion := newCriterion(t, ols.Options{Classes: 3})
	var group sync.WaitGroup
	for worker := range 16 {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := range 200 {
				alpha := 2 + worker*1000 + i
				err := criterion.SetAlpha(float64(alpha))
				if want := fmt.Sprintf("ols_set_alpha: alpha = %d is outside [0, 1]", alpha); err == nil || err.Error() != want {
					t.Errorf("%v is not %q", err, want)
					return
				}
			}
		}()
	}
	group.Wait()
}

// r7: errors.Is and errors.As find the status, and an unknown number is kept.
func TestR07Kinds(t *testing.T) {
	err := error(&ols.Error{Status: 77, Message: "of a later library"})
	var status ols.Status
	if !errors.Is(err, ols.Status(77)) || errors.Is(err, ols.InvalidState) || !errors.As(err, &status) || status != 77 {
		t.Errorf("%v does not match status 77", err)
	}
	if text := ols.Status(77).String(); text != "UNKNOWN" {
		t.Errorf("status 77 is %q", text)
	}
	if text := fmt.Sprint(ols.InvalidShape); text != "libols: INVALID_SHAPE" {
		t.Errorf("INVALID_SHAPE prints as %q", text)
	}
	wrapped := fmt.Errorf("epoch 3: %w", err)
	if !errors.Is(wrapped, ols.Status(77)) {
		t.Error("the status of a wrapped error was not found")
	}
}

// r7: the operating system's error is found as well, and only where the library reports one.
func TestR07ErrorsOfFiles(t *testing.T) {
	criterion, folder := newCriterion(t, ols.Options{Classes: 3}), t.TempDir()
	for _, err := range []error{criterion.Load(filepath.Join(folder, "none")), criterion.Save(filepath.Join(folder, "none", "file"))} {
		var number syscall.Errno
		if !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, ols.IO) || errors.Is(err, fs.ErrPermission) || !errors.As(err, &number) || number != syscall.ENOENT {
			t.Errorf("%v does not match a missing file", err)
		}
	}
	if err := criterion.Load(folder); !errors.Is(err, syscall.EISDIR) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v does not match a folder", err)
	}
	const denied = "ols_save: /root/s: Permission denied (os error 13)"
	for _, it := range []struct {
		status  ols.Status
		message string
		found   bool
	}{
		{ols.IO, denied, true},
		{ols.IO, denied + ` at path "/root/.\n\"s"`, true}, // of a temporary file, when the folder cannot be written
		{ols.IO, denied + ": it is there", false},
		{ols.IO, "ols_save: /root/s: (os error 99999999999)", false},
		{ols.InvalidFile, denied, false},
	} {
		err := error(&ols.Error{Status: it.status, Message: it.message})
		if errors.Is(err, fs.ErrPermission) != it.found || !errors.Is(err, it.status) {
			t.Errorf("%v: %q is recognised: %v", it.status, it.message, !it.found)
		}
	}
}

// r8, r9: invalid input of every kind is an error with the library's message, and changes nothing.
func TestR08R09BadInput(t *testing.T) {
	criterion := newCriterion(t, ols.Options{Classes: 3})
	logits, targets := batchOf(1, 4, 3)
	must(t, criterion.Forward(&ols.Batch{Logits: ols.Matrix(logits, 4, 3), Targets: ols.Vector(targets)}, ols.Tensor{}, ols.Tensor{}))
	before := stateOf(t, criterion)
	z, y := ols.Matrix(logits, 4, 3), ols.Vector(targets)
	var loss float32
	forward := func(batch *ols.Batch) error { return criterion.Forward(batch, ols.Scalar(&loss), ols.Tensor{}) }
	for _, it := range []struct {
		err    error
		status ols.Status
		words  string
	}{
		{forward(nil), ols.InvalidArgument, "ols.Forward: batch is nil"},
		{forward(&ols.Batch{Targets: y}), ols.InvalidArgument, "ols_forward: logits is not given: all its bytes are 0"},
		{forward(&ols.Batch{Logits: z}), ols.InvalidArgument, "ols_forward: targets is not given: all its bytes are 0"},
		{forward(&ols.Batch{Logits: ols.Matrix(logits, 4, 4), Targets: y}), ols.InvalidShape,
			"ols.Forward: logits: a slice of length 12 does not have the shape (4, 4)"},
		{forward(&ols.Batch{Logits: ols.Matrix(logits, -4, -3), Targets: y}), ols.InvalidShape,
			"ols.Forward: logits: a slice of length 12 does not have the shape (-4, -3)"},
		{forward(&ols.Batch{Logits: ols.Matrix[float32](nil, 4, 3), Targets: y}), ols.InvalidShape,
			"ols.Forward: logits: a slice of length 0 does not have the shape (4, 3)"},
		{forward(&ols.Batch{Logits: z, Targets: ols.Vector(targets[:3])}), ols.InvalidShape,
			"ols_forward: targets.shape = (3) differs from the logits' (N) = (4)"},
		{forward(&ols.Batch{Logits: ols.DeviceArray(64, ols.F32, ols.Device{Type: ols.CUDADevice, ID: 1 << 32}, []int{4, 3}, nil), Targets: y}),
			ols.InvalidDevice, "ols.Forward: logits: the device index 4294967296 does not fit in 32 bits"},
		{forward(&ols.Batch{Logits: ols.Vector(targets), Targets: y}), ols.InvalidDType, ""},
		{forward(&ols.Batch{Logits: z, Targets: ols.Vector([]float64{0, 1, 2, 0})}), ols.InvalidDType, ""},
		{forward(&ols.Batch{Logits: z, Targets: y, SampleWeights: ols.Vector([]float32{1, -2, 1, 1})}), ols.InvalidArgument, ""},
		{forward(&ols.Batch{Logits: z, Targets: y, Lam: ols.Scalar(ols.Ptr(0.5))}), ols.InvalidArgument, ""},
		{forward(&ols.Batch{Logits: z, Targets: y, Lam: ols.Scalar[float64](nil), Targets2: y}), ols.InvalidArgument, ""},
		{forward(&ols.Batch{Logits: z, Targets: y, Update: 99}), ols.InvalidArgument, ""},
		{forward(&ols.Batch{Logits: z, Targets: y, Update: ols.NoUpdate | ols.TakeBack}), ols.InvalidArgument, ""},
		{criterion.Forward(&ols.Batch{Logits: z, Targets: y}, ols.Tensor{}, ols.Matrix(make([]float32, 6), 2, 3)), ols.InvalidShape, ""},
		{criterion.Forward(&ols.Batch{Logits: z, Targets: y}, ols.Vector(logits[:4]), ols.Tensor{}), ols.InvalidShape, ""},
		{criterion.Forward(&ols.Batch{Logits: z, Targets: y}, ols.Tensor{}, ols.Matrix(make([]float64, 12), 4, 3)), ols.InvalidDType, ""},
		{criterion.Forward(&ols.Batch{Logits: z, Targets: y}, ols.Scalar(&logits[2]), ols.Tensor{}), ols.InvalidArgument, ""},
		{criterion.Backward(&ols.Batch{Logits: z, Targets: y}, ols.Tensor{}, ols.Tensor{}), ols.InvalidArgument, ""},
		{criterion.Accumulate(nil), ols.InvalidArgument, "ols.Accumulate: batch is nil"},
		{criterion.SetSoftLabels(ols.Tensor{}), ols.InvalidArgument, ""},
		{criterion.SetSoftLabels(ols.Matrix(make([]float32, 9), 2, 3)), ols.InvalidShape,
			"ols.SetSoftLabels: soft_labels: a slice of length 9 does not have the shape (2, 3)"},
		{criterion.SetMode(0), ols.InvalidArgument, "ols.SetMode: mode = 0 is neither Train nor Eval"},
		{criterion.SetMode(3), ols.InvalidArgument, "ols.SetMode: mode = 3 is neither Train nor Eval"},
		{criterion.SetEpoch(-1), ols.InvalidArgument, ""},
		{criterion.NextEpoch(1, 2), ols.InvalidArgument, "ols: 2 streams were given, but a call uses only one"},
		{criterion.Save("a\x00b"), ols.InvalidArgument, `ols.Save: path = "a\x00b" contains a NUL byte`},
		{criterion.Save("/nowhere/at/all"), ols.IO, ""},
		{criterion.Load("/nowhere/at/all"), ols.IO, ""},
		{criterion.UnmarshalBinary(nil), ols.InvalidFile, ""},
		{criterion.UnmarshalBinary([]byte("no state")), ols.InvalidFile, ""},
	} {
		if it.words == "" && it.err != nil {
			it.words = it.err.Error()
		}
		fails(t, it.err, it.status, it.words)
	}
	if loss != 0 || !slices.Equal(before, stateOf(t, criterion)) {
		t.Error("a failed call changed the loss or the state")
	}
	must(t, forward(&ols.Batch{Logits: z, Targets: y}))
}

func TestBadOptions(t *testing.T) {
	// Unsupported without a driver; with one there is no device of this number.
	_, err := ols.New(ols.Options{Classes: 3, Device: ols.Device{Type: ols.CUDADevice, ID: 99}})
	if !errors.Is(err, ols.Unsupported) && !errors.Is(err, ols.InvalidDevice) {
		t.Error(err)
	}
	for _, it := range []struct {
		options ols.Options
		status  ols.Status
		words   string
	}{
		{ols.Options{}, ols.InvalidArgument, "ols_create: num_classes = 0 is outside [2, 2147483647]"},
		{ols.Options{Classes: -5}, ols.InvalidArgument, "ols_create: num_classes = -5 is outside [2, 2147483647]"},
		{ols.Options{Classes: 3, Reduction: 77}, ols.InvalidArgument, "ols.New: options: reduction = 77 is not one of the package's constants"},
		{ols.Options{Classes: 3, Mode: -1}, ols.InvalidArgument, "ols.New: options: mode = -1 is not one of the package's constants"},
		{ols.Options{Classes: 3, Preset: 3}, ols.InvalidArgument, "ols.New: options: preset = 3 is not one of the package's constants"},
		{ols.Options{Classes: 3, Threads: ols.Ptr(-1)}, ols.InvalidArgument, ""},
		{ols.Options{Classes: 3, Threads: ols.Ptr(1 << 32)}, ols.InvalidArgument, "ols.New: options: n_threads = 4294967296 does not fit in 32 bits"},
		{ols.Options{Classes: 3, Device: ols.Device{Type: ols.CUDADevice, ID: 1 << 32}}, ols.InvalidArgument,
			"ols.New: options: device_id = 4294967296 does not fit in 32 bits"},
		{ols.Options{Classes: 3, ClassWeights: ols.Matrix([]float32{1}, 3, 3)}, ols.InvalidShape,
			"ols.New: class_weights: a slice of length 1 does not have the shape (3, 3)"},
		{ols.Options{Classes: 3, AdoptState: true}, ols.InvalidArgument, ""},
		{ols.Options{Classes: 1 << 20}, ols.OutOfMemory, ""},
		{ols.Options{Classes: 3, Counts: ols.Vector(make([]int64, 2))}, ols.InvalidShape, ""},
	} {
		_, err := ols.New(it.options)
		if it.words == "" && err != nil {
			it.words = err.Error()
		}
		fails(t, err, it.status, it.words)
	}
}
