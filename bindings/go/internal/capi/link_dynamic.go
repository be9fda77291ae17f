//go:build !ols_static

package capi

// #cgo pkg-config: ols
// #cgo linux LDFLAGS: -ldl
import "C"
