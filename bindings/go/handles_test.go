package ols_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"libols/ols"
	"libols/ols/internal/capi"
)

// everyCall makes every possible call once.
func everyCall(c *ols.Criterion) map[string]error {
	batch := ols.Batch{Logits: ols.Matrix(make([]float32, 6), 2, 3), Targets: ols.Vector([]int{0, 1})}
	errs := map[string]error{
		"Forward":         c.Forward(&batch, ols.Tensor{}, ols.Tensor{}),
		"Backward":        c.Backward(&batch, ols.Tensor{}, ols.Matrix(make([]float32, 6), 2, 3)),
		"Accumulate":      c.Accumulate(&batch),
		"NextEpoch":       c.NextEpoch(),
		"SetMode":         c.SetMode(ols.Eval),
		"SetAlpha":        c.SetAlpha(0.5),
		"SetEpoch":        c.SetEpoch(1),
		"SetSoftLabels":   c.SetSoftLabels(ols.Matrix(make([]float32, 9), 3, 3)),
		"Save":            c.Save("/tmp/never"),
		"Load":            c.Load("/tmp/never"),
		"UnmarshalBinary": c.UnmarshalBinary(nil),
		"WithStatistics":  c.WithStatistics(func(ols.Statistics) error { panic("called") }),
		"WithSoftLabels":  c.WithSoftLabels(func(ols.RowsOf[float32]) error { panic("called") }),
	}
	_, errs["Loss"] = c.Loss(&batch)
	_, errs["LossAndGrad"] = c.LossAndGrad(&batch, ols.Tensor{})
	_, errs["ols.LossAndGrad"] = ols.LossAndGrad(c, make([]float32, 6), []int{0, 1}, make([]float32, 6))
	// A missing criterion is reported rather than another argument that is wrong as well.
	wrong := ols.Matrix(make([]float32, 5), 2, 3)
	_, errs["ols.LossAndGrad, wrong"] = ols.LossAndGrad(c, make([]float32, 5), []int{0, 1}, nil)
	errs["Forward, wrong"] = c.Forward(&batch, wrong, ols.Tensor{})
	errs["Backward, wrong"] = c.Backward(&batch, wrong, ols.Tensor{})
	errs["SetSoftLabels, wrong"] = c.SetSoftLabels(wrong)
	errs["Save, wrong"] = c.Save("a\x00b")
	_, errs["SoftLabels"] = c.SoftLabels()
	_, errs["Options"] = c.Options()
	_, errs["Mode"] = c.Mode()
	_, errs["Epoch"] = c.Epoch()
	_, errs["Report"] = c.Report()
	_, errs["MarshalBinary"] = c.MarshalBinary()
	return errs
}

// r11: closing twice is a no-op; every later call returns ErrClosed, as on criteria that were not created by New.
func TestR11CloseTwiceAndUseAfterClose(t *testing.T) {
	closed := newCriterion(t, ols.Options{Classes: 3})
	must(t, closed.Close())
	must(t, closed.Close())
	for name, criterion := range map[string]*ols.Criterion{"closed": closed, "zero": new(ols.Criterion), "nil": nil} {
		for call, err := range everyCall(criterion) {
			if !errors.Is(err, ols.ErrClosed) {
				t.Errorf("%s criterion: %s returns %v", name, call, err)
			}
		}
		must(t, criterion.Close())
	}
	if closed.Classes() != 3 {
		t.Error("Classes is wrong after Close")
	}
}

// r10: Close destroys immediately; a forgotten criterion is destroyed by the garbage collector, and the caller's memory
// is unpinned.
func TestR10ForgottenCriteriaAreDestroyed(t *testing.T) {
	waitFor := func(count int64) {
		t.Helper()
		for deadline := time.Now().Add(120 * time.Second); capi.Live() != count; time.Sleep(time.Millisecond) {
			runtime.GC()
			if time.Now().After(deadline) {
				t.Fatalf("%d criteria are alive, not %d", capi.Live(), count)
			}
		}
	}
	runtime.GC()
	before := capi.Live()
	for range 20 {
		sums := make([]int64, 9)
		criterion, err := ols.New(ols.Options{Classes: 3, Sums: ols.Matrix(sums, 3, 3)})
		must(t, err)
		_, err = ols.LossAndGrad(criterion, make([]float32, 3), []int{0}, make([]float32, 3))
		must(t, err)
	}
	waitFor(before)
	criterion, err := ols.New(ols.Options{Classes: 3})
	must(t, err)
	if capi.Live() != before+1 {
		t.Fatal("New was not counted")
	}
	must(t, criterion.Close())
	if capi.Live() != before {
		t.Fatal("Close did not destroy the criterion")
	}
}

