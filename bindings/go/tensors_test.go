package ols_test

import (
	"math"
	"slices"
	"testing"

	"libols/ols"
)

// r17: each Go type gives the same results.
func TestR17Labels(t *testing.T) {
	logits, targets := batchOf(1, 9, 5)
	var i64 []int64
	var i32 []int32
	var u8 []uint8
	for _, target := range targets {
		i64, i32, u8 = append(i64, int64(target)), append(i32, int32(target)), append(u8, uint8(target))
	}
	want, grad := passed(t, logits, targets)
	for _, check := range []func() (float64, []float32){
		func() (float64, []float32) { return passed(t, logits, i64) },
		func() (float64, []float32) { return passed(t, logits, i32) },
		func() (float64, []float32) { return passed(t, logits, u8) },
	} {
		if loss, g := check(); loss != want || !slices.Equal(g, grad) {
			t.Errorf("loss %v, not %v", loss, want)
		}
	}
}

func passed[F ols.Float, L ols.Label](t *testing.T, logits []F, targets []L) (float64, []F) {
	criterion := newCriterion(t, ols.Options{Classes: len(logits) / len(targets)})
	grad := make([]F, len(logits))
	loss, err := ols.LossAndGrad(criterion, logits, targets, grad)
	must(t, err)
	return loss, grad
}

// r17: logits that are representable in every type have nearly the same loss in each, and the gradients agree up to the
// precision of the types.
func TestR17Logits(t *testing.T) {
	targets := []int{0, 2}
	values := []float64{2, 0.125, -1, 0.25, 0.5, 3}
	var f32 []float32
	var f16 []ols.Float16
	var bf16 []ols.BFloat16
	var foreign []uint16
	for _, value := range values {
		f32, f16, bf16 = append(f32, float32(value)), append(f16, toFloat16(value)), append(bf16, toBFloat16(value))
		foreign = append(foreign, uint16(toFloat16(value)))
	}
	want, exact := passed(t, values, targets)
	near := func(name string, loss float64, grad []float64, tolerance float64) {
		if math.Abs(loss-want) > 1e-6 {
			t.Errorf("%s: loss %v, not %v", name, loss, want)
		}
		for i := range grad {
			if math.Abs(grad[i]-exact[i]) > tolerance {
				t.Errorf("%s: gradient[%d] %v, not %v", name, i, grad[i], exact[i])
			}
		}
	}
	loss, g32 := passed(t, f32, targets)
	near("float32", loss, doubles(g32, func(x float32) float64 { return float64(x) }), 1e-6)
	loss, g16 := passed(t, f16, targets)
	near("Float16", loss, doubles(g16, fromFloat16), 1.0/2048)
	loss, gb16 := passed(t, bf16, targets)
	near("BFloat16", loss, doubles(gb16, fromBFloat16), 1.0/256)
	if _, g := passed(t, ols.AsFloat16(foreign), targets); !slices.Equal(g, g16) {
		t.Error("the bits of another package's type give a different gradient")
	}
	if view := ols.AsBFloat16(foreign); len(view) != 6 || &foreign[0] != (*uint16)(&view[0]) {
		t.Error("AsBFloat16 made a copy")
	}
	if len(ols.AsFloat16[uint16](nil)) != 0 {
		t.Error("nil has elements")
	}
}

func doubles[T any](values []T, convert func(T) float64) []float64 {
	var all []float64
	for _, value := range values {
		all = append(all, convert(value))
	}
	return all
}

