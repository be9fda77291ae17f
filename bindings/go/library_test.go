//go:build !ols_static && !race && !asan

package ols_test

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"libols/ols"
)

func run(t *testing.T, command *exec.Cmd) string {
	t.Helper()
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", command.Args, err, output)
	}
	return string(output)
}

func compiler() string {
	if cc := os.Getenv("CC"); cc != "" {
		return cc
	}
	return "cc"
}

// pkgConfig returns the flags of the installed tree.
func pkgConfig(t *testing.T, what ...string) []string {
	t.Helper()
	return strings.Fields(run(t, exec.Command("pkg-config", append(what, "ols")...)))
}

// soname returns the name under which programs look for the library that these tests are linked against.
func soname(t *testing.T) string {
	t.Helper()
	path := filepath.Join(pkgConfig(t, "--variable=libdir")[0], "libols.so")
	return strings.TrimSpace(run(t, exec.Command("../../packaging/soname", path)))
}

// fakeLibrary builds testdata/fake/ols.c, and adds functions that abort for all that it lacks.
func fakeLibrary(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile("testdata/fake/ols.c")
	must(t, err)
	symbols, err := os.ReadFile("../../tests/abi/symbols.txt")
	must(t, err)
	rest := "#include <stdlib.h>\n"
	for _, name := range strings.Fields(string(symbols)) {
		if !regexp.MustCompile(`(?m)^[a-z_0-9 *]*\b` + name + `\(`).Match(source) {
			rest += fmt.Sprintf("void %s(void);\nvoid %s(void) { abort(); }\n", name, name)
		}
	}
	folder := t.TempDir()
	path := filepath.Join(folder, "rest.c")
	must(t, os.WriteFile(path, []byte(rest), 0o666))
	arguments := append([]string{"-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wl,-soname," + soname(t), "-o", filepath.Join(folder, soname(t)),
		"testdata/fake/ols.c", path}, pkgConfig(t, "--cflags")...)
	run(t, exec.Command(compiler(), arguments...))
	return folder
}

func probe(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "probe")
	build := exec.Command("go", "build", "-o", program, "./testdata/probe")
	// Not with the settings with which the tests themselves may be built: the fake library is plain C.
	build.Env = append(os.Environ(), "GOEXPERIMENT=")
	run(t, build)
	return program
}

// r2: a program that only imports the package calls no function of the library; in this library every function ends the
// program.
func TestR02LoadingDoesNothing(t *testing.T) {
	symbols, err := os.ReadFile("../../tests/abi/symbols.txt")
	must(t, err)
	source := "#include <stdlib.h>\n"
	for _, name := range strings.Fields(string(symbols)) {
		source += fmt.Sprintf("void %s(void);\nvoid %s(void) { abort(); }\n", name, name)
	}
	folder := t.TempDir()
	path, program := filepath.Join(folder, "aborts.c"), filepath.Join(folder, "idle")
	must(t, os.WriteFile(path, []byte(source), 0o666))
	run(t, exec.Command(compiler(), "-shared", "-fPIC", "-Wl,-soname,"+soname(t), "-o", filepath.Join(folder, soname(t)), path))
	build := exec.Command("go", "build", "-o", program, "./testdata/idle")
	build.Env = append(os.Environ(), "GOEXPERIMENT=")
	run(t, build)
	for arguments, want := range map[string]string{"": "", "use": "SIGABRT"} {
		command := exec.Command(program, strings.Fields(arguments)...)
		command.Env = append(os.Environ(), "LD_LIBRARY_PATH="+folder)
		if output, err := command.CombinedOutput(); (err != nil) != (want != "") || !strings.Contains(string(output), want) || want == "" && len(output) != 0 {
			t.Errorf("%q: %v\n%s", arguments, err, output)
		}
	}
}

// probed runs the program with a variant of the fake library.
func probed(program, folder, fake string) (string, error) {
	command := exec.Command(program)
	command.Env = append(os.Environ(), "LD_LIBRARY_PATH="+folder, "FAKE="+fake)
	output, err := command.CombinedOutput()
	return string(output), err
}

// r1: a library with another ABI version, or another minor version before 1.0, is an error that names both versions and
// the path.
// r5, r7: an unknown status is an error with its number and text.
func TestR01R05R07AnotherLibrary(t *testing.T) {
	folder, program := fakeLibrary(t), probe(t)
	this := fmt.Sprintf("this program was built for version %s with ABI 0\n", ols.Version())
	for fake, words := range map[string]string{"abi": "version " + ols.Version() + " with ABI 99", "version": "version 0.77.3 with ABI 0"} {
		output, err := probed(program, folder, fake)
		want := fmt.Sprintf("wrong library: true\nols: incompatible libols: the library %s/%s has %s; %s", folder, soname(t), words, this)
		if err == nil || err.Error() != "exit status 3" || output != want {
			t.Errorf("%s: %v\n%s\nis not\n%s", fake, err, output, want)
		}
	}
	for fake, words := range map[string]string{"status": "ols_forward: something new", "silent": "libols: FROM_THE_FUTURE"} {
		output, err := probed(program, folder, fake)
		if want := "status 77, FROM_THE_FUTURE, is 77: true: " + words + "\n"; err != nil || !strings.Contains(output, want) {
			t.Errorf("%s: %v\n%s does not contain\n%s", fake, err, output, want)
		}
	}
}

