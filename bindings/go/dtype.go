package ols

import (
	"fmt"
	"unsafe"

	"libols/ols/internal/capi"
)

// Float16 holds the bits of an IEEE 754 binary16 number. This package does no arithmetic on it.
type Float16 uint16

// BFloat16 holds the bits of a bfloat16 number, the upper half of a float32. This package does no arithmetic on it.
type BFloat16 uint16

// Float lists the element types of logits and gradients.
type Float interface {
	float32 | float64 | Float16 | BFloat16
}

// Label lists the element types of targets. An int has 32 or 64 bits, depending on the platform.
type Label interface {
	int | int64 | int32 | uint8
}

// Element lists the element types of a Tensor.
type Element interface {
	Float | Label
}

// AsFloat16 views a slice of another package's 16-bit type as Float16, without copying.
func AsFloat16[T ~uint16](bits []T) []Float16 {
	return unsafe.Slice((*Float16)(unsafe.Pointer(unsafe.SliceData(bits))), len(bits))
}

// AsBFloat16 views a slice of another package's 16-bit type as BFloat16, without copying.
func AsBFloat16[T ~uint16](bits []T) []BFloat16 {
	return unsafe.Slice((*BFloat16)(unsafe.Pointer(unsafe.SliceData(bits))), len(bits))
}

// DType is the element type of a tensor, as used for device memory.
type DType int32

// The dtypes, named as in the library.
const (
	F32  DType = capi.DTypeF32
	F64  DType = capi.DTypeF64
	F16  DType = capi.DTypeF16
	BF16 DType = capi.DTypeBF16
	I64  DType = capi.DTypeI64
	I32  DType = capi.DTypeI32
	U8   DType = capi.DTypeU8
)

// String returns the library's name of the dtype, such as "bf16".
func (d DType) String() string {
	switch d {
	case F32:
		return "f32"
	case F64:
		return "f64"
	case F16:
		return "f16"
	case BF16:
		return "bf16"
	case I64:
		return "i64"
	case I32:
		return "i32"
	case U8:
		return "u8"
	}
	return fmt.Sprintf("DType(%d)", int32(d))
}

func dtypeOf[T Element]() DType {
	var zero T
	switch any(zero).(type) {
	case float32:
		return F32
	case float64:
		return F64
	case Float16:
		return F16
	case BFloat16:
		return BF16
	case int64:
		return I64
	case int32:
		return I32
	case uint8:
		return U8
	}
	// T is int.
	if unsafe.Sizeof(zero) == 4 {
		return I32
	}
	return I64
}