// r16: a view is read and written in place, and nothing outside it.
func TestR16Views(t *testing.T) {
	const n, k = 4, 3
	logits, targets := batchOf(1, n, k)
	loss, grad := passed(t, logits, targets)

	// Columns of a wider matrix, in reverse order, into rows of another one.
	wide := make([]float32, n*10)
	for i := range n {
		for j := range k {
			wide[i*10+8-3*j] = logits[i*k+j]
		}
	}
	padded := make([]float32, n*5)
	criterion := newCriterion(t, ols.Options{Classes: k})
	batch := ols.Batch{Logits: ols.Strided(wide, 8, []int{n, k}, []int{10, -3}), Targets: ols.Vector(targets)}
	again, err := criterion.LossAndGrad(&batch, ols.Rows(padded, n, k, 5))
	must(t, err)
	for i := range n {
		if again != loss || !slices.Equal(padded[i*5:i*5+k], grad[i*k:i*k+k]) || padded[i*5+3] != 0 || padded[i*5+4] != 0 {
			t.Fatalf("row %d: %v", i, padded[i*5:i*5+5])
		}
	}

	// One sample for all rows, by a stride of 0.
	row := copyOf(logits[:k])
	batch = ols.Batch{Logits: ols.Strided(row, 0, []int{n, k}, []int{0, 1}), Targets: ols.Strided(targets, 0, []int{n}, []int{0})}
	repeated, err := criterion.Loss(&batch)
	must(t, err)
	single, err := criterion.Loss(&ols.Batch{Logits: ols.Matrix(row, 1, k), Targets: ols.Vector(targets[:1])})
	must(t, err)
	if math.Abs(repeated-single) > 1e-6 {
		t.Errorf("%v is not %v", repeated, single)
	}
}

// r20: the gradient in place of the logits, if requested.
func TestR20InPlace(t *testing.T) {
	const n, k = 4, 3
	logits, targets := batchOf(1, n, k)
	_, grad := passed(t, logits, targets)
	criterion := newCriterion(t, ols.Options{Classes: k})
	inPlace := copyOf(logits)
	_, err := ols.LossAndGrad(criterion, inPlace, targets, inPlace)
	must(t, err)
	if !slices.Equal(inPlace, grad) {
		t.Error("the gradient differs if it is written in place of the logits")
	}
	// The library rejects any other overlap.
	memory := make([]float32, n*k+1)
	_, err = ols.LossAndGrad(criterion, memory[:n*k], targets, memory[1:])
	if err == nil {
		t.Error("an output that overlaps an input was accepted")
	}
}

func TestViewsStayInsideTheirSlice(t *testing.T) {
	data := make([]float32, 12)
	criterion := newCriterion(t, ols.Options{Classes: 3})
	const huge = math.MaxInt
	for _, it := range []struct {
		tensor ols.Tensor
		words  string
	}{
		{ols.Rows(data, 4, 3, 4), "the view reaches from element 0 to 14 of a slice of 12 elements"},
		{ols.Strided(data, -1, []int{4, 3}, []int{3, 1}), "the view reaches from element -1 to 10 of a slice of 12 elements"},
		{ols.Strided(data, 0, []int{4, 3}, []int{3, -1}), "the view reaches from element -2 to 9 of a slice of 12 elements"},
		{ols.Strided(data, 0, []int{huge, huge}, []int{huge, huge}), "the view reaches from element 0 to 9223372036854775807 of a slice of 12 elements"},
		{ols.Strided(data, 0, []int{huge, huge}, []int{math.MinInt, -1}),
			"the view reaches from element -9223372036854775808 to 0 of a slice of 12 elements"},
		{ols.Strided(data, 12, []int{}, []int{}), "the view reaches from element 12 to 12 of a slice of 12 elements"},
		{ols.Strided(data, 0, []int{2, 2, 3, 1}, []int{6, 3, 1, 1}),
			"a view of 4 dimensions: a tensor has at most 3 (collapse those after the class into one)"},
		{ols.Strided(data, 0, []int{4, 3}, []int{3}), "a view of 2 dimensions with 1 strides"},
		{ols.Array(data, 4, 4), "a slice of length 12 does not have the shape (4, 4)"},
		{ols.Array(data, 2, 2, 3, 1), "an array of 4 dimensions: a tensor has at most 3 (collapse those after the class into one)"},
		{ols.Matrix(data, huge, huge), "a slice of length 12 does not have the shape (9223372036854775807, 9223372036854775807)"},
		{ols.Matrix(data, 1<<62, 4), "a slice of length 12 does not have the shape (4611686018427387904, 4)"},
		{ols.DeviceArray(1, ols.F32, ols.Device{}, []int{4, 3}, []int{1}), "an array of 2 dimensions with 1 strides"},
	} {
		fails(t, criterion.SetSoftLabels(it.tensor), ols.InvalidShape, "ols.SetSoftLabels: soft_labels: "+it.words)
	}
	// The library rejects negative sizes, whatever the strides.
	err := criterion.SetSoftLabels(ols.Strided(data, 5, []int{-3, 3}, []int{huge, huge}))
	fails(t, err, ols.InvalidShape, err.Error())
}

