package metrics

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// Four predictions of two classes, with confidences 0.9, 0.9, 0.6 and 0.7: correct, wrong, correct, correct.
func TestByHand(t *testing.T) {
	predictions, labels := mat.NewDense(4, 2, []float64{0.9, 0.1, 0.1, 0.9, 0.6, 0.4, 0.3, 0.7}), []int{0, 0, 0, 1}
	for name, it := range map[string][2]float64{
		"accuracy": {Accuracy(predictions, labels), 0.75},
		"NLL":      {NLL(predictions, labels), -(math.Log(0.9) + math.Log(0.1) + math.Log(0.6) + math.Log(0.7)) / 4},
		// Bins of width 1/15: (2*|0.9 - 0.5| + |0.6 - 1| + |0.7 - 1|) / 4.
		"ECE": {ECE(predictions, labels), 0.375},
	} {
		if math.Abs(it[0]-it[1]) > 1e-9 {
			t.Errorf("%s: %v is not %v", name, it[0], it[1])
		}
	}
	if never := NLL(mat.NewDense(1, 2, []float64{0, 1}), []int{0}); math.IsInf(never, 0) {
		t.Error("a probability of 0 has an infinite likelihood")
	}
	if p := Softmax(mat.NewDense(2, 2, []float64{1000, 1000, -1000, 0})); !mat.Equal(p, mat.NewDense(2, 2, []float64{0.5, 0.5, 0, 1})) {
		t.Errorf("softmax of large logits: %v", p)
	}
	if sure := ECE(mat.NewDense(1, 2, []float64{1, 0}), []int{1}); sure != 1 {
		t.Errorf("a sure mistake has an error of %v", sure)
	}
}
