// Digits trains a perceptron on images with cross entropy, label smoothing and online label smoothing, all three
// computed by libols, with clean and with wrong labels, and prints a comparison. Run it in examples/go:
//
//	go run ./digits                 the UCI digits that come with libols
//	go run ./digits --data DIR      the IDX files of the MNIST family in DIR, gzipped or not
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"

	"libols/examples/go/internal/images"
)

type settings struct {
	data                                  string
	epochs, train, batch, hidden, threads int
	seed                                  uint64
	noise, alpha, smoothing, rate, decay  float64
}

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "digits:", err)
		os.Exit(1)
	}
}

func run(arguments []string, out, usage io.Writer) error {
	var s settings
	flags := flag.NewFlagSet("digits", flag.ContinueOnError)
	flags.SetOutput(usage)
	flags.StringVar(&s.data, "data", "", "folder of IDX files (default: the digits that come with libols)")
	flags.IntVar(&s.epochs, "epochs", 100, "epochs of every run")
	flags.IntVar(&s.train, "train", 0, "training images; a sixth as many validate and a third as many test (default: all; 3000 with -data)")
	flags.Uint64Var(&s.seed, "seed", 0, "of split, first weights, batches and wrong labels")
	flags.Float64Var(&s.noise, "noise", 0.4, "share of wrong labels in the noisy runs")
	flags.Float64Var(&s.alpha, "alpha", 0.5, "weight of the hard label in online label smoothing")
	flags.Float64Var(&s.smoothing, "smoothing", 0.1, "epsilon of label smoothing, and of online label smoothing's first epoch")
	flags.IntVar(&s.hidden, "hidden", 128, "units in each of the two hidden layers")
	flags.IntVar(&s.batch, "batch", 64, "images of a batch")
	flags.Float64Var(&s.rate, "learning-rate", 0.05, "at the first step; a cosine takes it to 0")
	flags.Float64Var(&s.decay, "weight-decay", 0.001, "weight decay")
	flags.IntVar(&s.threads, "threads", runtime.GOMAXPROCS(0), "runs at a time")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() > 0 || s.epochs < 1 || s.batch < 1 || s.hidden < 1 || s.threads < 1 || s.train < 0 || !(s.noise >= 0 && s.noise <= 1) {
		return fmt.Errorf("arguments out of range: epochs, batch, hidden and threads must be at least 1, noise must be in [0, 1], and no other arguments are allowed")
	}
	if s.train == 0 {
		s.train = math.MaxInt
		if s.data != "" {
			s.train = 3000
		}
	}
	data, err := images.Read(s.data)
	if err != nil {
		return err
	}
	train, validation, test := data.Split(random(s.seed, splitting), s.train)

	var trials []trial
	for _, noisy := range []bool{false, true} {
		for _, loss := range losses {
			// All trials are created before the first begins, so that an invalid option is reported at once.
			it, err := newTrial(loss, noisy, &s, data.Classes)
			if err != nil {
				return err
			}
			defer it.criterion.Close()
			trials = append(trials, it)
		}
	}
	results, problems := make([]result, len(trials)), make([]error, len(trials))
	places := make(chan struct{}, s.threads)
	var group sync.WaitGroup
	for i, it := range trials {
		group.Add(1)
		go func() {
			defer group.Done()
			places <- struct{}{}
			results[i], problems[i] = it.train(&s, data.Classes, train, validation, test)
			<-places
		}()
	}
	group.Wait()
	if err := errors.Join(problems...); err != nil {
		return err
	}
	return printTable(out, &s, data, results, [3]int{len(train.Indices), len(validation.Indices), len(test.Indices)})
}

// The purposes of random numbers. Each has its own stream, so that all losses get the same splits, weights and batches.
const (
	splitting = iota
	weights
	batches
	wrongLabels
)

func random(seed uint64, purpose uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, purpose)) }