// r11: Close concurrently with calls of other goroutines: each call either succeeds or returns ErrClosed.
func TestR11CloseBesideCalls(t *testing.T) {
	for range 50 {
		criterion, err := ols.New(ols.Options{Classes: 3})
		must(t, err)
		var group sync.WaitGroup
		for range 4 {
			group.Add(1)
			go func() {
				defer group.Done()
				logits := make([]float32, 30)
				for {
					if _, err := ols.LossAndGrad(criterion, logits, make([]uint8, 10), logits); err != nil {
						if !errors.Is(err, ols.ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			}()
		}
		runtime.Gosched()
		must(t, criterion.Close())
		group.Wait()
	}
}

// r12: a copied struct is the same criterion and is closed once; gob creates a second one from saved state.
func TestR12Copies(t *testing.T) {
	criterion := newCriterion(t, ols.Options{Classes: 3})
	logits, targets := batchOf(1, 8, 3)
	_, err := ols.LossAndGrad(criterion, logits, targets, make([]float32, 24))
	must(t, err)

	var stream bytes.Buffer
	must(t, gob.NewEncoder(&stream).Encode(criterion))
	second := newCriterion(t, ols.Options{Classes: 3, Alpha: ols.Ptr(0.1)})
	must(t, gob.NewDecoder(bytes.NewReader(stream.Bytes())).Decode(second))
	sameState(t, criterion, second)
	must(t, second.NextEpoch())
	if slices.Equal(softLabelsOf(t, criterion), softLabelsOf(t, second)) {
		t.Error("the second criterion shares the state of the first")
	}
	var unmade ols.Criterion
	if err := gob.NewDecoder(bytes.NewReader(stream.Bytes())).Decode(&unmade); !errors.Is(err, ols.ErrClosed) {
		t.Errorf("decoding into a criterion that was not created by New: %v", err)
	}

	const advice = "write the bytes of MarshalBinary"
	for _, checkpoint := range []any{struct{ Criterion *ols.Criterion }{criterion}, struct{ Criterion ols.Criterion }{*criterion}} {
		if text, err := json.Marshal(checkpoint); err == nil || !strings.Contains(err.Error(), advice) {
			t.Errorf("a criterion as JSON: %s, %v", text, err)
		}
	}
	if err := json.Unmarshal([]byte("{}"), criterion); err == nil || !strings.Contains(err.Error(), advice) {
		t.Errorf("a criterion from JSON: %v", err)
	}

	same := *criterion
	must(t, same.Close())
	if _, err := criterion.Epoch(); !errors.Is(err, ols.ErrClosed) {
		t.Errorf("closing the copy did not close the original: %v", err)
	}
}

// r13: the collector runs all the time, while the library uses the caller's memory for the state between calls.
func TestR13MemoryStaysWhereItIs(t *testing.T) {
	softLabels, sums, counts, counters := make([]float32, 9), make([]int64, 9), make([]int64, 3), make([]int64, ols.NumCounters)
	criterion := newCriterion(t, ols.Options{Classes: 3, SoftLabels: ols.Matrix(softLabels, 3, 3), Sums: ols.Matrix(sums, 3, 3),
		Counts: ols.Vector(counts), Counters: ols.Vector(counters)})
	other := newCriterion(t, ols.Options{Classes: 3})
	for epoch := range uint64(20) {
		logits, targets := batchOf(epoch, 50, 3)
		for _, it := range []*ols.Criterion{criterion, other} {
			_, err := ols.LossAndGrad(it, logits, targets, make([]float32, 150))
			must(t, err)
			runtime.GC()
		}
		must(t, criterion.WithStatistics(func(statistics ols.Statistics) error {
			if &statistics.Sums.Data[0] != &sums[0] || &statistics.Counts[0] != &counts[0] || &statistics.Counters[0] != &counters[0] {
				t.Error("the statistics are not in the given memory")
			}
			return nil
		}))
		must(t, criterion.NextEpoch())
		must(t, other.NextEpoch())
		if !slices.Equal(softLabels, softLabelsOf(t, other)) {
			t.Fatal("the state in Go memory differs from the one in C memory")
		}
	}
	must(t, criterion.Close())
	softLabels[0], sums[0] = 5, 5 // After Close only the caller uses this memory.
}

// A state in the caller's memory outlives its criterion, and another criterion adopts it.
func TestAdoptedState(t *testing.T) {
	softLabels, sums, counts := make([]float32, 12), make([]int64, 9), make([]int64, 3)
	options := ols.Options{Classes: 3, SoftLabels: ols.Rows(softLabels, 3, 3, 4), Sums: ols.Matrix(sums, 3, 3), Counts: ols.Vector(counts)}
	first := newCriterion(t, options)
	logits, targets := batchOf(3, 20, 3)
	_, err := ols.LossAndGrad(first, logits, targets, make([]float32, 60))
	must(t, err)
	must(t, first.NextEpoch())
	want := softLabelsOf(t, first)
	must(t, first.Close())
	options.AdoptState = true
	options.Counters = ols.Vector(make([]int64, ols.NumCounters))
	second := newCriterion(t, options)
	if !slices.Equal(want, softLabelsOf(t, second)) {
		t.Error("the soft labels were not adopted")
	}
	if row := softLabels[4:7]; !slices.Equal(row, want[3:6]) {
		t.Errorf("row 1 is %v in place, and %v by copy", row, want[3:6])
	}
}

// r25: Load reads the file that Save writes, and rejects anything else.
func TestR25Files(t *testing.T) {
	criterion := newCriterion(t, ols.Options{Classes: 3, Alpha: ols.Ptr(0.25), ClassWeights: ols.Vector([]float64{1, 2, 0.5})})
	logits, targets := batchOf(3, 20, 3)
	_, err := ols.LossAndGrad(criterion, logits, targets, make([]float32, 60))
	must(t, err)
	path := filepath.Join(t.TempDir(), "état.safetensors")
	must(t, criterion.Save(path))
	loaded := newCriterion(t, ols.Options{Classes: 3})
	must(t, loaded.Load(path))
	sameState(t, criterion, loaded)
	fails(t, newCriterion(t, ols.Options{Classes: 4}).Load(path), ols.InvalidArgument, "ols_load: "+path+": the file has num_classes = 3, but the criterion has 4")
}

// r24: only the caller ends an epoch, whatever else is called.
func TestR24TheEndOfAnEpochIsTheCallers(t *testing.T) {
	criterion := newCriterion(t, ols.Options{Classes: 3})
	before := softLabelsOf(t, criterion)
	for step := range uint64(20) {
		logits, targets := batchOf(step, 20, 3)
		must(t, criterion.SetMode([]ols.Mode{ols.Train, ols.Eval}[step%2]))
		_, err := ols.LossAndGrad(criterion, logits, targets, make([]float32, 60))
		must(t, err)
	}
	must(t, criterion.UnmarshalBinary(stateOf(t, criterion)))
	report, err := criterion.Report()
	must(t, err)
	if epoch, err := criterion.Epoch(); err != nil || epoch != 0 || report.RunningSamplesAccumulated == 0 || !slices.Equal(softLabelsOf(t, criterion), before) {
		t.Errorf("epoch %d (%v), %+v", epoch, err, report)
	}
	must(t, criterion.NextEpoch())
	if epoch, err := criterion.Epoch(); err != nil || epoch != 1 || slices.Equal(softLabelsOf(t, criterion), before) {
		t.Errorf("epoch %d (%v) after NextEpoch", epoch, err)
	}
}
