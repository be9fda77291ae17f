package ols_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"libols/ols"
)

func TestMain(m *testing.M) {
	if _, err := os.Stat(vectorFolder); err != nil {
		fmt.Fprintln(os.Stderr, "the tests need the repository around the module:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func newCriterion(t testing.TB, options ols.Options) *ols.Criterion {
	t.Helper()
	criterion, err := ols.New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, criterion.Close()) })
	return criterion
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fails checks the status and the whole message.
func fails(t testing.TB, err error, status ols.Status, words string) {
	t.Helper()
	var failure *ols.Error
	if !errors.Is(err, status) || !errors.As(err, &failure) || failure.Status != status || failure.Message != err.Error() {
		t.Errorf("%v does not match %v", err, status)
		return
	}
	if err.Error() != words {
		t.Errorf("the message is %q, not %q", err, words)
	}
}

// batchOf draws logits (n, k) and targets, three in four of them classified correctly.
func batchOf(seed uint64, n, k int) ([]float32, []int) {
	random := rand.New(rand.NewPCG(seed, 0))
	logits, targets := make([]float32, n*k), make([]int, n)
	for i := range logits {
		logits[i] = float32(random.NormFloat64())
	}
	for i := range targets {
		targets[i] = random.IntN(k)
		if i%4 != 3 {
			logits[i*k+targets[i]] += 8
		}
	}
	return logits, targets
}

func stateOf(t testing.TB, criterion *ols.Criterion) []byte {
	t.Helper()
	state, err := criterion.MarshalBinary()
	must(t, err)
	return state
}

func sameState(t testing.TB, one, other *ols.Criterion) {
	t.Helper()
	if !bytes.Equal(stateOf(t, one), stateOf(t, other)) {
		t.Fatal("the states differ")
	}
}

func softLabelsOf(t testing.TB, criterion *ols.Criterion) []float32 {
	t.Helper()
	softLabels, err := criterion.SoftLabels()
	must(t, err)
	return softLabels
}

func copyOf[T any](values []T) []T { return slices.Clone(values) }
