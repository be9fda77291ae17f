package ols_test

import (
	"fmt"
	"math"

	"libols/ols"
)

// block is memory of one dtype together with a view of it, both as described by a case.
type block struct {
	dtype  string
	view   vectorView
	tensor ols.Tensor
	get    func(place int) float64
	put    func(place int, value float64)
	// bits returns the bits of an element, to compare memory.
	bits func(place int) uint64
}

func blockOf[T ols.Element](dtype string, view vectorView, get func(T) float64, put func(float64) T, bits func(T) uint64) *block {
	data := make([]T, view.length())
	// The memory is not zero, so that an output that was not written is noticed.
	for i := range data {
		data[i] = put(-85)
	}
	return &block{
		dtype:  dtype,
		view:   view,
		tensor: ols.Strided(data, view.Offset, view.Shape, view.strides()),
		get:    func(place int) float64 { return get(data[place]) },
		put:    func(place int, value float64) { data[place] = put(value) },
		bits:   func(place int) uint64 { return bits(data[place]) },
	}
}

func newBlock(dtype string, view vectorView) *block {
	switch dtype {
	case "f32":
		return blockOf(dtype, view, func(x float32) float64 { return float64(x) }, func(v float64) float32 { return float32(v) },
			func(x float32) uint64 { return uint64(math.Float32bits(x)) })
	case "f64":
		return blockOf(dtype, view, func(x float64) float64 { return x }, func(v float64) float64 { return v }, math.Float64bits)
	case "f16":
		return blockOf(dtype, view, fromFloat16, toFloat16, func(x ols.Float16) uint64 { return uint64(x) })
	case "bf16":
		return blockOf(dtype, view, fromBFloat16, toBFloat16, func(x ols.BFloat16) uint64 { return uint64(x) })
	}
	panic(dtype)
}

func integers[T ols.Label](targets *vectorTargets) ols.Tensor {
	data := make([]T, targets.View.length())
	for i := range data {
		data[i] = 77
	}
	for flat, value := range targets.Values {
		place, _ := targets.View.place(flat)
		data[place] = T(value)
	}
	return ols.Strided(data, targets.View.Offset, targets.View.Shape, targets.View.strides())
}

func tensorOfTargets(targets *vectorTargets) ols.Tensor {
	switch targets.DType {
	case "i64":
		return integers[int64](targets)
	case "i32":
		return integers[int32](targets)
	case "u8":
		return integers[uint8](targets)
	}
	panic(targets.DType)
}

func blockOfNumbers(numbers *vectorNumbers) *block {
	b := newBlock(numbers.DType, numbers.View)
	for flat, value := range numbers.Values {
		place, _ := numbers.View.place(flat)
		b.put(place, float64(value))
	}
	return b
}

func blockOfLogits(logits *vectorLogits) *block {
	b := newBlock(logits.DType, logits.View)
	for flat, value := range logits.values() {
		place, _ := logits.View.place(flat)
		b.put(place, value)
	}
	return b
}

// values returns the numbers in logical order.
func (b *block) values() []float64 {
	values := make([]float64, b.view.elements())
	for flat := range values {
		place, _ := b.view.place(flat)
		values[flat] = b.get(place)
	}
	return values
}

// allBits returns the bits of the whole memory.
func (b *block) allBits() []uint64 {
	all := make([]uint64, b.view.length())
	for i := range all {
		all[i] = b.bits(i)
	}
	return all
}

// untouched compares the memory with an earlier copy: all of it, or only what is outside the view.
func (b *block) untouched(before []uint64, whole bool) error {
	named := make(map[int]bool)
	for flat := 0; !whole && flat < b.view.elements(); flat++ {
		place, _ := b.view.place(flat)
		named[place] = true
	}
	for i, was := range before {
		if is := b.bits(i); is != was && !named[i] {
			return fmt.Errorf("element %d of the memory was written", i)
		}
	}
	return nil
}

func power(exponent int) float64 { return math.Ldexp(1, exponent) }

// The following functions convert 16-bit numbers; those that are encoded are representable exactly.

func toFloat16(value float64) ols.Float16 {
	var sign uint16
	if math.Signbit(value) {
		sign = 0x8000
	}
	value = math.Abs(value)
	fraction, exponent := math.Frexp(value) // in [0.5, 1)
	switch {
	case math.IsNaN(value):
		return 0x7e00
	case math.IsInf(value, 0):
		return ols.Float16(sign | 0x7c00)
	case value == 0:
		return ols.Float16(sign)
	case exponent < -13:
		return ols.Float16(sign | uint16(math.Ldexp(fraction, exponent+24)))
	}
	return ols.Float16(sign | uint16(exponent+14)<<10 | uint16(math.Ldexp(fraction, 11))&1023)
}

func fromFloat16(bits ols.Float16) float64 {
	exponent, fraction := int(bits>>10&31), float64(bits&1023)
	var value float64
	switch {
	case exponent == 31 && fraction != 0:
		return math.NaN()
	case exponent == 31:
		value = math.Inf(1)
	case exponent == 0:
		value = math.Ldexp(fraction, -24)
	default:
		value = math.Ldexp(1024+fraction, exponent-25)
	}
	if bits&0x8000 != 0 {
		return -value
	}
	return value
}

func toBFloat16(value float64) ols.BFloat16 {
	return ols.BFloat16(math.Float32bits(float32(value)) >> 16)
}

func fromBFloat16(bits ols.BFloat16) float64 {
	return float64(math.Float32frombits(uint32(bits) << 16))
}
