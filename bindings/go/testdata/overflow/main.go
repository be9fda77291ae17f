// Overflow gives the library a slice that claims more than its memory: under AddressSanitizer that must end the program.
package main

import (
	"fmt"
	"unsafe"

	"libols/ols"
)

func main() {
	criterion, err := ols.New(ols.Options{Classes: 3})
	if err != nil {
		fmt.Println(err)
		return
	}
	logits := make([]float32, 30)
	liar := unsafe.Slice(&logits[0], 60)
	loss, err := ols.LossAndGrad(criterion, liar, make([]int, 20), make([]float32, 60))
	fmt.Println("nothing was noticed", loss, err)
}
