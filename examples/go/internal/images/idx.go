package images

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// An IDX file consists of a big-endian magic number (0, 0, 8 for bytes, number of dimensions), the sizes of the
// dimensions as 32-bit numbers, and the bytes (http://yann.lecun.com/exdb/mnist/).

func readFolder(folder string) (*Data, error) {
	train, err := readSet(folder, "train")
	if err != nil {
		return nil, err
	}
	test, err := readSet(folder, "t10k")
	if err != nil {
		return nil, err
	}
	if train.Width != test.Width || train.Height != test.Height {
		return nil, fmt.Errorf("%s: training images of %dx%d, but test images of %dx%d", folder, train.Width, train.Height, test.Width, test.Height)
	}
	classes := max(slices.Max(train.Labels), slices.Max(test.Labels)) + 1
	if classes < 2 {
		return nil, fmt.Errorf("%s: the labels have fewer than two classes", folder)
	}
	return &Data{Name: filepath.Base(folder), Classes: classes, Train: train, Test: test}, nil
}

func readSet(folder, part string) (*Set, error) {
	shape, pixels, err := readFile(folder, part, "images", 3)
	if err != nil {
		return nil, err
	}
	counts, labels, err := readFile(folder, part, "labels", 1)
	if err != nil {
		return nil, err
	}
	if shape[0] != counts[0] || len(pixels) == 0 {
		return nil, fmt.Errorf("%s: %d labels for %d %s images of %dx%d", folder, counts[0], shape[0], part, shape[2], shape[1])
	}
	set := &Set{Pixels: make([]float64, len(pixels)), Labels: make([]int, len(labels)), Width: shape[2], Height: shape[1]}
	for i, pixel := range pixels {
		set.Pixels[i] = float64(pixel) / 255
	}
	for i, label := range labels {
		set.Labels[i] = int(label)
	}
	return set, nil
}

// readFile returns the dimensions and the bytes of a file, gzipped or not.
func readFile(folder, part, kind string, rank int) ([]int, []byte, error) {
	path, err := find(folder, part, kind, rank)
	if err != nil {
		return nil, nil, err
	}
	file, err := os.ReadFile(path)
	if err == nil && bytes.HasPrefix(file, []byte{0x1f, 0x8b}) {
		file, err = unzip(file)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	header := 4 + 4*rank
	if len(file) < header || !bytes.Equal(file[:4], []byte{0, 0, 8, byte(rank)}) {
		return nil, nil, fmt.Errorf("%s: not an IDX file of %d-dimensional bytes", path, rank)
	}
	shape, elements := make([]int, rank), 1
	for d := range shape {
		shape[d] = int(binary.BigEndian.Uint32(file[4+4*d:]))
		// This cannot overflow: both factors are below 2^32, and the product is clamped at once.
		elements = min(elements*shape[d], 1<<31)
	}
	if elements != len(file)-header {
		return nil, nil, fmt.Errorf("%s: %d bytes of data, which do not match its dimensions %d", path, len(file)-header, shape)
	}
	return shape, file[header:], nil
}

func unzip(file []byte) ([]byte, error) {
	reader, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(reader)
}

// find looks for both common spellings: "train-images-idx3-ubyte" and "train-images.idx3-ubyte".
func find(folder, part, kind string, rank int) (string, error) {
	for _, separator := range []string{"-", "."} {
		for _, ending := range []string{"", ".gz"} {
			path := filepath.Join(folder, fmt.Sprintf("%s-%s%sidx%d-ubyte%s", part, kind, separator, rank, ending))
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("%s contains neither %s-%s-idx%d-ubyte nor %[2]s-%[3]s-idx%[4]d-ubyte.gz", folder, part, kind, rank)
}
