// Overhead measures what the Go package adds to a call of libols, in nanoseconds, over a loop in C, at 128x10 float32: loss, gradient and
// statistics. It prints one line of JSON: `added_ns` is that of the function
// LossAndGrad over slices, `batch_added_ns` that of the method with a Batch made for each call. They take turns, and the least of each counts.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"libols/ols"
	"libols/ols/internal/bare"
)

const (
	samples = 128
	classes = 10
	calls   = 2000
	rounds  = 60
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "overhead:", err)
		os.Exit(1)
	}
}

func run() error {
	logits, grad, targets := make([]float32, samples*classes), make([]float32, samples*classes), make([]int64, samples)
	for i := range logits {
		logits[i] = float32(i*7%31) / 8
	}
	for i := range targets {
		targets[i] = int64(i % classes)
	}
	criterion, err := ols.New(ols.Options{Classes: classes})
	if err != nil {
		return err
	}
	defer criterion.Close()
	loop, err := bare.New(samples, classes)
	if err != nil {
		return err
	}
	defer loop.Close()

	ways := [3]time.Duration{1 << 62, 1 << 62, 1 << 62}
	take := func(way int, elapsed time.Duration) { ways[way] = min(ways[way], elapsed) }
	for range rounds {
		elapsed, err := loop.Run(logits, targets, grad, calls)
		if err != nil {
			return err
		}
		take(0, elapsed)
		begin := time.Now()
		for range calls {
			if _, err := ols.LossAndGrad(criterion, logits, targets, grad); err != nil {
				return err
			}
		}
		take(1, time.Since(begin))
		begin = time.Now()
		for range calls {
			batch := ols.Batch{Logits: ols.Matrix(logits, samples, classes), Targets: ols.Vector(targets)}
			if _, err := criterion.LossAndGrad(&batch, ols.Matrix(grad, samples, classes)); err != nil {
				return err
			}
		}
		take(2, time.Since(begin))
	}
	perCall := func(way int) float64 { return float64(ways[way].Nanoseconds()) / calls }
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"wrapper": "go", "samples": samples, "classes": classes, "dtype": "f32",
		"c_ns": perCall(0), "wrapper_ns": perCall(1), "added_ns": perCall(1) - perCall(0), "batch_added_ns": perCall(2) - perCall(0),
	})
}
