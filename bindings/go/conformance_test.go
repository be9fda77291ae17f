package ols_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"libols/ols"
)

// vectorNames are the files that this runner runs. Slices and views can express every case, so that none is skipped.
var vectorNames = []string{"epochs", "errors", "layouts", "options", "sizes", "special", "targets", "weights"}

var (
	initials = map[string]ols.Initial{"uniform": ols.InitialUniform, "zero": ols.InitialZero, "one_hot": ols.InitialOneHot}
	policies = map[string]ols.EmptyClass{"keep": ols.EmptyClassKeep, "uniform": ols.EmptyClassUniform, "initial": ols.EmptyClassInitial,
		"one_hot": ols.EmptyClassOneHot, "zero": ols.EmptyClassZero}
	reductions = map[string]ols.Reduction{"none": ols.ReductionNone, "mean": ols.ReductionMean, "sum": ols.ReductionSum}
	modes      = map[string]ols.Mode{"train": ols.Train, "eval": ols.Eval}
	updates    = map[string]ols.Update{"add": ols.Add, "none": ols.NoUpdate, "take_back": ols.TakeBack}
	kinds      = map[string]ols.Status{"invalid_argument": ols.InvalidArgument, "invalid_dtype": ols.InvalidDType,
		"invalid_shape": ols.InvalidShape, "target_out_of_range": ols.TargetOutOfRange, "invalid_state": ols.InvalidState}
)

func named[T any](names map[string]T, name string) T {
	value, ok := names[name]
	if !ok {
		panic(fmt.Sprintf("%q is not a name of a %T", name, value))
	}
	return value
}

// r27: every case of every file passes; a file that is not in the list is a failure.
func TestR27Conformance(t *testing.T) {
	if splitmix64(0, 0) != 0xe220a8397b1dcdaf || splitmix64(7, 3) != 0x953aeb70673e29cb {
		t.Fatal("the generator of the inputs is wrong")
	}
	found, err := filepath.Glob(vectorFolder + "/*")
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != len(vectorNames) {
		t.Fatalf("%v are in %s; this runner knows %v", found, vectorFolder, vectorNames)
	}
	ran := 0
	for _, name := range vectorNames {
		file := readVectors(t, name+".json")
		for i := range file.Cases {
			it := &file.Cases[i]
			t.Run(name+"/"+it.Name, func(t *testing.T) {
				if err := runCase(it); err != nil {
					t.Error(err)
				}
			})
			ran++
		}
		if len(file.Cases) == 0 {
			t.Errorf("%s has no cases", name)
		}
	}
	// r28: a runner that finds nothing to run has not passed.
	if ran < 500 {
		t.Errorf("only %d cases were run", ran)
	}
}

// r28: the runner fails if a number is changed, for every kind of number.
func TestR28ChangedNumbersAreFound(t *testing.T) {
	changes := map[string]func(*vectorExpect) bool{
		"loss":         func(e *vectorExpect) bool { return e.Loss != nil && change(&e.Loss.Values[0]) },
		"grad":         func(e *vectorExpect) bool { return e.Grad != nil && change(&e.Grad.Values[0]) },
		"grad_abs_sum": func(e *vectorExpect) bool { return e.GradAbsSum != nil && change(&e.GradAbsSum.Values[0]) },
		"soft_labels":  func(e *vectorExpect) bool { return e.SoftLabels != nil && change(&e.SoftLabels.Values[0]) },
		"counts": func(e *vectorExpect) bool {
			if e.Counts == nil {
				return false
			}
			e.Counts[0]++
			return true
		},
		"sums": func(e *vectorExpect) bool {
			if e.Sums == nil {
				return false
			}
			e.Sums.Values[0] += 1 << 20
			return true
		},
		"samples_skipped": func(e *vectorExpect) bool { return e.SamplesSkipped != nil && increase(e.SamplesSkipped) },
		"epoch":           func(e *vectorExpect) bool { return e.Epoch != nil && increase(e.Epoch) },
		"report":          func(e *vectorExpect) bool { return e.Report != nil && increase(&e.Report.RowsMeasured) },
		"error": func(e *vectorExpect) bool {
			e.Error = &vectorFailure{Kind: "invalid_state"}
			return true
		},
	}
	for name, apply := range changes {
		if !changedCaseFails(t, apply) {
			t.Errorf("a changed %s was not detected", name)
		}
	}
}

