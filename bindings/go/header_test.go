package ols_test

import (
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"libols/ols"
	"libols/ols/internal/capi"
)

// numbers has every number of ols.h as it is in this package. The constants of options are greater by 1 here, see
// Options.
var numbers = map[string]int64{
	"OLS_ABI_VERSION":                  capi.ABIVersion,
	"OLS_CODE_INT":                     int64(code(ols.I64)),
	"OLS_CODE_UINT":                    int64(code(ols.U8)),
	"OLS_CODE_FLOAT":                   int64(code(ols.F64)),
	"OLS_CODE_BFLOAT":                  int64(code(ols.BF16)),
	"OLS_DEVICE_CPU":                   int64(ols.CPU),
	"OLS_DEVICE_CUDA":                  int64(ols.CUDADevice),
	"OLS_DEVICE_CUDA_HOST":             int64(ols.CUDAHost),
	"OLS_DEVICE_CUDA_MANAGED":          int64(ols.CUDAManaged),
	"OLS_OPTIONS_ADOPT_STATE":          capi.OptionsAdoptState,
	"OLS_BATCH_NO_UPDATE":              int64(ols.NoUpdate),
	"OLS_BATCH_TAKE_BACK":              int64(ols.TakeBack),
	"OLS_FRACTION_BITS":                ols.FractionBits,
	"OLS_COUNTERS":                     ols.NumCounters,
	"OLS_COUNTER_SKIPPED_NON_FINITE":   ols.CounterSkippedNonFinite,
	"OLS_COUNTER_TARGETS_OUT_OF_RANGE": ols.CounterTargetsOutOfRange,
	"OLS_COUNTER_TAKE_BACKS_REFUSED":   ols.CounterTakeBacksRefused,
	"OLS_STATUS_OK":                    capi.StatusOK,
	"OLS_STATUS_INVALID_ARGUMENT":      int64(ols.InvalidArgument),
	"OLS_STATUS_INVALID_DTYPE":         int64(ols.InvalidDType),
	"OLS_STATUS_INVALID_SHAPE":         int64(ols.InvalidShape),
	"OLS_STATUS_INVALID_DEVICE":        int64(ols.InvalidDevice),
	"OLS_STATUS_TARGET_OUT_OF_RANGE":   int64(ols.TargetOutOfRange),
	"OLS_STATUS_INVALID_STATE":         int64(ols.InvalidState),
	"OLS_STATUS_UNSUPPORTED":           int64(ols.Unsupported),
	"OLS_STATUS_OUT_OF_MEMORY":         int64(ols.OutOfMemory),
	"OLS_STATUS_IO":                    int64(ols.IO),
	"OLS_STATUS_INVALID_FILE":          int64(ols.InvalidFile),
	"OLS_STATUS_CUDA":                  int64(ols.CUDA),
	"OLS_STATUS_PANIC":                 int64(ols.Panic),
	"OLS_DTYPE_F32":                    int64(ols.F32),
	"OLS_DTYPE_F64":                    int64(ols.F64),
	"OLS_DTYPE_F16":                    int64(ols.F16),
	"OLS_DTYPE_BF16":                   int64(ols.BF16),
	"OLS_DTYPE_I64":                    int64(ols.I64),
	"OLS_DTYPE_I32":                    int64(ols.I32),
	"OLS_DTYPE_U8":                     int64(ols.U8),
	"OLS_INITIAL_SMOOTHING":            int64(ols.InitialSmoothing) - 1,
	"OLS_INITIAL_UNIFORM":              int64(ols.InitialUniform) - 1,
	"OLS_INITIAL_ZERO":                 int64(ols.InitialZero) - 1,
	"OLS_INITIAL_ONE_HOT":              int64(ols.InitialOneHot) - 1,
	"OLS_INITIAL_MATRIX":               int64(ols.InitialMatrix) - 1,
	"OLS_EMPTY_CLASS_KEEP":             int64(ols.EmptyClassKeep) - 1,
	"OLS_EMPTY_CLASS_UNIFORM":          int64(ols.EmptyClassUniform) - 1,
	"OLS_EMPTY_CLASS_INITIAL":          int64(ols.EmptyClassInitial) - 1,
	"OLS_EMPTY_CLASS_ONE_HOT":          int64(ols.EmptyClassOneHot) - 1,
	"OLS_EMPTY_CLASS_ZERO":             int64(ols.EmptyClassZero) - 1,
	"OLS_REDUCTION_NONE":               int64(ols.ReductionNone) - 1,
	"OLS_REDUCTION_MEAN":               int64(ols.ReductionMean) - 1,
	"OLS_REDUCTION_SUM":                int64(ols.ReductionSum) - 1,
	"OLS_MODE_TRAIN":                   int64(ols.Train) - 1,
	"OLS_MODE_EVAL":                    int64(ols.Eval) - 1,
	"OLS_PRESET_REFERENCE":             int64(ols.PresetReference) - 1,
	"OLS_PRESET_PAPER":                 int64(ols.PresetPaper) - 1,
}

