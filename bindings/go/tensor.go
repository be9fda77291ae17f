package ols

import (
	"fmt"
	"math/bits"
	"strings"
	"unsafe"

	"libols/ols/internal/capi"
)

// Tensor is a non-owning view of a Go slice or of device memory, with up to three dimensions. It is created by
// [Vector], [Matrix], [Rows], [Array], [Strided], [Scalar] or [DeviceArray], is passed by value, and copies nothing.
// The zero Tensor means "not given".
//
// An invalid view, for example of a slice that is too short, is reported by the call that uses it.
type Tensor struct {
	view capi.Tensor
	// host is the address of the element whose indices are all 0, in host memory.
	host unsafe.Pointer
	// problem says why the view is invalid; it is empty if the view is valid. status is its kind.
	problem string
	status  Status
}

// Vector views a slice as (len(data)).
func Vector[T Element](data []T) (t Tensor) {
	// A named result, here and in Matrix, is written directly to its destination, without a copy.
	t.host = unsafe.Pointer(unsafe.SliceData(data))
	setVector(&t.view, dtypeOf[T](), len(data))
	return t
}

// Matrix views a slice of rows*columns elements as (rows, columns), row-major.
func Matrix[T Element](data []T, rows, columns int) (t Tensor) {
	t.host = unsafe.Pointer(unsafe.SliceData(data))
	setMatrix(&t.view, dtypeOf[T](), rows, columns)
	if !isProduct(len(data), rows, columns) {
		t.problem, t.status = noMatrix(len(data), rows, columns), InvalidShape
	}
	return t
}

//go:noinline
func noMatrix(length, rows, columns int) string {
	return fmt.Sprintf("a slice of length %d does not have the shape (%d, %d)", length, rows, columns)
}

// Rows views a slice as (rows, columns), where each row begins stride elements after the previous one, as in gonum's
// blas64.General or in images with padded rows.
func Rows[T Element](data []T, rows, columns, stride int) Tensor {
	return Strided(data, 0, []int{rows, columns}, []int{stride, 1})
}

// Array views a slice as a row-major array of up to three dimensions. The product of the shape must be the length of
// the slice. An empty shape is a single value.
func Array[T Element](data []T, shape ...int) Tensor {
	if len(shape) > 3 {
		return broken("an array of %d dimensions: a tensor has at most 3 (collapse those after the class into one)", len(shape))
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
		sizes := strings.ReplaceAll(strings.Trim(fmt.Sprint(append([]int{}, shape...)), "[]"), " ", ", ")
		t.problem, t.status = fmt.Sprintf("a slice of length %d does not have the shape (%s)", len(data), sizes), InvalidShape
	}
	return t
}

// Strided views a slice with arbitrary strides, in elements: element (i, j, k) is data[offset + i*strides[0] +
// j*strides[1] + k*strides[2]]. Strides may be negative. A stride of 0 repeats an element and is allowed for inputs
// only. Every element of the view must be inside the slice.
func Strided[T Element](data []T, offset int, shape, strides []int) Tensor {
	if len(shape) > 3 {
		return broken("a view of %d dimensions: a tensor has at most 3 (collapse those after the class into one)", len(shape))
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
		// There is no element to point to, whatever the offset. A negative size is reported by the library.
		return t
	}
	if low < 0 || high >= len(data) {
		return broken("the view reaches from element %d to %d of a slice of %d elements", low, high, len(data))
	}
	t.host = unsafe.Pointer(&data[offset])
	return t
}

// Scalar views a single value: a lam or an upstream gradient for all samples.
func Scalar[T Element](value *T) Tensor {
	t := newTensor[T](nil)
	t.host = unsafe.Pointer(value)
	return t
}

// DevicePtr is an address in device memory, such as a CUdeviceptr.
type DevicePtr uintptr

// Device says where memory is. The zero Device is the host.
type Device struct {
	Type DeviceType
	// ID is the index of a CUDA device.
	ID int
}

// DeviceType is a kind of device, with DLPack's numbers; 0 means the host.
type DeviceType int32

const (
	// CPU is host memory.
	CPU DeviceType = capi.DeviceCPU
	// CUDADevice is memory of a CUDA device.
	CUDADevice DeviceType = capi.DeviceCUDA
	// CUDAHost is pinned host memory.
	CUDAHost DeviceType = capi.DeviceCUDAHost
	// CUDAManaged is CUDA managed memory, which is not supported yet.
	CUDAManaged DeviceType = capi.DeviceCUDAManaged
)

// Stream is a cudaStream_t. It is ignored on the CPU.
type Stream uintptr

// DeviceArray views device memory, or host memory that was not allocated by Go. address is that of the element whose
// indices are all 0. strides are in elements; nil means row-major. The memory remains the property of the caller and
// must stay valid until the enqueued work has completed.
func DeviceArray(address DevicePtr, dtype DType, device Device, shape, strides []int) Tensor {
	if len(shape) > 3 {
		return broken("an array of %d dimensions: a tensor has at most 3 (collapse those after the class into one)", len(shape))
	}
	if strides != nil && len(shape) != len(strides) {
		return broken("an array of %d dimensions with %d strides", len(shape), len(strides))
	}
	t := Tensor{view: viewOf(dtype)}
	if int(int32(device.ID)) != device.ID {
		t.problem, t.status = fmt.Sprintf("the device index %d does not fit in 32 bits", device.ID), InvalidDevice
		return t
	}
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

// IsZero reports whether t is the zero Tensor, which means "not given".
func (t Tensor) IsZero() bool { return t == Tensor{} }

// Address returns the address given to DeviceArray, or 0 for a view of a slice.
func (t Tensor) Address() DevicePtr { return DevicePtr(t.view.Address) }

// Shape returns the sizes of the dimensions.
func (t Tensor) Shape() []int {
	shape := make([]int, t.view.NDim)
	for d := range shape {
		shape[d] = int(t.view.Shape[d])
	}
	return shape
}

// DType returns the element type, or 0 for the zero Tensor.
func (t Tensor) DType() DType { return DType(int32(t.view.Code) | int32(t.view.Bits)<<8) }

func viewOf(dtype DType) (view capi.Tensor) {
	setDType(&view, dtype)
	return view
}

// The following functions expect a view that is zero.

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

// broken returns a tensor that every call rejects.
func broken(format string, numbers ...int) Tensor {
	values := make([]any, len(numbers))
	for i, number := range numbers {
		values[i] = number
	}
	return Tensor{view: viewOf(F32), problem: fmt.Sprintf(format, values...), status: InvalidShape}
}

// check returns an error that names the argument if the view is invalid.
func (t *Tensor) check(call, name string) error {
	if t.problem == "" {
		return nil
	}
	return t.complain(call, name)
}

func (t *Tensor) complain(call, name string) error {
	// The message is cloned because escape analysis does not distinguish fields: without the clone, all memory of the
	// view would escape to the heap.
	return &Error{t.status, fmt.Sprintf("%s: %s: %s", call, name, strings.Clone(t.problem))}
}

// isGiven reports whether the tensor is given. Every tensor except the zero one has a device type.
func (t *Tensor) isGiven() bool { return t.view.DeviceType != 0 }

// given returns nil for a tensor that is not given.
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

// isProduct reports whether count is a times b, neither of which is negative. It avoids a division, because every call
// uses it.
func isProduct(count, a, b int) bool {
	high, low := bits.Mul64(uint64(a), uint64(b))
	return a|b >= 0 && high == 0 && low == uint64(count)
}

// product and sum return the nearest int on overflow.

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
