// Package olsgonum provides in-place views of gonum's matrices and vectors, including slices of larger matrices, as
// tensors of libols. It is a separate module, so that package ols has no dependencies.
package olsgonum

import (
	"gonum.org/v1/gonum/mat"

	"libols/ols"
)

// Dense views a matrix as (rows, columns) float64. The view is valid until the matrix is grown, reset or given other
// data.
func Dense(m *mat.Dense) ols.Tensor {
	raw := m.RawMatrix()
	return ols.Rows(raw.Data, raw.Rows, raw.Cols, raw.Stride)
}

// VecDense views a vector as (length) float64, for sample weights, class weights or losses.
func VecDense(v *mat.VecDense) ols.Tensor {
	raw := v.RawVector()
	return ols.Strided(raw.Data, 0, []int{raw.N}, []int{raw.Inc})
}