func code(dtype ols.DType) int32 { return int32(dtype) & 255 }

// r3: every number of the header has a name here, with the same value, and vice versa.
func TestR03Constants(t *testing.T) {
	folder, err := exec.Command("pkg-config", "--variable=includedir", "ols").Output()
	must(t, err)
	header, err := os.ReadFile(strings.TrimSpace(string(folder)) + "/ols.h")
	must(t, err)
	_, text, found := strings.Cut(string(header), "#define OLS_H")
	if !found {
		t.Fatal("this is not ols.h")
	}
	seen := map[string]bool{}
	for _, match := range regexp.MustCompile(`(?m)^(?:#define | +)(OLS_[A-Z0-9_]+)(?: = | )(-?\d+|"[^"]*"),?$`).FindAllStringSubmatch(text, -1) {
		name, value := match[1], match[2]
		seen[name] = true
		if strings.HasPrefix(name, "OLS_VERSION") {
			// This is what the package was compiled with; it is compared with the library itself when that is loaded.
			if name == "OLS_VERSION" && value != strconv.Quote(capi.Version) {
				t.Errorf("%s is %s here %q", name, value, capi.Version)
			}
			continue
		}
		number, err := strconv.ParseInt(value, 10, 64)
		must(t, err)
		if here, ok := numbers[name]; !ok || here != number {
			t.Errorf("%s is %d in the header, and %d here (known: %t)", name, number, here, ok)
		}
	}
	for name := range numbers {
		if !seen[name] {
			t.Errorf("%s is not in the header", name)
		}
	}
}

// r7: the library names every status as the header does.
func TestR07StatusNames(t *testing.T) {
	for name, number := range numbers {
		if want, ok := strings.CutPrefix(name, "OLS_STATUS_"); ok && ols.Status(number).String() != want {
			t.Errorf("%v is not %s", ols.Status(number), want)
		}
	}
}

// r22: Options with only Classes set have the library's defaults, field by field, and presets are the library's.
func TestR22Defaults(t *testing.T) {
	for preset, number := range map[ols.Preset]int32{0: -1, ols.PresetReference: capi.PresetReference, ols.PresetPaper: capi.PresetPaper} {
		var want capi.Options
		if r := capi.InitOptions(&want, number); r.Status != 0 {
			t.Fatal(r.Message)
		}
		options, err := newCriterion(t, ols.Options{Classes: 6, Preset: preset}).Options()
		must(t, err)
		is := []any{options.Classes, *options.Alpha, *options.Smoothing, *options.Momentum, *options.FreezeAbove, *options.MinCount, *options.IgnoreIndex,
			int32(options.Initial) - 1, int32(options.EmptyClass) - 1, int32(options.Reduction) - 1, int32(options.Mode) - 1,
			int32(options.Device.Type), int32(options.Device.ID), *options.Threads, options.ClassWeights.IsZero(), options.InitialSoftLabels.IsZero()}
		was := []any{6, want.Alpha, want.Smoothing, want.Momentum, want.FreezeAbove, int(want.MinCount), int(want.IgnoreIndex), want.Initial, want.EmptyClass,
			want.Reduction, want.Mode, want.DeviceType, want.DeviceID, int(want.Threads), true, true}
		if !reflect.DeepEqual(is, was) {
			t.Errorf("preset %v: %v is not %v", preset, is, was)
		}
	}
}

