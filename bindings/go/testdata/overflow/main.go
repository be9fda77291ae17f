// Overflow passes C memory to the library with a size that is too large. Under AddressSanitizer this must end the
// program, inside the library.
package main

// #include <stdlib.h>
import "C"

import (
	"fmt"

	"libols/ols"
)

func main() {
	criterion, err := ols.New(ols.Options{Classes: 3})
	if err != nil {
		fmt.Println(err)
		return
	}
	memory := C.calloc(30, 4)
	logits := ols.DeviceArray(ols.DevicePtr(uintptr(memory)), ols.F32, ols.Device{}, []int{20, 3}, nil)
	loss, err := criterion.Loss(&ols.Batch{Logits: logits, Targets: ols.Vector(make([]int, 20))})
	fmt.Println("nothing was noticed", loss, err)
}
