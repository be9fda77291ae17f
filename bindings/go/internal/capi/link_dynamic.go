//go:build !ols_static

package capi

// #cgo pkg-config: ols
import "C"
