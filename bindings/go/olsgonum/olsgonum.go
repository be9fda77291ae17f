// Package olsgonum views gonum's matrices and vectors as tensors of libols, where they lie: nothing is copied, slices of larger matrices
// included. It is a module of its own, so that package ols depends on nothing.
package olsgonum

import (
	"gonum.org/v1/gonum/mat"

	"libols/ols"
)

// Dense views a matrix as (rows, columns) float64. The view holds until the matrix is grown, reset or given other data.
func Dense(m *mat.Dense) ols.Tensor {
	raw := m.RawMatrix()
	return ols.Rows(raw.Data, raw.Rows, raw.Cols, raw.Stride)
}

// VecDense views a vector as (length) float64: sample weights, class weights, losses.
func VecDense(v *mat.VecDense) ols.Tensor {
	raw := v.RawVector()
	return ols.Strided(raw.Data, 0, []int{raw.N}, []int{raw.Inc})
}
