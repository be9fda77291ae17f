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

// The difference between these benchmarks shows the overhead; internal/overhead measures it more accurately.

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
