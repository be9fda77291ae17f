package ols_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"testing"
)

// The structure of a conformance case; its meaning is described by the comment in the files of tests/vectors.

// hex is a number in the format of C's %a.
type hex float64

func (h *hex) UnmarshalJSON(text []byte) error {
	var word string
	if err := json.Unmarshal(text, &word); err != nil {
		return err
	}
	value, err := strconv.ParseFloat(word, 64)
	*h = hex(value)
	return err
}

type vectorFile struct {
	Comment []string     `json:"comment"`
	Format  int          `json:"format"`
	Theme   string       `json:"theme"`
	Cases   []vectorCase `json:"cases"`
}

type vectorCase struct {
	Name    string         `json:"name"`
	Why     string         `json:"why"`
	Options vectorOptions  `json:"options"`
	Error   *vectorFailure `json:"error"`
	Batches []vectorBatch  `json:"batches"`
	Steps   []vectorStep   `json:"steps"`
}

type vectorOptions struct {
	Classes      int           `json:"classes"`
	Alpha        hex           `json:"alpha"`
	Initial      vectorInitial `json:"initial"`
	EmptyClass   string        `json:"empty_class"`
	MinCount     int           `json:"min_count"`
	Momentum     hex           `json:"momentum"`
	FreezeAbove  *hex          `json:"freeze_above"`
	ClassWeights []hex         `json:"class_weights"`
	IgnoreIndex  int           `json:"ignore_index"`
	Reduction    string        `json:"reduction"`
	Mode         string        `json:"mode"`
}

// vectorInitial is a name, a smoothing or a matrix.
type vectorInitial struct {
	Name      string
	Smoothing *hex
	Matrix    []hex
}

func (i *vectorInitial) UnmarshalJSON(text []byte) error {
	if text[0] == '"' {
		return json.Unmarshal(text, &i.Name)
	}
	with := struct {
		Smoothing *hex  `json:"smoothing"`
		Matrix    []hex `json:"matrix"`
	}{}
	if err := strict(text, &with); err != nil {
		return err
	}
	i.Smoothing, i.Matrix = with.Smoothing, with.Matrix
	return nil
}

type vectorFailure struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

type vectorView struct {
	Shape   []int `json:"shape"`
	Strides []int `json:"strides"`
	Offset  int   `json:"offset"`
	Length  *int  `json:"length"`
}

func (v *vectorView) elements() int {
	count := 1
	for _, size := range v.Shape {
		count *= size
	}
	return count
}

func (v *vectorView) length() int {
	if v.Length != nil {
		return *v.Length
	}
	return v.elements()
}

func (v *vectorView) strides() []int {
	if v.Strides != nil {
		return v.Strides
	}
	strides, step := make([]int, len(v.Shape)), 1
	for d := len(v.Shape) - 1; d >= 0; d-- {
		strides[d] = step
		step *= v.Shape[d]
	}
	return strides
}

// place returns the position in the block of the element at a flat index, and its index when a dimension of stride 0
// counts as index 0.
func (v *vectorView) place(flat int) (place, number int) {
	strides, step := v.strides(), 1
	place = v.Offset
	for d := len(v.Shape) - 1; d >= 0; d-- {
		index := flat % v.Shape[d]
		flat /= v.Shape[d]
		place += index * strides[d]
		if strides[d] != 0 {
			number += index * step
		}
		step *= v.Shape[d]
	}
	return place, number
}

type vectorBatch struct {
	Logits        vectorLogits   `json:"logits"`
	Targets       vectorTargets  `json:"targets"`
	TargetOffset  int64          `json:"target_offset"`
	SampleWeights *vectorNumbers `json:"sample_weights"`
	Targets2      *vectorTargets `json:"targets2"`
	Lam           *vectorNumbers `json:"lam"`
	GradLoss      *vectorNumbers `json:"grad_loss"`
}

type vectorTargets struct {
	DType  string     `json:"dtype"`
	View   vectorView `json:"view"`
	Values []int64    `json:"values"`
}

type vectorNumbers struct {
	DType  string     `json:"dtype"`
	View   vectorView `json:"view"`
	Values []hex      `json:"values"`
}

