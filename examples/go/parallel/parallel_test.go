package main

import (
	"bytes"
	"io"
	"os"
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

// Any number of workers gives the soft labels and weights of a single worker, even if there are more workers than
// samples in a batch.
func TestWorkersAgree(t *testing.T) {
	for _, workers := range []string{"2", "3", "7"} {
		var out bytes.Buffer
		if err := run([]string{"--workers", workers, "--epochs", "2"}, &out, io.Discard); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), "bit for bit those of one worker") {
			t.Error(out.String())
		}
	}
}

func TestBadArguments(t *testing.T) {
	for _, words := range []string{"--workers 0", "--epochs -1", "more", "--nonsense"} {
		if err := run(strings.Fields(words), io.Discard, io.Discard); err == nil {
			t.Errorf("%s: no error", words)
		}
	}
}
