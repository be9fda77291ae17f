package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
)

// The program reads the bundled digits where a user runs it: in examples/go.
func TestMain(m *testing.M) {
	if err := os.Chdir(".."); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// Any number of workers gives the soft labels and weights of one, more workers than some batches have samples included.
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