type vectorLogits struct {
	DType    string      `json:"dtype"`
	View     vectorView  `json:"view"`
	Seed     uint64      `json:"seed"`
	Exponent int         `json:"exponent"`
	Absolute bool        `json:"absolute"`
	Raised   []int       `json:"raised"`
	Set      []vectorSet `json:"set"`
}

// vectorSet is a pair [index, value].
type vectorSet struct {
	Index int
	Value hex
}

func (s *vectorSet) UnmarshalJSON(text []byte) error {
	return json.Unmarshal(text, &[]any{&s.Index, &s.Value})
}

func splitmix64(seed, j uint64) uint64 {
	z := seed + (j+1)*0x9e3779b97f4a7c15
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

// values returns all logits in logical order.
func (l *vectorLogits) values() []float64 {
	raised := make(map[int]int)
	for _, index := range l.Raised {
		raised[index] = 128
	}
	values := make([]float64, l.View.elements())
	for flat := range values {
		_, number := l.View.place(flat)
		m := int((splitmix64(l.Seed, uint64(number))>>33)%255) - 127
		if l.Absolute && m < 0 {
			m = -m
		}
		values[flat] = float64(m+raised[flat]) * power(l.Exponent)
	}
	for _, set := range l.Set {
		values[set.Index] = float64(set.Value)
	}
	return values
}

type vectorStep struct {
	Do      string       `json:"do"`
	Batch   int          `json:"batch"`
	Update  string       `json:"update"`
	Loss    *vectorView  `json:"loss"`
	Grad    *vectorView  `json:"grad"`
	InPlace bool         `json:"in_place"`
	Mode    string       `json:"mode"`
	Alpha   hex          `json:"alpha"`
	Values  []hex        `json:"values"`
	Expect  vectorExpect `json:"expect"`
}

type vectorExpect struct {
	Error          *vectorFailure  `json:"error"`
	Loss           *vectorValues   `json:"loss"`
	Grad           *vectorValues   `json:"grad"`
	GradAbsSum     *vectorValues   `json:"grad_abs_sum"`
	Counts         []int64         `json:"counts"`
	Sums           *vectorIntegers `json:"sums"`
	SamplesSkipped *int64          `json:"samples_skipped"`
	Epoch          *int64          `json:"epoch"`
	SoftLabels     *vectorValues   `json:"soft_labels"`
	Report         *vectorReport   `json:"report"`
}

type vectorValues struct {
	At     []int `json:"at"`
	Values []hex `json:"values"`
	Atol   hex   `json:"atol"`
	Rtol   hex   `json:"rtol"`
}

type vectorIntegers struct {
	At     []int   `json:"at"`
	Values []int64 `json:"values"`
	Atol   int64   `json:"atol"`
	Rtol   hex     `json:"rtol"`
}

type vectorReport struct {
	Epoch              int64 `json:"epoch"`
	RowsMeasured       int64 `json:"rows_measured"`
	RowsKept           int64 `json:"rows_kept"`
	RowsUniform        int64 `json:"rows_uniform"`
	RowsInitial        int64 `json:"rows_initial"`
	RowsOneHot         int64 `json:"rows_one_hot"`
	RowsZero           int64 `json:"rows_zero"`
	RowsFrozen         int64 `json:"rows_frozen"`
	SamplesAccumulated int64 `json:"samples_accumulated"`
	SamplesSkipped     int64 `json:"samples_skipped"`
	ClassesFull        int64 `json:"classes_full"`
	TargetsOutOfRange  int64 `json:"targets_out_of_range"`
}

// strict rejects fields that the structs above do not have: a field that a runner overlooks would be a promise that
// nobody checks.
func strict(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

const vectorFolder = "../../tests/vectors"

func readVectors(t *testing.T, name string) vectorFile {
	t.Helper()
	text, err := os.ReadFile(vectorFolder + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var file vectorFile
	if err := strict(text, &file); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if file.Format != 1 {
		t.Fatalf("%s: format %d; this runner knows 1", name, file.Format)
	}
	return file
}

func (f *vectorFailure) String() string { return fmt.Sprintf("%s (%s)", f.Kind, f.Message) }
