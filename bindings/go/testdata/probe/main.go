// Probe makes calls on whatever libols it finds, and prints addresses, so that the tests can compare them with what the
// library received.
package main

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"libols/ols"
)

func main() {
	criterion, err := ols.New(ols.Options{Classes: 3})
	if err != nil {
		fmt.Println("wrong library:", errors.Is(err, ols.ErrLibrary))
		fmt.Println(err)
		os.Exit(3)
	}
	logits, targets, grad := make([]float32, 24), make([]int32, 4), make([]float32, 12)
	batch := ols.Batch{
		Logits:        ols.Strided(logits, 21, []int{4, 3}, []int{-6, 1}),
		Targets:       ols.Vector(targets),
		SampleWeights: ols.DeviceArray(0x7f1234567000, ols.F64, ols.Device{Type: ols.CUDADevice, ID: 2}, []int{4}, nil),
		Targets2:      ols.DeviceArray(0x7f1234568000, ols.U8, ols.Device{Type: ols.CUDAHost}, []int{2, 2}, []int{1, 2}),
		TargetOffset:  -5,
		Update:        ols.TakeBack,
		Stream:        0xabc0,
	}
	err = criterion.Forward(&batch, ols.Tensor{}, ols.Matrix(grad, 4, 3))
	var failure *ols.Error
	if errors.As(err, &failure) {
		fmt.Printf("status %d, %s, is 77: %t: %v\n", failure.Status, failure.Status.String(), errors.Is(err, ols.Status(77)), err)
	}
	fmt.Printf("go: logits %p, targets %p, grad %p, %d\n", &logits[21], unsafe.SliceData(targets), unsafe.SliceData(grad), len(grad))
	if err := criterion.NextEpoch(0xabc0); err != nil {
		fmt.Println(err)
	}
	criterion.Close()
	criterion.Close()
}