func change(value *hex) bool { *value += 1; return true }

func increase(value *int64) bool { *value++; return true }

// changedCaseFails applies a change to the first case that it fits, and reports whether that case then fails.
func changedCaseFails(t *testing.T, apply func(*vectorExpect) bool) bool {
	for _, name := range []string{"epochs", "sizes"} {
		file := readVectors(t, name+".json")
		for i := range file.Cases {
			for s := range file.Cases[i].Steps {
				expect := &file.Cases[i].Steps[s].Expect
				if expect.Error == nil && apply(expect) {
					return runCase(&file.Cases[i]) != nil
				}
			}
		}
	}
	t.Error("no case has such a number")
	return false
}

func (o *vectorOptions) options() ols.Options {
	options := ols.Options{
		Classes:     o.Classes,
		Alpha:       ols.Ptr(float64(o.Alpha)),
		EmptyClass:  named(policies, o.EmptyClass),
		MinCount:    &o.MinCount,
		Momentum:    ols.Ptr(float64(o.Momentum)),
		IgnoreIndex: &o.IgnoreIndex,
		Reduction:   named(reductions, o.Reduction),
		Mode:        named(modes, o.Mode),
	}
	if o.FreezeAbove != nil {
		options.FreezeAbove = ols.Ptr(float64(*o.FreezeAbove))
	}
	if o.ClassWeights != nil {
		weights := make([]float64, len(o.ClassWeights))
		for i, weight := range o.ClassWeights {
			weights[i] = float64(weight)
		}
		options.ClassWeights = ols.Vector(weights)
	}
	switch {
	case o.Initial.Matrix != nil:
		options.Initial = ols.InitialMatrix
		options.InitialSoftLabels = ols.Matrix(floats(o.Initial.Matrix), len(o.Initial.Matrix)/max(o.Classes, 1), o.Classes)
	case o.Initial.Smoothing != nil:
		options.Initial = ols.InitialSmoothing
		options.Smoothing = ols.Ptr(float64(*o.Initial.Smoothing))
	default:
		options.Initial = named(initials, o.Initial.Name)
	}
	return options
}

func floats(values []hex) []float32 {
	singles := make([]float32, len(values))
	for i, value := range values {
		singles[i] = float32(value)
	}
	return singles
}

func runCase(c *vectorCase) error {
	criterion, err := ols.New(c.Options.options())
	if failure := checkError(err, c.Error); failure != nil || c.Error != nil {
		if criterion != nil {
			criterion.Close()
		}
		return failure
	}
	for number := range c.Steps {
		step := &c.Steps[number]
		if step.Do == "save_load" {
			criterion, err = saveLoad(criterion, c)
		} else {
			err = runStep(criterion, c, step)
		}
		if err == nil {
			err = checkState(criterion, &step.Expect)
		}
		if err != nil {
			criterion.Close()
			return fmt.Errorf("step %d (%s): %w", number, step.Do, err)
		}
	}
	return criterion.Close()
}

// saveLoad continues with a new criterion, which is given only K, reduction and mode.
func saveLoad(criterion *ols.Criterion, c *vectorCase) (*ols.Criterion, error) {
	state, err := criterion.MarshalBinary()
	if err != nil {
		return criterion, err
	}
	mode, err := criterion.Mode()
	if err != nil {
		return criterion, err
	}
	next, err := ols.New(ols.Options{Classes: c.Options.Classes, Reduction: named(reductions, c.Options.Reduction), Mode: mode})
	if err != nil {
		return criterion, err
	}
	return next, errors.Join(next.UnmarshalBinary(state), criterion.Close())
}

