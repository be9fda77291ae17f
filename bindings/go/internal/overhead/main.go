// Overhead measures how many nanoseconds the Go package adds to a call of libols, compared with a loop in C, at 128x10
// float32: loss, gradient and statistics. It prints two lines of benches/languages/run: one for the function
// LossAndGrad on slices, and one for the method with a Batch created for each call.
package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"libols/ols"
	"libols/ols/internal/bare"
)

const (
	samples = 128
	classes = 10
	calls   = 50
	// The arrays are placed at this many positions, one cache line apart, because their position relative to the stack,
	// modulo a page, changes the time of a call by some hundred nanoseconds in either language. Medians are over these
	// positions.
	places = 32
	line   = 64
	// The fastest of this many short tries at each position counts; the others were disturbed.
	tries = 24
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "overhead:", err)
		os.Exit(1)
	}
}

func run() error {
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

	memory := make([]float32, 2*samples*classes+places*line/4)
	labels := make([]int64, samples)
	names := [3]string{"", "Go", "Go, Batch"}
	var times, added [3][]float64
	var bytes [3]uint64
	for place := range places {
		logits := memory[place*line/4:][:samples*classes]
		grad := memory[samples*classes+place*line/4:][:samples*classes]
		for i := range logits {
			logits[i] = float32(i*7%31) / 8
		}
		for i := range labels {
			labels[i] = int64(i % classes)
		}
		least := [3]time.Duration{1 << 62, 1 << 62, 1 << 62}
		measures := [3]func() (time.Duration, error){
			func() (time.Duration, error) { return loop.Run(logits, labels, grad, calls) },
			func() (time.Duration, error) { return overSlices(criterion, logits, labels, grad) },
			func() (time.Duration, error) { return overBatches(criterion, logits, labels, grad) },
		}
		for range tries {
			for way, measure := range measures {
				elapsed, err := measure()
				if err != nil {
					return err
				}
				least[way] = min(least[way], elapsed)
			}
		}
		// Not while the time is measured, because reading the memory statistics stops the world.
		for way, measure := range measures {
			before := allocated()
			if _, err := measure(); err != nil {
				return err
			}
			bytes[way] = max(bytes[way], (allocated()-before)/calls)
		}
		for way := range least {
			times[way] = append(times[way], float64(least[way].Nanoseconds())/calls)
			added[way] = append(added[way], float64((least[way]-least[0]).Nanoseconds())/calls)
		}
	}
	for way := 1; way < len(names); way++ {
		fmt.Printf("%s\t%.1f\t%.1f\t%.1f\t%d\n", names[way], median(times[0]), median(times[way]), median(added[way]), bytes[way])
	}
	return nil
}

// allocated returns the number of bytes that Go has allocated so far.
func allocated() uint64 {
	var statistics runtime.MemStats
	runtime.ReadMemStats(&statistics)
	return statistics.TotalAlloc
}

func overSlices(criterion *ols.Criterion, logits []float32, labels []int64, grad []float32) (time.Duration, error) {
	begin := time.Now()
	for range calls {
		if _, err := ols.LossAndGrad(criterion, logits, labels, grad); err != nil {
			return 0, err
		}
	}
	return time.Since(begin), nil
}

func overBatches(criterion *ols.Criterion, logits []float32, labels []int64, grad []float32) (time.Duration, error) {
	begin := time.Now()
	for range calls {
		batch := ols.Batch{Logits: ols.Matrix(logits, samples, classes), Targets: ols.Vector(labels)}
		if _, err := criterion.LossAndGrad(&batch, ols.Matrix(grad, samples, classes)); err != nil {
			return 0, err
		}
	}
	return time.Since(begin), nil
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
