// Idle imports the package and, without an argument, does nothing with it.
package main

import (
	"os"

	"libols/ols"
)

func main() {
	if len(os.Args) > 1 {
		_, _ = ols.New(ols.Options{Classes: 3})
	}
}
