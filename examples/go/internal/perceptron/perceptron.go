// Package perceptron implements a small network with hidden layers and ReLU, trained by stochastic gradient descent,
// based on gonum.
package perceptron

import (
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// Momentum is the momentum of gradient descent.
const Momentum = 0.9

// Network is a multilayer perceptron.
type Network struct {
	layers []layer
}

// layer computes x*weight + bias.
type layer struct {
	weight, velocity   *mat.Dense
	bias, biasVelocity []float64
	input              *mat.Dense
}

// New creates a network with layers of the given sizes, which include inputs and classes, and random weights (He et al.
// 2015).
func New(random *rand.Rand, sizes ...int) *Network {
	network := &Network{layers: make([]layer, len(sizes)-1)}
	for i := range network.layers {
		in, out := sizes[i], sizes[i+1]
		weights := make([]float64, in*out)
		for j := range weights {
			weights[j] = random.NormFloat64() * math.Sqrt(2/float64(in))
		}
		network.layers[i] = layer{weight: mat.NewDense(in, out, weights), velocity: mat.NewDense(in, out, nil), bias: make([]float64, out),
			biasVelocity: make([]float64, out)}
	}
	return network
}

// Logits computes the logits (N, classes) of images (N, pixels), and keeps what Step needs.
func (n *Network) Logits(images *mat.Dense) *mat.Dense {
	x := images
	for i := range n.layers {
		l := &n.layers[i]
		l.input = x
		rows, _ := x.Dims()
		_, columns := l.weight.Dims()
		y := mat.NewDense(rows, columns, nil)
		y.Mul(x, l.weight)
		for row := range rows {
			values := y.RawRowView(row)
			floats.Add(values, l.bias)
			if i < len(n.layers)-1 {
				for j, value := range values {
					values[j] = max(value, 0)
				}
			}
		}
		x = y
	}
	return x
}

// Step takes a step of gradient descent, given the gradient of the loss with respect to the logits computed last.
func (n *Network) Step(gradient *mat.Dense, rate, decay float64) {
	for i := len(n.layers) - 1; i >= 0; i-- {
		l := &n.layers[i]
		var byWeight, byInput mat.Dense
		byWeight.Mul(l.input.T(), gradient)
		if i > 0 {
			byInput.Mul(gradient, l.weight.T())
			// The input of this layer is the output of the ReLU.
			input, by := l.input.RawMatrix().Data, byInput.RawMatrix().Data
			for j, value := range input {
				if value <= 0 {
					by[j] = 0
				}
			}
		}
		descend(l.weight.RawMatrix().Data, l.velocity.RawMatrix().Data, byWeight.RawMatrix().Data, rate, decay)
		byBias := make([]float64, len(l.bias))
		rows, _ := gradient.Dims()
		for row := range rows {
			floats.Add(byBias, gradient.RawRowView(row))
		}
		descend(l.bias, l.biasVelocity, byBias, rate, decay)
		gradient = &byInput
	}
}

func descend(values, velocities, gradient []float64, rate, decay float64) {
	for i := range values {
		velocities[i] = Momentum*velocities[i] + gradient[i] + decay*values[i]
		values[i] -= rate * velocities[i]
	}
}

// Cosine returns the learning rate of a step: it decreases from peak at the first step to 0 after the last one
// (Loshchilov and Hutter 2017).
func Cosine(peak float64, step, steps int) float64 {
	return peak * 0.5 * (1 + math.Cos(math.Pi*float64(step)/float64(steps)))
}
