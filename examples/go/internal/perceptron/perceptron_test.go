package perceptron

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// A step without momentum follows the gradient: it agrees with finite differences of the loss sum(logits * g).
func TestStepIsTheGradient(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	images, g := mat.NewDense(3, 4, nil), mat.NewDense(3, 2, nil)
	for _, m := range []*mat.Dense{images, g} {
		m.Apply(func(int, int, float64) float64 { return random.NormFloat64() }, m)
	}
	loss := func(n *Network) float64 {
		var product mat.Dense
		product.MulElem(n.Logits(images), g)
		return mat.Sum(&product)
	}
	const h = 1e-6
	for i := range 2 {
		fresh := func() *Network { return New(rand.New(rand.NewPCG(3, 4)), 4, 5, 2) }
		moved := fresh()
		moved.Logits(images)
		moved.Step(g, 1, 0)
		for _, at := range [][2]int{{0, 0}, {2, 1}} {
			up, down := fresh(), fresh()
			up.layers[i].weight.Set(at[0], at[1], up.layers[i].weight.At(at[0], at[1])+h)
			down.layers[i].weight.Set(at[0], at[1], down.layers[i].weight.At(at[0], at[1])-h)
			want := (loss(up) - loss(down)) / (2 * h)
			is := fresh().layers[i].weight.At(at[0], at[1]) - moved.layers[i].weight.At(at[0], at[1])
			if math.Abs(is-want) > 1e-6 {
				t.Errorf("layer %d, weight %v: %v is not %v", i, at, is, want)
			}
		}
	}
}

func TestCosine(t *testing.T) {
	if Cosine(0.5, 0, 10) != 0.5 || math.Abs(Cosine(0.5, 5, 10)-0.25) > 1e-12 || math.Abs(Cosine(0.5, 10, 10)) > 1e-12 {
		t.Error("the schedule is no cosine")
	}
}
