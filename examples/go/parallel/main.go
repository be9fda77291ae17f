// Parallel trains softmax regression on the digits with goroutines as workers, each with its own criterion and a share
// of every batch. At the end of an epoch the statistics of all workers are summed, so that every worker gets, bit for
// bit, the soft labels of a single worker that has seen every sample. The program checks this against training with one
// worker. Run it in examples/go:
//
//	go run ./parallel [--workers N] [--epochs N]
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"libols/examples/go/internal/images"
	"libols/ols"
)

const (
	batchSize = 64
	rate      = 0.5
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "parallel:", err)
		os.Exit(1)
	}
}

func run(arguments []string, out, usage io.Writer) error {
	flags := flag.NewFlagSet("parallel", flag.ContinueOnError)
	flags.SetOutput(usage)
	workers := flags.Int("workers", 4, "goroutines that train")
	epochs := flags.Int("epochs", 10, "epochs")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *workers < 1 || *epochs < 1 || flags.NArg() > 0 {
		return errors.New("workers and epochs must be at least 1, and no other arguments are allowed")
	}
	data, err := images.Read("")
	if err != nil {
		return err
	}
	alone, err := train(data, 1, *epochs)
	if err != nil {
		return err
	}
	together, err := train(data, *workers, *epochs)
	if err != nil {
		return err
	}
	if !slices.Equal(alone.softLabels, together.softLabels) || !slices.Equal(alone.weights, together.weights) {
		return fmt.Errorf("the soft labels of %d workers differ from those of one", *workers)
	}
	fmt.Fprintf(out, "%d workers, %d epochs: loss %.4f; soft labels and weights are bit for bit those of one worker\n", *workers, *epochs, together.loss)
	eight := together.softLabels[8*data.Classes : 9*data.Classes]
	fmt.Fprintf(out, "what an 8 looks like: %.3f\n", eight)
	return nil
}

type outcome struct {
	softLabels []float32
	weights    []float32
	// loss is the mean over the last epoch.
	loss float64
}

// model is softmax regression with weights (inputs, classes); the last input is 1.
type model struct {
	weights         []float32
	inputs, classes int
}

func (m *model) logits(image []float64, logits []float32) {
	copy(logits, m.weights[(m.inputs-1)*m.classes:])
	for i, pixel := range image {
		for k := range logits {
			logits[k] += float32(pixel) * m.weights[i*m.classes+k]
		}
	}
}

// descend updates the weights of some inputs, sample by sample, so that the sums do not depend on how the workers share
// the inputs.
func (m *model) descend(batch []int, grad []float32, data *images.Set, begin, end int) {
	for n, sample := range batch {
		image, row := data.Image(sample), grad[n*m.classes:(n+1)*m.classes]
		for i := begin; i < end; i++ {
			pixel := float32(1)
			if i < len(image) {
				pixel = float32(image[i])
			}
			for k, g := range row {
				m.weights[i*m.classes+k] -= rate * pixel * g
			}
		}
	}
}

func train(data *images.Data, workers, epochs int) (outcome, error) {
	criteria := make([]*ols.Criterion, workers)
	for i := range criteria {
		// The reduction is the sum, because a worker does not know the size of the whole batch; the bits of a row do
		// not depend on the other rows.
		criterion, err := ols.New(ols.Options{Classes: data.Classes, Reduction: ols.ReductionSum, Threads: ols.Ptr(1)})
		if err != nil {
			return outcome{}, err
		}
		defer criterion.Close()
		criteria[i] = criterion
	}
	set := data.Train
	pixels := set.Width * set.Height
	m := model{make([]float32, (pixels+1)*data.Classes), pixels + 1, data.Classes}
	logits, losses := make([]float32, batchSize*data.Classes), make([]float64, workers)
	total := 0.0
	for range epochs {
		total = 0
		for begin := 0; begin < set.Len(); begin += batchSize {
			batch := make([]int, min(batchSize, set.Len()-begin))
			labels := make([]int, len(batch))
			for n := range batch {
				batch[n], labels[n] = begin+n, set.Labels[begin+n]
			}
			scale := 1 / float32(len(batch))
			// The samples are divided among the workers; each writes its rows of the gradient in place of its rows of
			// the logits.
			err := each(workers, func(worker int) (err error) {
				from, to := share(len(batch), worker, workers)
				rows := logits[from*m.classes : to*m.classes]
				for n := from; n < to; n++ {
					m.logits(set.Image(batch[n]), logits[n*m.classes:(n+1)*m.classes])
				}
				view := ols.Matrix(rows, to-from, m.classes)
				losses[worker], err = criteria[worker].LossAndGrad(
					&ols.Batch{Logits: view, Targets: ols.Vector(labels[from:to]), GradLoss: ols.Scalar(&scale)}, view)
				return err
			})
			if err != nil {
				return outcome{}, err
			}
			// Then the weights are divided.
			err = each(workers, func(worker int) error {
				from, to := share(m.inputs, worker, workers)
				m.descend(batch, logits, set, from, to)
				return nil
			})
			if err != nil {
				return outcome{}, err
			}
			for _, loss := range losses {
				total += loss
			}
		}
		if err := allReduce(criteria); err != nil {
			return outcome{}, err
		}
		for _, criterion := range criteria {
			if err := criterion.NextEpoch(); err != nil {
				return outcome{}, err
			}
		}
	}
	softLabels, err := criteria[workers-1].SoftLabels()
	return outcome{softLabels, m.weights, total / float64(set.Len())}, err
}

// share returns a worker's part of n items.
func share(n, worker, workers int) (from, to int) {
	return n * worker / workers, n * (worker + 1) / workers
}

// each runs f for every worker, each in its own goroutine.
func each(workers int, f func(worker int) error) error {
	problems := make([]error, workers)
	var group sync.WaitGroup
	for worker := range workers {
		group.Add(1)
		go func() {
			defer group.Done()
			problems[worker] = f(worker)
		}()
	}
	group.Wait()
	return errors.Join(problems...)
}

// allReduce gives every criterion the sum of all statistics. They are integers, so the order makes no difference.
func allReduce(criteria []*ols.Criterion) error {
	k := criteria[0].Classes()
	total := make([]int64, k*k+k+ols.NumCounters)
	visit := func(f func(values, total []int64)) error {
		for _, criterion := range criteria {
			err := criterion.WithStatistics(func(statistics ols.Statistics) error {
				for class := range k {
					f(statistics.Sums.Row(class), total[class*k:])
				}
				f(statistics.Counts, total[k*k:])
				f(statistics.Counters, total[k*k+k:])
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
	err := visit(func(values, total []int64) {
		for i, value := range values {
			total[i] += value
		}
	})
	if err != nil {
		return err
	}
	return visit(func(values, total []int64) { copy(values, total) })
}
