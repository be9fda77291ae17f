package ols

import (
	"fmt"
	"math/bits"
	"strings"
	"unsafe"

	"libols/ols/internal/capi"
)

// Tensor is a view of up to three dimensions on memory of its owner: a Go slice or memory of a device. It is made by [Vector], [Matrix],
// [Rows], [Array], [Strided], [Scalar] and [DeviceArray], is passed by value, and copies nothing. The zero Tensor stands for "not given".
//
// What is wrong with a view (a slice that is too short, for example) is the error of the call that takes it.
type Tensor struct {
	view capi.Tensor
	// The element whose indices are all 0, in host memory.
	host unsafe.Pointer
	// What is wrong with the view; "" if nothing is.
	problem string
}

// Vector views a slice as (len(data)).
func Vector[T Element](data []T) (t Tensor) {
	// The result by its name, here and in Matrix: it is written where the caller wants it, without a copy.
	t.host = unsafe.Pointer(unsafe.SliceData(data))
	setVector(&t.view, dtypeOf[T](), len(data))
	return t
}

// Matrix views a slice of rows*columns elements as (rows, columns), row-major.
func Matrix[T Element](data []T, rows, columns int) (t Tensor) {
	t.host = unsafe.Pointer(unsafe.SliceData(data))
	setMatrix(&t.view, dtypeOf[T](), rows, columns)
	if !isProduct(len(data), rows, columns) {
		t.problem = noMatrix(len(data), rows, columns)
	}
	return t
}

//go:noinline
func noMatrix(length, rows, columns int) string {
	return fmt.Sprintf("a slice of %d elements is no matrix of (%d, %d)", length, rows, columns)
}

// Rows views rows*columns elements of a slice as (rows, columns), with each row stride elements after the one before: what gonum's
// blas64.General and images with padded lines are.
func Rows[T Element](data []T, rows, columns, stride int) Tensor {
	return Strided(data, 0, []int{rows, columns}, []int{stride, 1})
}

// Array views a slice as a row-major array of up to three dimensions; the product of the shape is the slice's length. Without a shape it is
// one value.
func Array[T Element](data []T, shape ...int) Tensor {
	if len(shape) > 3 {
		return broken("an array of %d dimensions: a tensor has at most 3 (collapse those behind the class into one)", len(shape))
	}
	t := newTensor[T](data)
	t.view.NDim = int32(len(shape))
	elements := 1
	for d := len(shape) - 1; d >= 0; d-- {
		t.view.Shape[d] = int64(shape[d])
		t.view.Strides[d] = int64(elements)
		elements = product(elements, shape[d])
	}
	if elements != len(data) {
		t.problem = fmt.Sprintf("a slice of %d elements is no array of %v", len(data), append([]int{}, shape...))
	}
	return t
}

// Strided views a slice with any steps, in elements: element (i, j, k) is data[offset + i*strides[0] + j*strides[1] + k*strides[2]]. Steps may
// be negative; a step of 0 repeats an element and is for inputs alone. Every element of the view must lie inside the slice.
func Strided[T Element](data []T, offset int, shape, strides []int) Tensor {
	if len(shape) > 3 {
		return broken("a view of %d dimensions: a tensor has at most 3 (collapse those behind the class into one)", len(shape))
	}
	if len(shape) != len(strides) {
		return broken("a view of %d dimensions with %d strides", len(shape), len(strides))
	}
	t := newTensor[T](data)
	t.view.NDim = int32(len(shape))
	low, high, empty := offset, offset, false
	for d, size := range shape {
		t.view.Shape[d] = int64(size)
		t.view.Strides[d] = int64(strides[d])
		empty = empty || size <= 0
		if reach := product(size-1, strides[d]); reach < 0 {
			low = sum(low, reach)
		} else {
			high = sum(high, reach)
		}
	}
	if empty {
		// There is no element to point to, wherever the offset is; a negative size is the library's error.
		return t
	}
	if low < 0 || high >= len(data) {
		return broken("the view reaches from element %d to %d of a slice of %d elements", low, high, len(data))
	}
	t.host = unsafe.Pointer(&data[offset])
	return t
}

// Scalar views one value: a lam or a gradient of the loss that holds for all samples.
func Scalar[T Element](value *T) Tensor {
	t := newTensor[T](nil)
	t.host = unsafe.Pointer(value)
	return t
}

// DevicePtr is an address in the memory of a device, such as a CUdeviceptr.
type DevicePtr uintptr

// Device says where memory lies. The zero Device is the host.
type Device struct {
	Type DeviceType
	// ID is the number of a CUDA device.
	ID int
}

// DeviceType is a kind of device, with DLPack's numbers; 0 stands for the host.
type DeviceType int32

const (
	// CPU is host memory.
	CPU DeviceType = capi.DeviceCPU
	// CUDADevice is memory of a CUDA device.
	CUDADevice DeviceType = capi.DeviceCUDA
	// CUDAHost is pinned host memory.
	CUDAHost DeviceType = capi.DeviceCUDAHost
	// CUDAManaged is CUDA's managed memory, which the library does not support yet.
	CUDAManaged DeviceType = capi.DeviceCUDAManaged
)

