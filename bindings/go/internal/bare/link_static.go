//go:build ols_static

// libols.a comes first and resolves everything, so that --as-needed drops the libols.so that pkg-config names as well.

package bare

// #cgo LDFLAGS: -Wl,--as-needed -l:libols.a
// #cgo pkg-config: --static ols
import "C"
