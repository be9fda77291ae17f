package ols_test

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"libols/ols"
)

func Example() {
	criterion, err := ols.New(ols.Options{Classes: 3})
	if err != nil {
		log.Fatal(err)
	}
	defer criterion.Close()

	logits := []float32{2, 0.1, -1, 0.3, 0.2, 0.1} // 2 samples, 3 classes
	labels := []int{0, 2}
	grad := make([]float32, len(logits))
	loss, err := ols.LossAndGrad(criterion, logits, labels, grad)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("loss %.4f, gradient of the first sample %+.4f\n", loss, grad[:3])

	// Once per epoch.
	if err := criterion.NextEpoch(); err != nil {
		log.Fatal(err)
	}
	report, err := criterion.Report()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d of 3 classes measured\n", report.RowsMeasured)
	// Output:
	// loss 0.7494, gradient of the first sample [-0.0581 +0.0499 +0.0083]
	// 1 of 3 classes measured
}

func ExampleNew() {
	criterion, err := ols.New(ols.Options{
		Classes:    10,
		Alpha:      ols.Ptr(0.25),
		EmptyClass: ols.EmptyClassUniform,
		Reduction:  ols.ReductionSum,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer criterion.Close()
	options, err := criterion.Options()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("alpha", *options.Alpha, "initial", options.Initial, "smoothing", *options.Smoothing)

	_, err = ols.New(ols.Options{Classes: 10, Alpha: ols.Ptr(1.5)})
	fmt.Println(err)
	// Output:
	// alpha 0.25 initial smoothing smoothing 0.1
	// ols_create: alpha = 1.5 is outside [0, 1]
}

func ExampleError() {
	criterion, err := ols.New(ols.Options{Classes: 3})
	if err != nil {
		log.Fatal(err)
	}
	defer criterion.Close()
	_, err = ols.LossAndGrad(criterion, make([]float32, 6), []int{0, 7}, make([]float32, 6))
	fmt.Println(errors.Is(err, ols.TargetOutOfRange))
	var failure *ols.Error
	if errors.As(err, &failure) {
		fmt.Println(int(failure.Status), failure.Message)
	}
	// Output:
	// true
	// 5 ols_forward: target[1] = 7 is outside [0, 3) and is not ignore_index (-100)
}

// A call with all inputs: image segmentation with weights, Mixup targets and a loss scale, and the gradient in place of
// the logits.
func ExampleCriterion_LossAndGrad() {
	const n, k, pixels = 2, 3, 4
	criterion, err := ols.New(ols.Options{Classes: k, ClassWeights: ols.Vector([]float64{1, 2, 0.5})})
	if err != nil {
		log.Fatal(err)
	}
	defer criterion.Close()

	logits := make([]float32, n*k*pixels)
	first, second := []uint8{0, 1, 2, 0, 1, 2, 0, 2}, []uint8{1, 1, 1, 1, 1, 1, 1, 1}
	lam, scale := 0.75, 1024.0
	batch := ols.Batch{
		Logits:   ols.Array(logits, n, k, pixels),
		Targets:  ols.Matrix(first, n, pixels),
		Targets2: ols.Matrix(second, n, pixels),
		Lam:      ols.Scalar(&lam),
		GradLoss: ols.Scalar(&scale),
	}
	loss, err := criterion.LossAndGrad(&batch, batch.Logits)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("loss %.4f\n", loss)
	// Output:
	// loss 1.0903
}

// Logits with the class last, that is, (N, inner, K) in memory, and one-based labels: strides and an offset, without a
// copy.
func ExampleStrided() {
	const n, k, inner = 1, 3, 2
	criterion, err := ols.New(ols.Options{Classes: k, Mode: ols.Eval})
	if err != nil {
		log.Fatal(err)
	}
	defer criterion.Close()
	classLast := []float64{4, 0, 0, 0, 0, 4}
	loss, err := criterion.Loss(&ols.Batch{
		Logits:       ols.Strided(classLast, 0, []int{n, k, inner}, []int{inner * k, 1, k}),
		Targets:      ols.Matrix([]int32{1, 3}, n, inner),
		TargetOffset: 1,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.3f\n", loss)
	// Output:
	// 0.236
}

// Several workers, each with its own criterion: once their statistics are summed, all have the soft labels of a single
// criterion that has seen every sample.
func ExampleCriterion_WithStatistics() {
	const workers, n, k = 4, 64, 5
	newOne := func() *ols.Criterion {
		criterion, err := ols.New(ols.Options{Classes: k})
		if err != nil {
			log.Fatal(err)
		}
		return criterion
	}
	one := newOne()
	defer one.Close()
	criteria := make([]*ols.Criterion, workers)
	var group sync.WaitGroup
	for worker := range workers {
		criteria[worker] = newOne()
		defer criteria[worker].Close()
		logits, labels := batchOf(uint64(worker), n, k)
		if err := one.Forward(&ols.Batch{Logits: ols.Matrix(logits, n, k), Targets: ols.Vector(labels)}, ols.Tensor{}, ols.Tensor{}); err != nil {
			log.Fatal(err)
		}
		group.Add(1)
		go func() {
			defer group.Done()
			if _, err := ols.LossAndGrad(criteria[worker], logits, labels, logits); err != nil {
				log.Fatal(err)
			}
		}()
	}
	group.Wait()

	// All-reduce: sum everything, then write the sums to every criterion. The values are integers, so the result is
	// exact in any order.
	total := make([]int64, k*k+k+ols.NumCounters)
	each := func(visit func(values, total []int64)) {
		for _, criterion := range criteria {
			err := criterion.WithStatistics(func(statistics ols.Statistics) error {
				for class := range k {
					visit(statistics.Sums.Row(class), total[class*k:])
				}
				visit(statistics.Counts, total[k*k:])
				visit(statistics.Counters, total[k*k+k:])
				return nil
			})
			if err != nil {
				log.Fatal(err)
			}
		}
	}
	each(func(values, total []int64) {
		for i, value := range values {
			total[i] += value
		}
	})
	each(func(values, total []int64) { copy(values, total) })

	var want, have []float32
	for i, criterion := range append(criteria, one) {
		err := criterion.NextEpoch()
		if err == nil {
			have, err = criterion.SoftLabels()
		}
		if err != nil {
			log.Fatal(err)
		}
		if i > 0 && !slices.Equal(have, want) {
			log.Fatal("the workers differ")
		}
		want = have
	}
	fmt.Println("all criteria have the same soft labels")
	// Output:
	// all criteria have the same soft labels
}

func ExampleCriterion_Save() {
	criterion, err := ols.New(ols.Options{Classes: 10, Alpha: ols.Ptr(0.3)})
	if err != nil {
		log.Fatal(err)
	}
	defer criterion.Close()
	folder, err := os.MkdirTemp("", "ols")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "criterion.safetensors")
	if err := criterion.Save(path); err != nil {
		log.Fatal(err)
	}

	// Another run, in any language.
	resumed, err := ols.New(ols.Options{Classes: 10})
	if err != nil {
		log.Fatal(err)
	}
	defer resumed.Close()
	if err := resumed.Load(path); err != nil {
		log.Fatal(err)
	}
	one, _ := criterion.MarshalBinary()
	other, _ := resumed.MarshalBinary()
	fmt.Println(bytes.Equal(one, other))
	// Output:
	// true
}

// The state in memory of the caller, to transfer it or to keep it longer than the criterion.
func ExampleOptions_state() {
	const k = 4
	softLabels, sums, counts := make([]float32, k*k), make([]int64, k*k), make([]int64, k)
	criterion, err := ols.New(ols.Options{
		Classes:    k,
		SoftLabels: ols.Matrix(softLabels, k, k),
		Sums:       ols.Matrix(sums, k, k),
		Counts:     ols.Vector(counts),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer criterion.Close()
	if _, err := ols.LossAndGrad(criterion, []float64{0, 0, 9, 0}, []int64{2}, make([]float64, k)); err != nil {
		log.Fatal(err)
	}
	fmt.Println(counts, sums[2*k+2]>>(ols.FractionBits-10), "of 1024")
	// Output:
	// [0 0 1 0] 1023 of 1024
}
