"""The constants and structs of include/ols.h, for ctypes. A test compares all of them with the header and with the C compiler."""

from __future__ import annotations

import enum
from ctypes import Structure, c_double, c_int32, c_int64, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p

ABI_VERSION = 0
# ABI version 0 stands for every release before 1.0; there the first two numbers of the version decide.
VERSION_PREFIX = "0.1."

CODE_INT, CODE_UINT, CODE_FLOAT, CODE_BFLOAT = 0, 1, 2, 4
DEVICE_CPU, DEVICE_CUDA, DEVICE_CUDA_HOST, DEVICE_CUDA_MANAGED = 1, 2, 3, 13
OPTIONS_ADOPT_STATE = 1
BATCH_NO_UPDATE, BATCH_TAKE_BACK = 1, 2
FRACTION_BITS = 30
COUNTERS = 4
COUNTER_SKIPPED_NON_FINITE, COUNTER_TARGETS_OUT_OF_RANGE, COUNTER_TAKE_BACKS_REFUSED = 0, 1, 2


class Status(enum.IntEnum):
    """The outcome of a call."""

    OK = 0
    INVALID_ARGUMENT = 1
    INVALID_DTYPE = 2
    INVALID_SHAPE = 3
    INVALID_DEVICE = 4
    TARGET_OUT_OF_RANGE = 5
    INVALID_STATE = 6
    UNSUPPORTED = 7
    OUT_OF_MEMORY = 8
    IO = 9
    INVALID_FILE = 10
    CUDA = 11
    PANIC = 255


class Dtype(enum.IntEnum):
    """`dtype_code | dtype_bits << 8`."""

    F32 = 8194
    F64 = 16386
    F16 = 4098
    BF16 = 4100
    I64 = 16384
    I32 = 8192
    U8 = 2049


class Initial(enum.IntEnum):
    SMOOTHING = 0
    UNIFORM = 1
    ZERO = 2
    ONE_HOT = 3
    MATRIX = 4


class EmptyClass(enum.IntEnum):
    KEEP = 0
    UNIFORM = 1
    INITIAL = 2
    ONE_HOT = 3
    ZERO = 4


class Reduction(enum.IntEnum):
    NONE = 0
    MEAN = 1
    SUM = 2


class Mode(enum.IntEnum):
    TRAIN = 0
    EVAL = 1


class Preset(enum.IntEnum):
    REFERENCE = 0
    PAPER = 1


class Tensor(Structure):
    """`ols_tensor_t`: a view of memory of up to three dimensions, strides in elements. All zero: not given."""

    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("dtype_code", c_uint8),
        ("dtype_bits", c_uint8),
        ("dtype_lanes", c_uint16),
        ("ndim", c_int32),
        ("shape", c_int64 * 3),
        ("strides", c_int64 * 3),
        ("reserved", c_uint64),
    ]


class Options(Structure):
    """`ols_options_t`."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("num_classes", c_int64),
        ("alpha", c_double),
        ("smoothing", c_double),
        ("momentum", c_double),
        ("freeze_above", c_double),
        ("min_count", c_int64),
        ("ignore_index", c_int64),
        ("initial", c_int32),
        ("empty_class", c_int32),
        ("reduction", c_int32),
        ("mode", c_int32),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("n_threads", c_int32),
        ("flags", c_uint32),
        ("class_weights", Tensor),
        ("initial_soft_labels", Tensor),
        ("soft_labels", Tensor),
        ("sums", Tensor),
        ("counts", Tensor),
        ("counters", Tensor),
    ]


class Batch(Structure):
    """`ols_batch_t`."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("logits", Tensor),
        ("targets", Tensor),
        ("sample_weights", Tensor),
        ("targets2", Tensor),
        ("lam", Tensor),
        ("grad_loss", Tensor),
        ("target_offset", c_int64),
        ("stream", c_void_p),
        ("flags", c_uint32),
        ("reserved", c_uint32),
    ]


class Statistics(Structure):
    """`ols_statistics_t`."""

    _fields_ = [("struct_size", c_size_t), ("sums", Tensor), ("counts", Tensor), ("counters", Tensor)]


class Report(Structure):
    """`ols_report_t`."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("epoch", c_int64),
        ("rows_measured", c_int64),
        ("rows_kept", c_int64),
        ("rows_uniform", c_int64),
        ("rows_initial", c_int64),
        ("rows_one_hot", c_int64),
        ("rows_zero", c_int64),
        ("rows_frozen", c_int64),
        ("samples_accumulated", c_int64),
        ("samples_skipped", c_int64),
        ("classes_full", c_int64),
        ("targets_out_of_range", c_int64),
        ("running_epoch", c_int64),
        ("running_samples_accumulated", c_int64),
        ("running_samples_skipped", c_int64),
        ("running_classes_full", c_int64),
        ("running_targets_out_of_range", c_int64),
    ]
