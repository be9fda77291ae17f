package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The program finds the bundled digits from the directory in which a user runs it, examples/go.
func TestMain(m *testing.M) {
	if err := os.Chdir(".."); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func table(t *testing.T, arguments ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := run(arguments, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// After one epoch the table has a line for each loss and each kind of labels, and learning has begun.
func TestOneEpoch(t *testing.T) {
	printed := table(t, "--epochs", "1")
	rows := regexp.MustCompile(`(?m)(cross entropy|label smoothing|online label smoothing) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+) +(–|[\d.]+)$`).
		FindAllStringSubmatch(printed, -1)
	if len(rows) != 6 {
		t.Fatalf("%d rows in\n%s", len(rows), printed)
	}
	for i, row := range rows {
		accuracy, err := strconv.ParseFloat(row[2], 64)
		if err != nil || accuracy < []float64{60, 35}[i/3] {
			t.Errorf("%v: an accuracy of %v %%", row[1], accuracy)
		}
		if (row[7] == "–") != (i < 3) {
			t.Errorf("%v: %v wrong labels learned", row[1], row[7])
		}
	}
	for _, words := range []string{"Test NLL", "Wrong labels", "stopped early", "1198 training, 199 validation and 400 test images"} {
		if !strings.Contains(printed, words) {
			t.Errorf("%q is not in\n%s", words, printed)
		}
	}
	if again := table(t, "--epochs", "1", "--threads", "1"); again != printed {
		t.Errorf("the same seed gives\n%s\nand\n%s", printed, again)
	}
	if another := table(t, "--epochs", "1", "--seed", "1"); another == printed {
		t.Error("another seed gives the same numbers")
	}
}

// idx creates an IDX file.
func idx(data []byte, shape ...uint32) []byte {
	file := []byte{0, 0, 8, byte(len(shape))}
	for _, size := range shape {
		file = binary.BigEndian.AppendUint32(file, size)
	}
	return append(file, data...)
}

func zipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	writer := gzip.NewWriter(&out)
	if _, err := writer.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// folderOfImages writes images of 4x2 pixels whose class is the position of the only bright pixel, with both spellings
// of the file names and one file gzipped.
func folderOfImages(t *testing.T) string {
	folder := t.TempDir()
	pixels, labels := make([]byte, 600*8), make([]byte, 600)
	for i := range labels {
		labels[i] = byte(i * 7 % 8)
		pixels[i*8+int(labels[i])] = 255
	}
	for name, file := range map[string][]byte{
		"train-images-idx3-ubyte":   idx(pixels, 600, 4, 2),
		"train-labels-idx1-ubyte":   idx(labels, 600),
		"t10k-images.idx3-ubyte":    idx(pixels[:200*8], 200, 4, 2),
		"t10k-labels-idx1-ubyte.gz": zipped(t, idx(labels[:200], 200)),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), file, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func TestFolderOfImages(t *testing.T) {
	printed := table(t, "--data", folderOfImages(t), "--epochs", "12", "--hidden", "32")
	if !strings.Contains(printed, "514 training, 85 validation and 172 test images") {
		t.Error(printed)
	}
	if !regexp.MustCompile(`clean labels +cross entropy +100\.0`).MatchString(printed) {
		t.Errorf("classes that a pixel tells were not learned:\n%s", printed)
	}
}

// Errors name the file.
func TestBadInput(t *testing.T) {
	for name, it := range map[string]struct {
		file  string
		bytes []byte
		words string
	}{
		"cut off":      {"train-images-idx3-ubyte", idx(make([]byte, 7), 600, 4, 2), "7 bytes of data"},
		"foreign":      {"train-labels-idx1-ubyte", []byte("no images here"), "not an IDX file of 1-dimensional bytes"},
		"other labels": {"train-labels-idx1-ubyte", idx(make([]byte, 3), 3), "3 labels for 600 train images"},
		"too large":    {"train-images-idx3-ubyte", idx(nil, 1<<31, 1<<31, 1<<31), "0 bytes of data"},
		"bad gzip":     {"t10k-labels-idx1-ubyte.gz", []byte{0x1f, 0x8b, 8, 0}, "t10k-labels-idx1-ubyte.gz"},
	} {
		folder := folderOfImages(t)
		if err := os.WriteFile(filepath.Join(folder, it.file), it.bytes, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := run([]string{"--data", folder}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), it.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, words := range []string{"--data /nowhere", "--epochs 0", "--noise nan", "--alpha 2", "--nonsense", "--threads 0", "--smoothing 1.5"} {
		if err := run(strings.Fields(words), io.Discard, io.Discard); err == nil {
			t.Errorf("%s: no error", words)
		}
	}
}