// Stream is a cudaStream_t. The CPU does not look at it.
type Stream uintptr

// DeviceArray views device memory, or host memory that is not Go's. The address is that of the element whose indices are all 0; strides are
// in elements, and nil stands for row-major. The memory is the caller's, and stays until the work that a call enqueued has run.
func DeviceArray(address DevicePtr, dtype DType, device Device, shape, strides []int) Tensor {
	if len(shape) > 3 {
		return broken("an array of %d dimensions: a tensor has at most 3 (collapse those behind the class into one)", len(shape))
	}
	if strides != nil && len(shape) != len(strides) {
		return broken("an array of %d dimensions with %d strides", len(shape), len(strides))
	}
	t := Tensor{view: viewOf(dtype)}
	t.view.Address = uintptr(address)
	t.view.NDim = int32(len(shape))
	if device.Type != 0 {
		t.view.DeviceType = int32(device.Type)
	}
	t.view.DeviceID = int32(device.ID)
	elements := 1
	for d := len(shape) - 1; d >= 0; d-- {
		t.view.Shape[d] = int64(shape[d])
		t.view.Strides[d] = int64(elements)
		if strides != nil {
			t.view.Strides[d] = int64(strides[d])
		}
		elements = product(elements, shape[d])
	}
	return t
}

// IsZero tells whether nothing is given.
func (t Tensor) IsZero() bool { return t == Tensor{} }

// Address gives what DeviceArray was given; 0 for a view of a slice.
func (t Tensor) Address() DevicePtr { return DevicePtr(t.view.Address) }

// Shape gives the sizes of the dimensions.
func (t Tensor) Shape() []int {
	shape := make([]int, t.view.NDim)
	for d := range shape {
		shape[d] = int(t.view.Shape[d])
	}
	return shape
}

// DType gives the type of the elements; 0 for the zero Tensor.
func (t Tensor) DType() DType { return DType(int32(t.view.Code) | int32(t.view.Bits)<<8) }

func viewOf(dtype DType) (view capi.Tensor) {
	setDType(&view, dtype)
	return view
}

// These write over a view of zeros.

func setDType(view *capi.Tensor, dtype DType) {
	view.DeviceType = capi.DeviceCPU
	view.Code, view.Bits, view.Lanes = uint8(dtype), uint8(dtype>>8), 1
}

func setVector(view *capi.Tensor, dtype DType, size int) {
	setDType(view, dtype)
	view.NDim = 1
	view.Shape[0] = int64(size)
	view.Strides[0] = 1
}

func setMatrix(view *capi.Tensor, dtype DType, rows, columns int) {
	setDType(view, dtype)
	view.NDim = 2
	view.Shape[0], view.Shape[1] = int64(rows), int64(columns)
	view.Strides[0], view.Strides[1] = int64(columns), 1
}

func newTensor[T Element](data []T) Tensor {
	return Tensor{view: viewOf(dtypeOf[T]()), host: unsafe.Pointer(unsafe.SliceData(data))}
}

// broken makes a tensor that every call refuses.
func broken(format string, numbers ...int) Tensor {
	values := make([]any, len(numbers))
	for i, number := range numbers {
		values[i] = number
	}
	return Tensor{view: viewOf(F32), problem: fmt.Sprintf(format, values...)}
}

// check says what is wrong with the view, by the name of the argument.
func (t *Tensor) check(call, name string) error {
	if t.problem == "" {
		return nil
	}
	return t.complain(call, name)
}

func (t *Tensor) complain(call, name string) error {
	// A clone: the compiler does not tell fields apart, and with the text all memory of the view would escape to the heap.
	return &Error{InvalidShape, fmt.Sprintf("%s: %s: %s", call, name, strings.Clone(t.problem))}
}

// isGiven is false for a tensor of zeros alone: every other one has a dtype, or came from DeviceArray with a device.
func (t *Tensor) isGiven() bool { return t.view.DeviceType != 0 }

// given is nil for a tensor that is not given.
func (t *Tensor) given() *capi.Tensor {
	if !t.isGiven() {
		return nil
	}
	return &t.view
}

const (
	largest  = int(^uint(0) >> 1)
	smallest = -largest - 1
)

// isProduct tells whether count is a times b, both not negative; without a division, as it is on the way of every call.
func isProduct(count, a, b int) bool {
	high, low := bits.Mul64(uint64(a), uint64(b))
	return a|b >= 0 && high == 0 && low == uint64(count)
}

// product and sum give the nearest int where the result is none.

func product(a, b int) int {
	if a == 0 || b == 0 {
		return 0
	}
	if c := a * b; c/b == a && !(a == -1 && b == smallest) && !(b == -1 && a == smallest) {
		return c
	}
	if (a < 0) == (b < 0) {
		return largest
	}
	return smallest
}

func sum(a, b int) int {
	c := a + b
	switch {
	case a > 0 && b > 0 && c < 0:
		return largest
	case a < 0 && b < 0 && c >= 0:
		return smallest
	}
	return c
}
