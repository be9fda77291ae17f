package ols_test

import (
	"sync"
	"testing"

	"libols/ols"
)

// r14: the statistics from several goroutines are bitwise identical to those from one.
func TestR14Goroutines(t *testing.T) {
	const workers, batches, n, k = 8, 6, 33, 10
	one, many := newCriterion(t, ols.Options{Classes: k}), newCriterion(t, ols.Options{Classes: k})
	var group sync.WaitGroup
	for worker := range workers {
		for batch := range batches {
			logits, targets := batchOf(uint64(worker*batches+batch), n, k)
			_, err := ols.LossAndGrad(one, logits, targets, make([]float32, n*k))
			must(t, err)
		}
		group.Add(1)
		go func() {
			defer group.Done()
			for batch := range batches {
				logits, targets := batchOf(uint64(worker*batches+batch), n, k)
				if _, err := ols.LossAndGrad(many, logits, targets, make([]float32, n*k)); err != nil {
					t.Error(err)
				}
				// Every goroutine also reads the state meanwhile.
				if _, err := many.SoftLabels(); err != nil {
					t.Error(err)
				}
				if _, err := many.Report(); err != nil {
					t.Error(err)
				}
				if _, err := many.Options(); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	group.Wait()
	sameState(t, one, many)
	must(t, one.NextEpoch())
	must(t, many.NextEpoch())
	sameState(t, one, many)
}

// r26: several criteria whose statistics are summed before NextEpoch equal a single one that has seen every batch.
func TestR26AllReduce(t *testing.T) {
	const workers, n, k = 3, 40, 7
	whole := newCriterion(t, ols.Options{Classes: k})
	var parts [workers]*ols.Criterion
	for i := range parts {
		parts[i] = newCriterion(t, ols.Options{Classes: k})
		logits, targets := batchOf(uint64(i), n, k)
		for _, criterion := range []*ols.Criterion{parts[i], whole} {
			must(t, criterion.Forward(&ols.Batch{Logits: ols.Matrix(logits, n, k), Targets: ols.Vector(targets)}, ols.Tensor{}, ols.Tensor{}))
		}
	}
	// The sum of all, as a message-passing library would compute it.
	var sums [k * k]int64
	var counts [k]int64
	var counters [ols.NumCounters]int64
	visit := func(f func(total, part *int64)) {
		for _, criterion := range parts {
			must(t, criterion.WithStatistics(func(statistics ols.Statistics) error {
				for i := range k {
					row := statistics.Sums.Row(i)
					for j := range row {
						f(&sums[i*k+j], &row[j])
					}
					f(&counts[i], &statistics.Counts[i])
				}
				for i := range counters {
					f(&counters[i], &statistics.Counters[i])
				}
				return nil
			}))
		}
	}
	visit(func(total, part *int64) { *total += *part })
	visit(func(total, part *int64) { *part = *total })
	must(t, whole.NextEpoch())
	for _, criterion := range parts {
		must(t, criterion.NextEpoch())
		sameState(t, whole, criterion)
	}
}
