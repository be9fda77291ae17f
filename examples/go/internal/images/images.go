// Package images reads labelled images: the digits that come with libols, and the IDX files of the MNIST family.
package images

import (
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
)

// Set holds images and their classes.
type Set struct {
	// Pixels are in [0, 1], image by image, each with Width*Height pixels.
	Pixels        []float64
	Labels        []int
	Width, Height int
}

// Len returns the number of images.
func (s *Set) Len() int { return len(s.Labels) }

// Image returns the pixels of an image, in place.
func (s *Set) Image(i int) []float64 {
	size := s.Width * s.Height
	return s.Pixels[i*size : (i+1)*size]
}

// Data is a data set.
type Data struct {
	Name    string
	Classes int
	Train   *Set
	// Test is nil if the data set has no separate test images.
	Test *Set
}

// Digits is the path of the bundled digits, relative to examples/go.
const Digits = "../data/digits.csv.gz"

// Read reads the IDX files of a folder, or the bundled digits if folder is "".
func Read(folder string) (*Data, error) {
	if folder == "" {
		return readDigits(Digits)
	}
	return readFolder(folder)
}

const (
	side = 8
	// The value of the brightest pixel: a pixel counts the dots of a 4x4 block.
	brightest = 16
)

// readDigits reads lines of 64 pixels and a class.
func readDigits(path string) (*Data, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w (run the example in examples/go of the repository, or with --data)", err)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	set := &Set{Width: side, Height: side}
	lines := csv.NewReader(unzipped)
	lines.FieldsPerRecord = side*side + 1
	for {
		line, err := lines.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for i, word := range line {
			value, err := strconv.Atoi(word)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			if i < side*side {
				set.Pixels = append(set.Pixels, float64(value)/brightest)
			} else {
				set.Labels = append(set.Labels, value)
			}
		}
	}
	return &Data{Name: "UCI handwritten digits", Classes: 10, Train: set}, nil
}