// r19: empty batches, from nil and from empty slices.
func TestR19Empty(t *testing.T) {
	for _, reduction := range []ols.Reduction{ols.ReductionMean, ols.ReductionSum} {
		criterion := newCriterion(t, ols.Options{Classes: 3, Reduction: reduction})
		for _, empty := range [][]float32{nil, {}, make([]float32, 5)[5:]} {
			loss, err := ols.LossAndGrad(criterion, empty, []int{}, empty)
			must(t, err)
			if loss != 0 {
				t.Errorf("the loss of an empty batch is %v", loss)
			}
		}
		_, err := criterion.Loss(&ols.Batch{Logits: ols.Strided[float64](nil, 7, []int{0, 3}, []int{1 << 40, 1}), Targets: ols.Vector[int](nil)})
		must(t, err)
	}
	criterion := newCriterion(t, ols.Options{Classes: 3, Reduction: ols.ReductionNone})
	must(t, criterion.Forward(&ols.Batch{Logits: ols.Matrix([]float32{}, 0, 3), Targets: ols.Vector([]int{})}, ols.Vector([]float32{}), ols.Tensor{}))
}

// r18: one-based labels by an offset, and the ignore index as given by the user.
func TestR18LabelsFromOne(t *testing.T) {
	logits, targets := batchOf(5, 6, 4)
	loss, _ := passed(t, logits, targets)
	fromOne := make([]int, len(targets))
	for i, target := range targets {
		fromOne[i] = target + 1
	}
	criterion := newCriterion(t, ols.Options{Classes: 4, IgnoreIndex: ols.Ptr(0)})
	batch := ols.Batch{Logits: ols.Matrix(logits, 6, 4), Targets: ols.Vector(fromOne), TargetOffset: 1}
	again, err := criterion.Loss(&batch)
	must(t, err)
	if again != loss {
		t.Errorf("%v is not %v", again, loss)
	}
	fromOne[2] = 0 // ignored
	_, err = criterion.Loss(&batch)
	must(t, err)
	fromOne[2] = 5
	_, err = criterion.Loss(&batch)
	fails(t, err, ols.TargetOutOfRange, "ols_forward: target[2] = 5 is outside [1, 5) and is not ignore_index (0)")
}

// r17: for a criterion on the CPU, device memory is an error that names both devices; it is not read. internal/standin
// tests the rest.
func TestR17Devices(t *testing.T) {
	criterion := newCriterion(t, ols.Options{Classes: 3})
	device := ols.Device{Type: ols.CUDADevice, ID: 1}
	logits := ols.DeviceArray(0x7f0000000000, ols.BF16, device, []int{4, 3}, nil)
	_, err := criterion.Loss(&ols.Batch{Logits: logits, Targets: ols.Vector(make([]int, 4)), Stream: 0x1234})
	fails(t, err, ols.InvalidDevice, "ols_forward: logits.device = cuda:1, but the criterion is on cpu")
	if shape := logits.Shape(); !slices.Equal(shape, []int{4, 3}) || logits.DType() != ols.BF16 || logits.IsZero() {
		t.Errorf("%v of %v", shape, logits.DType())
	}
}
