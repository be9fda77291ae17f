package standin_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"

	"libols/ols"
	"libols/ols/internal/standin"
)

const n, k = 12, 5

var device = ols.Device{Type: ols.CUDADevice, ID: 1}

func TestMain(m *testing.M) {
	build := exec.Command("../../../stand-in-driver")
	build.Stderr = os.Stderr
	path, err := build.Output()
	if err == nil {
		err = standin.Open(strings.TrimSpace(string(path)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the stand-in for the driver:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func fails(t *testing.T, err error, status ols.Status, words string) {
	t.Helper()
	if !errors.Is(err, status) || !strings.Contains(err.Error(), words) {
		t.Errorf("%v does not match %v with %q", err, status, words)
	}
}

func newCriterion(t *testing.T, options ols.Options) *ols.Criterion {
	t.Helper()
	criterion, err := ols.New(options)
	must(t, err)
	t.Cleanup(func() { must(t, criterion.Close()) })
	return criterion
}

// put views a copy of values on the device.
func put[T ols.Element](values []T, shape ...int) ols.Tensor {
	return ols.DeviceArray(ols.DevicePtr(standin.Memory(device.ID, values)), ols.Vector(values).DType(), device, shape, nil)
}

func logits() []float64 {
	values := make([]float64, n*k)
	for i := range values {
		// These numbers are representable in f16 and bf16; the classes 0 to 4 in turn are the largest.
		values[i] = float64(i*37%19) / 8
		if i%k == i/k%k {
			values[i] += 4
		}
	}
	return values
}

func labels[T ols.Label]() []T {
	values := make([]T, n)
	for i := range values {
		values[i] = T(i % k)
		if i%3 == 0 {
			values[i] = T((i + 1) % k)
		}
	}
	return values
}

func converted[T any](from func(float64) T) []T {
	values := make([]T, n*k)
	for i, value := range logits() {
		values[i] = from(value)
	}
	return values
}

func half(value float64) ols.Float16 {
	if value == 0 {
		return 0
	}
	fraction, exponent := math.Frexp(value)
	return ols.Float16(uint16(exponent+14)<<10 + uint16((2*fraction-1)*1024))
}

func ofHalf(bits ols.Float16) float64 {
	sign, exponent, fraction := 1-2*float64(bits>>15), int(bits>>10&31), float64(bits&1023)
	if exponent == 0 {
		return sign * math.Ldexp(fraction, -24)
	}
	return sign * math.Ldexp(1+fraction/1024, exponent-15)
}

func brain(value float64) ols.BFloat16    { return ols.BFloat16(math.Float32bits(float32(value)) >> 16) }
func ofBrain(bits ols.BFloat16) float64   { return float64(math.Float32frombits(uint32(bits) << 16)) }
func single(value float64) float32        { return float32(value) }
func ofSingle(value float32) float64      { return float64(value) }
func double(value float64) float64        { return value }
func isNear(is, was, within float64) bool { return math.Abs(is-was) <= within }

// onBoth makes a pass on host and device and compares the results.
func onBoth[F ols.Float, L ols.Label](t *testing.T, from func(float64) F, to func(F) float64, within float64) {
	t.Helper()
	host := newCriterion(t, ols.Options{Classes: k, Alpha: ols.Ptr(0.25)})
	there := newCriterion(t, ols.Options{Classes: k, Alpha: ols.Ptr(0.25), Device: device})
	z, y, grad := converted(from), labels[L](), make([]F, n*k)
	loss, err := ols.LossAndGrad(host, z, y, grad)
	must(t, err)

	stream := ols.Stream(standin.Stream(device.ID))
	batch := ols.Batch{Logits: put(z, n, k), Targets: put(y, n), Stream: stream}
	toGrad, gradAt := put(make([]F, n*k), n, k), uintptr(0)
	toLoss, lossAt := put([]float64{-1}), uintptr(0)
	if toGrad.DType() != ols.F64 {
		toLoss = put([]float32{-1})
	}
	gradAt, lossAt = uintptr(toGrad.Address()), uintptr(toLoss.Address())
	// A warm-up call, because the first call may allocate what later ones use.
	must(t, there.Forward(&ols.Batch{Logits: batch.Logits, Targets: batch.Targets, Stream: stream, Update: ols.NoUpdate}, toLoss, toGrad))
	standin.Wait()
	waits, allocations := standin.Get("synchronisations"), standin.Get("allocations")
	must(t, there.Forward(&batch, toLoss, toGrad))
	if standin.Get("synchronisations") != waits || standin.Get("allocations") != allocations || standin.Get("queued") == 0 {
		t.Error("the call synchronised, allocated, or enqueued nothing")
	}
	if standin.Get("last_stream") != int64(stream) {
		t.Error("the work was enqueued on another stream")
	}
	for i, value := range standin.Read[F](gradAt, n*k) {
		if !isNear(to(value), to(grad[i]), within) {
			t.Fatalf("gradient %d is %v, not %v", i, to(value), to(grad[i]))
		}
	}
	onDevice := 0.0
	if toLoss.DType() == ols.F64 {
		onDevice = standin.Read[float64](lossAt, 1)[0]
	} else {
		onDevice = float64(standin.Read[float32](lossAt, 1)[0])
	}
	if !isNear(onDevice, loss, 1e-5) {
		t.Errorf("the loss is %v, not %v", onDevice, loss)
	}
	// The gradient computed alone is bitwise identical to that of the pass.
	again := put(make([]F, n*k), n, k)
	must(t, there.Backward(&batch, ols.Tensor{}, again))
	first, second := standin.Read[F](gradAt, n*k), standin.Read[F](uintptr(again.Address()), n*k)
	for i := range first {
		if first[i] != second[i] {
			t.Fatalf("Backward gives %v for gradient %d, not %v", to(second[i]), i, to(first[i]))
		}
	}

	must(t, host.NextEpoch())
	must(t, there.NextEpoch(stream))
	report, err := there.Report(stream)
	must(t, err)
	if report.RowsMeasured != k || report.SamplesAccumulated != 8 {
		t.Errorf("%+v", report)
	}
	// A criterion on the host loads what the one on the device saves.
	bytes, err := there.MarshalBinary()
	must(t, err)
	loaded := newCriterion(t, ols.Options{Classes: k})
	must(t, loaded.UnmarshalBinary(bytes))
	is, err := loaded.SoftLabels()
	must(t, err)
	was, err := host.SoftLabels()
	must(t, err)
	for i := range was {
		if !isNear(float64(is[i]), float64(was[i]), math.Ldexp(1, -29)+math.Ldexp(float64(was[i]), -22)) {
			t.Errorf("soft label %d is %v, not %v", i, is[i], was[i])
		}
	}
}

// r21, r17: device tensors are passed as they are, on the caller's stream, without synchronisation.
func TestR21DeviceMemory(t *testing.T) {
	t.Run("f32", func(t *testing.T) { onBoth[float32, int64](t, single, ofSingle, 1e-6) })
	t.Run("f64", func(t *testing.T) { onBoth[float64, int32](t, double, double, 1e-13) })
	t.Run("f16", func(t *testing.T) { onBoth[ols.Float16, uint8](t, half, ofHalf, 2e-4) })
	t.Run("bf16", func(t *testing.T) { onBoth[ols.BFloat16, int](t, brain, ofBrain, 2e-3) })
}

// r21, r26: a state in device memory of the caller, who may sum it over workers; the host must not read it.
func TestR26StateOnTheDevice(t *testing.T) {
	softLabels, sums, counts := put(make([]float32, k*k), k, k), put(make([]int64, k*k), k, k), put(make([]int64, k), k)
	there := newCriterion(t, ols.Options{Classes: k, Device: device, SoftLabels: softLabels, Sums: sums, Counts: counts})
	batch := ols.Batch{Logits: put(converted(single), n, k), Targets: put(labels[int64](), n)}
	must(t, there.Forward(&batch, ols.Tensor{}, ols.Tensor{}))
	total := int64(0)
	for _, count := range standin.Read[int64](uintptr(counts.Address()), k) {
		total += count
	}
	if total != 8 {
		t.Errorf("%d samples are counted, not 8", total)
	}
	must(t, there.NextEpoch())
	row := standin.Read[float32](uintptr(softLabels.Address()), k*k)[:k]
	if sum := row[0] + row[1] + row[2] + row[3] + row[4]; !isNear(float64(sum), 1, 1e-6) {
		t.Errorf("row 0 sums to %v", sum)
	}
	fails(t, there.WithStatistics(func(ols.Statistics) error { panic("called") }), ols.InvalidDevice, "ols.WithStatistics: the statistics are on cuda:1")
	fails(t, there.WithSoftLabels(func(ols.RowsOf[float32]) error { panic("called") }), ols.InvalidDevice, "ols.WithSoftLabels: the soft labels are on cuda:1")
	_, err := there.SoftLabels()
	fails(t, err, ols.InvalidDevice, "cuda:1")
	options, err := there.Options()
	must(t, err)
	if options.Device != device {
		t.Errorf("the options say %+v", options.Device)
	}
}

// Invalid input: memory of a device other than the criterion's, devices that do not exist, labels that only the device
// can read.
func TestR17OtherDevices(t *testing.T) {
	there := newCriterion(t, ols.Options{Classes: k, Device: device})
	host := ols.Batch{Logits: ols.Matrix(converted(single), n, k), Targets: ols.Vector(labels[int64]())}
	fails(t, there.Forward(&host, ols.Tensor{}, ols.Tensor{}), ols.InvalidDevice, "logits.device = cpu")
	batch := ols.Batch{Logits: put(converted(single), n, k), Targets: put(labels[int64](), n)}
	_, err := there.Loss(&batch)
	fails(t, err, ols.InvalidDevice, "loss.device = cpu")
	fails(t, newCriterion(t, ols.Options{Classes: k}).Forward(&batch, ols.Tensor{}, ols.Tensor{}), ols.InvalidDevice, "logits.device = cuda:1")
	_, err = ols.New(ols.Options{Classes: k, Device: ols.Device{Type: ols.CUDADevice, ID: 7}})
	fails(t, err, ols.InvalidDevice, "device_id = 7 is outside [0, 2)")

	wrong := labels[int64]()
	wrong[3] = 99
	batch.Targets = put(wrong, n)
	must(t, there.Forward(&batch, ols.Tensor{}, ols.Tensor{}))
	report, err := there.Report()
	must(t, err)
	if report.RunningTargetsOutOfRange != 1 {
		t.Errorf("%d targets are out of range", report.RunningTargetsOutOfRange)
	}
}
