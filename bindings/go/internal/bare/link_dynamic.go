//go:build !ols_static

package bare

// #cgo pkg-config: ols
import "C"
