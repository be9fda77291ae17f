// Roundtrip loads a saved state, checks it, and saves it again. It is Go's part of a ring of languages, in which a file
// must come back unchanged.
//
//	roundtrip IN OUT [CLASSES]
//
// Without CLASSES the number of classes is read from the header of the file. Roundtrip fails if the file cannot be
// loaded, if the loaded criterion saves different bytes, or if the statistics and soft labels that it exposes are not
// those in the file. It prints what it sees in the format described in tests/ring/run.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"

	"libols/ols"
)

func main() {
	if len(os.Args) < 3 || len(os.Args) > 4 {
		fmt.Fprintln(os.Stderr, "usage: roundtrip IN OUT [CLASSES]")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "roundtrip:", err)
		os.Exit(1)
	}
}

func run(from, to string, classes []string) error {
	file, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	tensors, err := read(file)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	k := len(tensors["counts"]) / 8
	if len(classes) == 1 {
		if k, err = strconv.Atoi(classes[0]); err != nil {
			return err
		}
	}
	criterion, err := ols.New(ols.Options{Classes: k})
	if err != nil {
		return err
	}
	defer criterion.Close()
	if err := criterion.Load(from); err != nil {
		return err
	}
	if err := check(criterion, file, tensors); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	if err := show(criterion); err != nil {
		return err
	}
	return criterion.Save(to)
}

// show prints the line described in tests/ring/run: of the sums and soft labels, the row of class 1.
func show(criterion *ols.Criterion) error {
	epoch, err := criterion.Epoch()
	if err != nil {
		return err
	}
	options, err := criterion.Options()
	if err != nil {
		return err
	}
	fmt.Printf("epoch %d alpha %.6f ignore_index %d counts", epoch, *options.Alpha, *options.IgnoreIndex)
	err = criterion.WithStatistics(func(statistics ols.Statistics) error {
		for _, count := range statistics.Counts {
			fmt.Printf(" %d", count)
		}
		fmt.Print(" sums")
		for _, sum := range statistics.Sums.Row(1) {
			fmt.Printf(" %d", sum)
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Print(" soft_labels")
	err = criterion.WithSoftLabels(func(softLabels ols.RowsOf[float32]) error {
		for _, value := range softLabels.Row(1) {
			fmt.Printf(" %08x", math.Float32bits(value))
		}
		return nil
	})
	fmt.Println()
	return err
}

// read returns the bytes of the tensors of a safetensors file, which consists of the length of the header in 8 bytes,
// the header as JSON, and the tensors.
func read(file []byte) (map[string][]byte, error) {
	if len(file) < 8 {
		return nil, fmt.Errorf("a file of %d bytes is not a safetensors file", len(file))
	}
	length := binary.LittleEndian.Uint64(file)
	if length > uint64(len(file)-8) {
		return nil, fmt.Errorf("a header of %d bytes in a file of %d bytes", length, len(file))
	}
	header, data := file[8:8+length], file[8+length:]
	var entries map[string]struct {
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(header, &entries); err != nil {
		return nil, err
	}
	tensors := make(map[string][]byte)
	for name, entry := range entries {
		begin, end := entry.Offsets[0], entry.Offsets[1]
		if begin < 0 || begin > end || end > len(data) {
			return nil, fmt.Errorf("the tensor %s is outside the file", name)
		}
		tensors[name] = data[begin:end]
	}
	return tensors, nil
}

func check(criterion *ols.Criterion, file []byte, tensors map[string][]byte) error {
	again, err := criterion.MarshalBinary()
	if err != nil {
		return err
	}
	if !bytes.Equal(again, file) {
		return fmt.Errorf("the loaded criterion saves different bytes")
	}
	softLabels, err := criterion.SoftLabels()
	if err != nil {
		return err
	}
	same := func(name string, shown any) error {
		text, err := binary.Append(nil, binary.LittleEndian, shown)
		if err == nil && !bytes.Equal(text, tensors[name]) {
			err = fmt.Errorf("%s differs from what is saved", name)
		}
		return err
	}
	if err := same("soft_labels", softLabels); err != nil {
		return err
	}
	return criterion.WithStatistics(func(statistics ols.Statistics) error {
		var sums []int64
		for class := range statistics.Sums.Columns {
			sums = append(sums, statistics.Sums.Row(class)...)
		}
		if err := same("sums", sums); err != nil {
			return err
		}
		if err := same("counts", statistics.Counts); err != nil {
			return err
		}
		return same("counters", statistics.Counters)
	})
}
