//go:build !asan

package ols_test

import (
	"testing"

	"libols/ols"
)

// Calls do not allocate, whatever they are given. (Under AddressSanitizer, Go itself moves to the heap what is
// otherwise on the stack.)
func TestNoAllocations(t *testing.T) {
	logits, labels, grad := benchInputs()
	wide := make([]float64, len(logits)) // also valid as probabilities
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
