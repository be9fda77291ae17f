package capi

// #include <ols.h>
import "C"

// The numbers of ols.h, as the C compiler reads them.
const (
	Version    = C.OLS_VERSION
	ABIVersion = C.OLS_ABI_VERSION

	StatusOK               = C.OLS_STATUS_OK
	StatusInvalidArgument  = C.OLS_STATUS_INVALID_ARGUMENT
	StatusInvalidDType     = C.OLS_STATUS_INVALID_DTYPE
	StatusInvalidShape     = C.OLS_STATUS_INVALID_SHAPE
	StatusInvalidDevice    = C.OLS_STATUS_INVALID_DEVICE
	StatusTargetOutOfRange = C.OLS_STATUS_TARGET_OUT_OF_RANGE
	StatusInvalidState     = C.OLS_STATUS_INVALID_STATE
	StatusUnsupported      = C.OLS_STATUS_UNSUPPORTED
	StatusOutOfMemory      = C.OLS_STATUS_OUT_OF_MEMORY
	StatusIO               = C.OLS_STATUS_IO
	StatusInvalidFile      = C.OLS_STATUS_INVALID_FILE
	StatusCUDA             = C.OLS_STATUS_CUDA
	StatusPanic            = C.OLS_STATUS_PANIC

	DTypeF32  = C.OLS_DTYPE_F32
	DTypeF64  = C.OLS_DTYPE_F64
	DTypeF16  = C.OLS_DTYPE_F16
	DTypeBF16 = C.OLS_DTYPE_BF16
	DTypeI64  = C.OLS_DTYPE_I64
	DTypeI32  = C.OLS_DTYPE_I32
	DTypeU8   = C.OLS_DTYPE_U8

	DeviceCPU         = C.OLS_DEVICE_CPU
	DeviceCUDA        = C.OLS_DEVICE_CUDA
	DeviceCUDAHost    = C.OLS_DEVICE_CUDA_HOST
	DeviceCUDAManaged = C.OLS_DEVICE_CUDA_MANAGED

	InitialSmoothing = C.OLS_INITIAL_SMOOTHING
	InitialUniform   = C.OLS_INITIAL_UNIFORM
	InitialZero      = C.OLS_INITIAL_ZERO
	InitialOneHot    = C.OLS_INITIAL_ONE_HOT
	InitialMatrix    = C.OLS_INITIAL_MATRIX

	EmptyClassKeep    = C.OLS_EMPTY_CLASS_KEEP
	EmptyClassUniform = C.OLS_EMPTY_CLASS_UNIFORM
	EmptyClassInitial = C.OLS_EMPTY_CLASS_INITIAL
	EmptyClassOneHot  = C.OLS_EMPTY_CLASS_ONE_HOT
	EmptyClassZero    = C.OLS_EMPTY_CLASS_ZERO

	ReductionNone = C.OLS_REDUCTION_NONE
	ReductionMean = C.OLS_REDUCTION_MEAN
	ReductionSum  = C.OLS_REDUCTION_SUM

	ModeTrain = C.OLS_MODE_TRAIN
	ModeEval  = C.OLS_MODE_EVAL

	PresetReference = C.OLS_PRESET_REFERENCE
	PresetPaper     = C.OLS_PRESET_PAPER

	OptionsAdoptState = C.OLS_OPTIONS_ADOPT_STATE
	BatchNoUpdate     = C.OLS_BATCH_NO_UPDATE
	BatchTakeBack     = C.OLS_BATCH_TAKE_BACK

	FractionBits             = C.OLS_FRACTION_BITS
	Counters                 = C.OLS_COUNTERS
	CounterSkippedNonFinite  = C.OLS_COUNTER_SKIPPED_NON_FINITE
	CounterTargetsOutOfRange = C.OLS_COUNTER_TARGETS_OUT_OF_RANGE
	CounterTakeBacksRefused  = C.OLS_COUNTER_TAKE_BACKS_REFUSED
)
