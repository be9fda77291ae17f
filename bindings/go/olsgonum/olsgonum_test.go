package olsgonum_test

import (
	"fmt"
	"log"
	"math"
	"testing"

	"gonum.org/v1/gonum/mat"

	"libols/ols"
	"libols/ols/olsgonum"
)

func Example() {
	criterion, err := ols.New(ols.Options{Classes: 3})
	if err != nil {
		log.Fatal(err)
	}
	defer criterion.Close()
	logits := mat.NewDense(2, 3, []float64{2, 0.1, -1, 0.3, 0.2, 0.1})
	grad := mat.NewDense(2, 3, nil)
	batch := ols.Batch{Logits: olsgonum.Dense(logits), Targets: ols.Vector([]int{0, 2})}
	loss, err := criterion.LossAndGrad(&batch, olsgonum.Dense(grad))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.4f\n%.4f\n", loss, mat.Formatted(grad))
	// Output:
	// 0.7494
	// ⎡-0.0581   0.0499   0.0083⎤
	// ⎣ 0.1711   0.1536  -0.3247⎦
}

// Slices of larger matrices and columns of matrices are read and written in place, and nothing outside them.
func TestViewsOfLargerMatrices(t *testing.T) {
	criterion, err := ols.New(ols.Options{Classes: 3, Reduction: ols.ReductionNone})
	if err != nil {
		t.Fatal(err)
	}
	defer criterion.Close()
	values := []float64{2, 0.1, -1, 0.3, 0.2, 0.1, 1, 5, 2}
	small, big := mat.NewDense(3, 3, values), mat.NewDense(6, 7, nil)
	inside := big.Slice(2, 5, 3, 6).(*mat.Dense)
	inside.Copy(small)
	weights, losses := mat.NewDense(3, 4, []float64{1, 9, 9, 9, 0.5, 9, 9, 9, 2, 9, 9, 9}), mat.NewDense(3, 4, nil)
	column := func(m *mat.Dense, j int) ols.Tensor { return olsgonum.VecDense(m.ColView(j).(*mat.VecDense)) }
	targets := ols.Vector([]int{0, 2, 1})

	batch := ols.Batch{Logits: olsgonum.Dense(inside), Targets: targets, SampleWeights: column(weights, 0)}
	if err := criterion.Forward(&batch, column(losses, 2), olsgonum.Dense(inside)); err != nil {
		t.Fatal(err)
	}
	grad, loss := mat.NewDense(3, 3, nil), mat.NewVecDense(3, nil)
	batch = ols.Batch{Logits: olsgonum.Dense(small), Targets: targets, SampleWeights: ols.Vector([]float64{1, 0.5, 2})}
	if err := criterion.Forward(&batch, olsgonum.VecDense(loss), olsgonum.Dense(grad)); err != nil {
		t.Fatal(err)
	}
	if !mat.Equal(inside, grad) || !mat.Equal(losses.ColView(2), loss) {
		t.Errorf("%v is not %v, or %v not %v", inside, grad, losses.ColView(2), loss)
	}
	if sum := mat.Sum(big) - mat.Sum(inside); math.Abs(sum) > 1e-12 {
		t.Errorf("elements outside the view were written: %v", sum)
	}
	if sum := mat.Sum(losses) - mat.Sum(loss); math.Abs(sum) > 1e-12 {
		t.Errorf("elements outside the column were written: %v", sum)
	}
}

func TestEmpty(t *testing.T) {
	criterion, err := ols.New(ols.Options{Classes: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer criterion.Close()
	batch := ols.Batch{Logits: olsgonum.Dense(&mat.Dense{}), Targets: ols.Vector([]int{})}
	if _, err := criterion.Loss(&batch); err == nil {
		t.Error("an empty matrix without columns was accepted as logits of 3 classes")
	}
}