func runStep(criterion *ols.Criterion, c *vectorCase, step *vectorStep) error {
	before, err := criterion.MarshalBinary()
	if err != nil {
		return err
	}
	switch step.Do {
	case "forward", "backward", "accumulate":
		return runBatch(criterion, c, step, before)
	case "next_epoch":
		err = criterion.NextEpoch()
	case "set_mode":
		err = criterion.SetMode(named(modes, step.Mode))
	case "set_alpha":
		err = criterion.SetAlpha(float64(step.Alpha))
	case "set_soft_labels":
		err = criterion.SetSoftLabels(ols.Matrix(floats(step.Values), len(step.Values)/c.Options.Classes, c.Options.Classes))
	default:
		return fmt.Errorf("unknown step %q", step.Do)
	}
	return errors.Join(checkError(err, step.Expect.Error), unchangedAfterError(criterion, err, before))
}

func unchangedAfterError(criterion *ols.Criterion, err error, before []byte) error {
	if err == nil {
		return nil
	}
	after, err := criterion.MarshalBinary()
	if err == nil && !bytes.Equal(before, after) {
		err = errors.New("the state changed with an error")
	}
	return err
}

func runBatch(criterion *ols.Criterion, c *vectorCase, step *vectorStep, before []byte) error {
	given := &c.Batches[step.Batch]
	logits := blockOfLogits(&given.Logits)
	batch := ols.Batch{Logits: logits.tensor, Targets: tensorOfTargets(&given.Targets), TargetOffset: given.TargetOffset}
	if step.Update != "" {
		batch.Update = named(updates, step.Update)
	}
	if given.SampleWeights != nil {
		batch.SampleWeights = blockOfNumbers(given.SampleWeights).tensor
	}
	if given.Targets2 != nil {
		batch.Targets2 = tensorOfTargets(given.Targets2)
	}
	if given.Lam != nil {
		batch.Lam = blockOfNumbers(given.Lam).tensor
	}
	if given.GradLoss != nil {
		batch.GradLoss = blockOfNumbers(given.GradLoss).tensor
	}
	var loss, grad *block
	var toLoss, toGrad ols.Tensor
	var lossBefore, gradBefore []uint64
	if step.Loss != nil {
		dtype := "f32"
		if given.Logits.DType == "f64" {
			dtype = "f64"
		}
		loss = newBlock(dtype, *step.Loss)
		toLoss, lossBefore = loss.tensor, loss.allBits()
	}
	if step.Grad != nil {
		grad = newBlock(given.Logits.DType, *step.Grad)
	}
	if step.InPlace {
		grad = logits
	}
	if grad != nil {
		toGrad, gradBefore = grad.tensor, grad.allBits()
	}

	var err error
	switch step.Do {
	case "forward":
		err = criterion.Forward(&batch, toLoss, toGrad)
	case "backward":
		err = criterion.Backward(&batch, ols.Tensor{}, toGrad)
	default:
		err = criterion.Accumulate(&batch)
	}
	failed := err != nil
	problems := []error{checkError(err, step.Expect.Error), unchangedAfterError(criterion, err, before)}
	if loss != nil {
		problems = append(problems, loss.untouched(lossBefore, failed))
	}
	if grad != nil {
		problems = append(problems, grad.untouched(gradBefore, failed))
	}
	if failed {
		return errors.Join(problems...)
	}
	if loss != nil {
		problems = append(problems, compare("loss", loss.values(), step.Expect.Loss))
	}
	if grad != nil {
		values, total := grad.values(), 0.0
		for _, value := range values {
			total += math.Abs(value)
		}
		problems = append(problems, compare("grad", values, step.Expect.Grad), compare("grad_abs_sum", []float64{total}, step.Expect.GradAbsSum))
	}
	return errors.Join(problems...)
}
