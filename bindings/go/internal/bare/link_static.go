//go:build ols_static

package bare

// libols.a comes first and resolves everything, so that --as-needed drops the libols.so that pkg-config names as well.
//
// #cgo LDFLAGS: -Wl,--as-needed -l:libols.a
// #cgo pkg-config: --static ols
import "C"