// r22: the defaults that the comments of Options state are the library's.
func TestR22DefaultsInComments(t *testing.T) {
	source, err := os.ReadFile("options.go")
	must(t, err)
	options, err := newCriterion(t, ols.Options{Classes: 3}).Options()
	must(t, err)
	var fields []string
	for _, found := range regexp.MustCompile(`(?m)((?:^\t// .*\n)+)\t(\w+) `).FindAllStringSubmatch(string(source), -1) {
		text := strings.Join(strings.Fields(strings.ReplaceAll(found[1], "\t//", "")), " ")
		stated := regexp.MustCompile(`The default is (\S+?)[.:,]?(?: |$)`).FindStringSubmatch(text)
		if stated == nil {
			continue
		}
		value := reflect.Indirect(reflect.ValueOf(options).FieldByName(found[2]))
		want := fmt.Sprint(value)
		if value.Kind() == reflect.Int32 { // an enum: the name of its constant
			want = value.Type().Name() + strings.ReplaceAll(want, "_", "")
		}
		if !strings.EqualFold(stated[1], want) && !strings.EqualFold("Mode"+stated[1], want) {
			t.Errorf("the comment of %s states %s, but the default is %s", found[2], stated[1], want)
		}
		fields = append(fields, found[2])
	}
	if len(fields) != 11 {
		t.Errorf("defaults are stated only for %v", fields)
	}
}

// Every option reaches the library, and is returned by it.
func TestOptionsRoundTrip(t *testing.T) {
	given := ols.Options{
		Classes: 2, Alpha: ols.Ptr(0.0), Momentum: ols.Ptr(0.5), FreezeAbove: ols.Ptr(0.75), MinCount: ols.Ptr(3),
		IgnoreIndex: ols.Ptr(-7), EmptyClass: ols.EmptyClassOneHot, Reduction: ols.ReductionNone, Mode: ols.Eval, Threads: ols.Ptr(2),
		ClassWeights: ols.Vector([]float32{0.5, 2}), InitialSoftLabels: ols.Matrix([]float64{1, 2, 3, 4}, 2, 2),
	}
	first := newCriterion(t, given)
	options, err := first.Options()
	must(t, err)
	if *options.Alpha != 0 || *options.Momentum != 0.5 || *options.FreezeAbove != 0.75 || *options.MinCount != 3 ||
		*options.IgnoreIndex != -7 || options.EmptyClass != ols.EmptyClassOneHot || options.Reduction != ols.ReductionNone ||
		options.Mode != ols.Eval || *options.Threads != 2 || options.Initial != ols.InitialMatrix {
		t.Errorf("%+v", options)
	}
	sameState(t, first, newCriterion(t, options))
	if got := softLabelsOf(t, first); !reflect.DeepEqual(got, []float32{1, 2, 3, 4}) {
		t.Errorf("soft labels %v", got)
	}
	smooth, err := newCriterion(t, ols.Options{Classes: 2, Smoothing: ols.Ptr(0.25)}).Options()
	must(t, err)
	if *smooth.Smoothing != 0.25 || smooth.Initial != ols.InitialSmoothing {
		t.Errorf("smoothing %v", *smooth.Smoothing)
	}
	must(t, first.SetAlpha(0.5))
	must(t, first.SetMode(ols.Train))
	must(t, first.SetEpoch(9))
	mode, err := first.Mode()
	must(t, err)
	epoch, err := first.Epoch()
	must(t, err)
	options, err = first.Options()
	must(t, err)
	if mode != ols.Train || epoch != 9 || *options.Alpha != 0.5 || options.Mode != ols.Train {
		t.Errorf("mode %v, epoch %d, alpha %v, mode %v", mode, epoch, *options.Alpha, options.Mode)
	}
	for text, value := range map[string]any{"one_hot": options.EmptyClass, "matrix": options.Initial, "none": options.Reduction, "train": options.Mode,
		"paper": ols.PresetPaper, "Mode(77)": ols.Mode(77), "bf16": ols.BF16, "DType(5)": ols.DType(5), "default": ols.Initial(0)} {
		if printed := reflect.ValueOf(value).MethodByName("String").Call(nil)[0].String(); printed != text {
			t.Errorf("%T prints as %q, not %q", value, printed, text)
		}
	}
}