// r4, r16, r17, r21, r22: the library gets what the caller gave, address by address, on top of its own defaults.
func TestR04R16R17R21R22WhatTheLibraryGets(t *testing.T) {
	output, err := probed(probe(t), fakeLibrary(t), "")
	must(t, err)
	goes := regexp.MustCompile(`go: logits (0x\w+), targets (0x\w+), grad (0x\w+), 12\n`).FindStringSubmatch(output)
	if goes == nil {
		t.Fatalf("no addresses in\n%s", output)
	}
	want := []string{
		"create: alpha 0.125, reduction 2, min_count 7, device 2:3, threads 0",
		"batch: size 0, offset -5, stream 0xabc0, flags 2, reserved 0",
		"logits: " + goes[1] + ", device 1:0, dtype 2/32/1, ndim 2, shape 4 3 0, strides -6 1 0, reserved 0",
		"targets: " + goes[2] + ", device 1:0, dtype 0/32/1, ndim 1, shape 4 0 0, strides 1 0 0, reserved 0",
		"sample_weights: 0x7f1234567000, device 2:2, dtype 2/64/1, ndim 1, shape 4 0 0, strides 1 0 0, reserved 0",
		"targets2: 0x7f1234568000, device 3:0, dtype 1/8/1, ndim 2, shape 2 2 0, strides 1 2 0, reserved 0",
		"grad: " + goes[3] + ", device 1:0, dtype 2/32/1, ndim 2, shape 4 3 0, strides 3 1 0, reserved 0",
		strings.TrimSpace(goes[0]),
		"next_epoch: stream 0xabc0",
		"destroy",
	}
	if lines := strings.Split(strings.TrimSpace(output), "\n"); !slices.Equal(lines, want) {
		t.Errorf("%s\nis not\n%s", output, strings.Join(want, "\n"))
	}
}

// r25: a state saved here is loaded and continued through the C library, which saves the same state as Go's own
// continuation.
func TestR25StateThroughC(t *testing.T) {
	const k = 5
	folder := t.TempDir()
	program, saved, back := filepath.Join(folder, "state"), filepath.Join(folder, "saved"), filepath.Join(folder, "back")
	flags := append([]string{"-std=c99", "-Wall", "-Wextra", "-Werror", "testdata/state.c", "-o", program}, pkgConfig(t, "--cflags", "--libs")...)
	run(t, exec.Command(compiler(), flags...))

	criterion := newCriterion(t, ols.Options{Classes: k, Alpha: ols.Ptr(0.75), Momentum: ols.Ptr(0.5)})
	logits, targets := batchOf(9, 30, k)
	_, err := ols.LossAndGrad(criterion, logits, targets, make([]float32, 30*k))
	must(t, err)
	must(t, criterion.NextEpoch())
	_, err = ols.LossAndGrad(criterion, logits, targets, make([]float32, 30*k))
	must(t, err)
	must(t, criterion.Save(saved))

	want := "1\n"
	softLabels := softLabelsOf(t, criterion)
	must(t, criterion.WithStatistics(func(statistics ols.Statistics) error {
		for i := range k {
			want += fmt.Sprint(statistics.Counts[i])
			for j, sum := range statistics.Sums.Row(i) {
				want += fmt.Sprintf(" %x %d", math.Float32bits(softLabels[i*k+j]), sum)
			}
			want += "\n"
		}
		return nil
	}))
	if shown := run(t, exec.Command(program, fmt.Sprint(k), saved, back)); shown != want {
		t.Errorf("C reads\n%s\nGo wrote\n%s", shown, want)
	}

	one, class := make([]float32, k*k), make([]int64, k)
	for i := range k {
		one[i*k+i], class[i] = 3, int64(i)
	}
	must(t, criterion.Forward(&ols.Batch{Logits: ols.Matrix(one, k, k), Targets: ols.Vector(class)}, ols.Tensor{}, ols.Tensor{}))
	must(t, criterion.NextEpoch())
	loaded := newCriterion(t, ols.Options{Classes: k})
	must(t, loaded.Load(back))
	sameState(t, criterion, loaded)
}

// r25: the program for the ring of languages returns a file unchanged, and fails on a corrupted one.
func TestR25Ring(t *testing.T) {
	folder := t.TempDir()
	program := filepath.Join(folder, "roundtrip")
	run(t, exec.Command("go", "build", "-o", program, "./internal/roundtrip"))
	criterion := newCriterion(t, ols.Options{Classes: 4})
	logits, targets := batchOf(9, 30, 4)
	_, err := ols.LossAndGrad(criterion, logits, targets, make([]float32, 120))
	must(t, err)
	in, out := filepath.Join(folder, "in"), filepath.Join(folder, "out")
	must(t, criterion.Save(in))
	run(t, exec.Command(program, in, out))
	state := stateOf(t, criterion)
	if file, err := os.ReadFile(out); err != nil || !slices.Equal(file, state) {
		t.Errorf("the file was changed (%v)", err)
	}
	for name, damaged := range map[string][]byte{"flipped": append(copyOf(state[:len(state)-1]), state[len(state)-1]^1), "cut": state[:len(state)-3], "empty": nil} {
		must(t, os.WriteFile(in, damaged, 0o666))
		if output, err := exec.Command(program, in, out).CombinedOutput(); err == nil {
			t.Errorf("%s: the corrupted file was accepted: %s", name, output)
		}
	}
}
