package ols_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"libols/ols"
)

// The comparison of results with what a conformance case expects.

func checkError(err error, expected *vectorFailure) error {
	switch {
	case err == nil && expected == nil:
		return nil
	case err == nil:
		return fmt.Errorf("passed, but %v was expected", expected)
	case expected == nil:
		return err
	case !errors.Is(err, named(kinds, expected.Kind)):
		return fmt.Errorf("failed with %w, but %v was expected", err, expected)
	case !strings.Contains(err.Error(), expected.Message):
		return fmt.Errorf("the message %q does not contain %q", err, expected.Message)
	}
	return nil
}

func checkState(criterion *ols.Criterion, expect *vectorExpect) error {
	report, err := criterion.Report()
	if err != nil {
		return err
	}
	epoch, err := criterion.Epoch()
	if err != nil {
		return err
	}
	var problems []error
	wrong := func(format string, values ...any) { problems = append(problems, fmt.Errorf(format, values...)) }
	if expect.Epoch != nil && epoch != *expect.Epoch {
		wrong("epoch: %d differs from %d", epoch, *expect.Epoch)
	}
	if expect.SamplesSkipped != nil && report.RunningSamplesSkipped != *expect.SamplesSkipped {
		wrong("samples_skipped: %d differs from %d", report.RunningSamplesSkipped, *expect.SamplesSkipped)
	}
	if is := (vectorReport{report.Epoch, report.RowsMeasured, report.RowsKept, report.RowsUniform, report.RowsInitial, report.RowsOneHot,
		report.RowsZero, report.RowsFrozen, report.SamplesAccumulated, report.SamplesSkipped, report.ClassesFull,
		report.TargetsOutOfRange}); expect.Report != nil && is != *expect.Report {
		wrong("report: %+v differs from %+v", is, *expect.Report)
	}
	softLabels, err := criterion.SoftLabels()
	if err != nil {
		return err
	}
	singles := make([]float64, len(softLabels))
	for i, value := range softLabels {
		singles[i] = float64(value)
	}
	problems = append(problems, compare("soft_labels", singles, expect.SoftLabels))
	problems = append(problems, criterion.WithStatistics(func(statistics ols.Statistics) error {
		if expect.Counts != nil && !slices.Equal(statistics.Counts, expect.Counts) {
			wrong("counts: %d differs from %d", statistics.Counts, expect.Counts)
		}
		if expect.SamplesSkipped != nil && statistics.Counters[ols.CounterSkippedNonFinite] != *expect.SamplesSkipped {
			wrong("counters: %d skipped differs from %d", statistics.Counters[ols.CounterSkippedNonFinite], *expect.SamplesSkipped)
		}
		return compareSums(statistics.Sums, expect.Sums)
	}))
	return errors.Join(problems...)
}

func compareSums(sums ols.RowsOf[int64], expected *vectorIntegers) error {
	if expected == nil {
		return nil
	}
	var all []float64
	for class := range sums.Columns {
		for _, value := range sums.Row(class) {
			all = append(all, float64(value))
		}
	}
	values := vectorValues{At: expected.At, Atol: hex(expected.Atol), Rtol: expected.Rtol}
	for _, value := range expected.Values {
		values.Values = append(values.Values, hex(value))
	}
	return compare("sums", all, &values)
}

func compare(name string, found []float64, expected *vectorValues) error {
	if expected == nil {
		return nil
	}
	if expected.At == nil && len(found) != len(expected.Values) {
		return fmt.Errorf("%s: %d values differ from %d", name, len(found), len(expected.Values))
	}
	for number, value := range expected.Values {
		at := number
		if expected.At != nil {
			at = expected.At[number]
		}
		is, want := found[at], float64(value)
		var same bool
		switch {
		case math.IsNaN(want):
			same = math.IsNaN(is)
		case math.IsInf(want, 0):
			same = is == want
		default:
			same = math.Abs(is-want) <= float64(expected.Atol)+float64(expected.Rtol)*math.Abs(want)
		}
		if !same {
			return fmt.Errorf("%s[%d] = %g differs from %g; allowed are %g + %g*|x|", name, at, is, want, float64(expected.Atol), float64(expected.Rtol))
		}
	}
	return nil
}
