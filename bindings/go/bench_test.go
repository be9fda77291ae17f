package ols_test

import (
	"testing"

	"libols/ols"
	"libols/ols/internal/bare"
)

const benchSamples, benchClasses = 128, 10

func benchInputs() ([]float32, []int64, []float32) {
	logits, targets := batchOf(1, benchSamples, benchClasses)
	labels := make([]int64, benchSamples)
	for i, target := range targets {
		labels[i] = int64(target)
	}
	return logits, labels, make([]float32, len(logits))
}

// Calls allocate nothing, whatever they are given.
func TestNoAllocations(t *testing.T) {
	logits, labels, grad := benchInputs()
	wide := make([]float64, len(logits)) // Probabilities too.
	doubles := make([]float64, len(logits))
	criterion := newCriterion(t, ols.Options{Classes: benchClasses})
	batch := ols.Batch{Logits: ols.Matrix(logits, benchSamples, benchClasses), Targets: ols.Vector(labels)}
	for name, call := range map[string]func() error{
		"LossAndGrad over slices": func() error { _, err := ols.LossAndGrad(criterion, logits, labels, grad); return err },
		"LossAndGrad of float64":  func() error { _, err := ols.LossAndGrad(criterion, wide, labels, doubles); return err },
		"a batch for each call": func() error {
			lam, scale := 0.5, float32(8)
			batch := ols.Batch{
				Logits: ols.Rows(logits, benchSamples, benchClasses, benchClasses), Targets: ols.Vector(labels), Targets2: ols.Vector(labels),
				Lam: ols.Scalar(&lam), GradLoss: ols.Scalar(&scale), Update: ols.NoUpdate,
			}
			_, err := criterion.LossAndGrad(&batch, ols.Array(grad, benchSamples, benchClasses))
			return err
		},
		"Forward": func() error {
			var loss float32
			return criterion.Forward(&batch, ols.Scalar(&loss), ols.Tensor{})
		},
		"Backward": func() error {
			return criterion.Backward(&batch, ols.Tensor{}, ols.Matrix(grad, benchSamples, benchClasses))
		},
		"Accumulate": func() error {
			return criterion.Accumulate(&ols.Batch{Logits: ols.Matrix(wide, benchSamples, benchClasses), Targets: ols.Vector(labels)})
		},
		"NextEpoch": func() error { return criterion.NextEpoch() },
		"Report":    func() error { _, err := criterion.Report(); return err },
		"Epoch":     func() error { _, err := criterion.Epoch(); return err },
		"SetAlpha":  func() error { return criterion.SetAlpha(0.25) },
	} {
		must(t, call())
		if count := testing.AllocsPerRun(100, func() {
			if err := call(); err != nil {
				t.Error(err)
			}
		}); count != 0 {
			t.Errorf("%s allocates %v times", name, count)
		}
	}
}

// What is added to a call shows in the difference of these; internal/overhead measures it with more care.

func BenchmarkBareC(b *testing.B) {
	logits, labels, grad := benchInputs()
	loop, err := bare.New(benchSamples, benchClasses)
	must(b, err)
	defer loop.Close()
	b.ResetTimer()
	_, err = loop.Run(logits, labels, grad, b.N)
	must(b, err)
}

func BenchmarkLossAndGrad(b *testing.B) {
	logits, labels, grad := benchInputs()
	criterion := newCriterion(b, ols.Options{Classes: benchClasses})
	b.ReportAllocs()
	for b.Loop() {
		_, err := ols.LossAndGrad(criterion, logits, labels, grad)
		must(b, err)
	}
}

func BenchmarkLossAndGradOfBatch(b *testing.B) {
	logits, labels, grad := benchInputs()
	criterion := newCriterion(b, ols.Options{Classes: benchClasses})
	b.ReportAllocs()
	for b.Loop() {
		batch := ols.Batch{Logits: ols.Matrix(logits, benchSamples, benchClasses), Targets: ols.Vector(labels)}
		_, err := criterion.LossAndGrad(&batch, ols.Matrix(grad, benchSamples, benchClasses))
		must(b, err)
	}
}
