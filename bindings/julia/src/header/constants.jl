# The constants of ols.h, with the same names. test/header.jl compares them with the header, in both directions.

const OLS_VERSION = "0.1.0"
const OLS_VERSION_MAJOR = 0
const OLS_VERSION_MINOR = 1
const OLS_VERSION_PATCH = 0
const OLS_VERSION_NUMBER = 1000
const OLS_ABI_VERSION = 0

const OLS_CODE_INT = 0x00
const OLS_CODE_UINT = 0x01
const OLS_CODE_FLOAT = 0x02
const OLS_CODE_BFLOAT = 0x04

const OLS_DEVICE_CPU = Int32(1)
const OLS_DEVICE_CUDA = Int32(2)
const OLS_DEVICE_CUDA_HOST = Int32(3)
const OLS_DEVICE_CUDA_MANAGED = Int32(13)

const OLS_OPTIONS_ADOPT_STATE = UInt32(1)
const OLS_BATCH_NO_UPDATE = UInt32(1)
const OLS_BATCH_TAKE_BACK = UInt32(2)

const OLS_FRACTION_BITS = 30
const OLS_COUNTERS = 4
const OLS_COUNTER_SKIPPED_NON_FINITE = 0
const OLS_COUNTER_TARGETS_OUT_OF_RANGE = 1
const OLS_COUNTER_TAKE_BACKS_REFUSED = 2

const OLS_STATUS_OK = Int32(0)
const OLS_STATUS_INVALID_ARGUMENT = Int32(1)
const OLS_STATUS_INVALID_DTYPE = Int32(2)
const OLS_STATUS_INVALID_SHAPE = Int32(3)
const OLS_STATUS_INVALID_DEVICE = Int32(4)
const OLS_STATUS_TARGET_OUT_OF_RANGE = Int32(5)
const OLS_STATUS_INVALID_STATE = Int32(6)
const OLS_STATUS_UNSUPPORTED = Int32(7)
const OLS_STATUS_OUT_OF_MEMORY = Int32(8)
const OLS_STATUS_IO = Int32(9)
const OLS_STATUS_INVALID_FILE = Int32(10)
const OLS_STATUS_CUDA = Int32(11)
const OLS_STATUS_PANIC = Int32(255)

const OLS_DTYPE_F32 = Int32(8194)
const OLS_DTYPE_F64 = Int32(16386)
const OLS_DTYPE_F16 = Int32(4098)
const OLS_DTYPE_BF16 = Int32(4100)
const OLS_DTYPE_I64 = Int32(16384)
const OLS_DTYPE_I32 = Int32(8192)
const OLS_DTYPE_U8 = Int32(2049)

const OLS_INITIAL_SMOOTHING = Int32(0)
const OLS_INITIAL_UNIFORM = Int32(1)
const OLS_INITIAL_ZERO = Int32(2)
const OLS_INITIAL_ONE_HOT = Int32(3)
const OLS_INITIAL_MATRIX = Int32(4)

const OLS_EMPTY_CLASS_KEEP = Int32(0)
const OLS_EMPTY_CLASS_UNIFORM = Int32(1)
const OLS_EMPTY_CLASS_INITIAL = Int32(2)
const OLS_EMPTY_CLASS_ONE_HOT = Int32(3)
const OLS_EMPTY_CLASS_ZERO = Int32(4)

const OLS_REDUCTION_NONE = Int32(0)
const OLS_REDUCTION_MEAN = Int32(1)
const OLS_REDUCTION_SUM = Int32(2)

const OLS_MODE_TRAIN = Int32(0)
const OLS_MODE_EVAL = Int32(1)

const OLS_PRESET_REFERENCE = Int32(0)
const OLS_PRESET_PAPER = Int32(1)

# An enumeration of the header with Julia names: OLS_EMPTY_CLASS_ONE_HOT is :one_hot.
function enumeration(prefix::String)
    constants = filter(name -> startswith(string(name), prefix), names(@__MODULE__; all = true))
    return Dict(Symbol(lowercase(string(name)[(length(prefix) + 1):end])) => getfield(@__MODULE__, name) for name in constants)
end

const STATUSES = enumeration("OLS_STATUS_")
const INITIALS = enumeration("OLS_INITIAL_")
const EMPTY_CLASSES = enumeration("OLS_EMPTY_CLASS_")
const REDUCTIONS = enumeration("OLS_REDUCTION_")
const MODES = enumeration("OLS_MODE_")
const PRESETS = enumeration("OLS_PRESET_")
const DEVICES = enumeration("OLS_DEVICE_")
const UPDATES = Dict(:add => UInt32(0), :none => OLS_BATCH_NO_UPDATE, :take_back => OLS_BATCH_TAKE_BACK)

# The number of `symbol`, which is the value of the keyword `argument`.
function number_of(members::Dict{Symbol}, symbol, argument::String)
    haskey(members, symbol) && return members[symbol]
    allowed = join(sort!([repr(name) for name in keys(members)]), ", ")
    throw(ArgumentError("$argument = $(repr(symbol)) is not one of $allowed"))
end

# The name of a number, or the number itself as a symbol if a newer library has added it.
function symbol_of(members::Dict{Symbol}, number::Integer)
    for (symbol, value) in members
        value == number && return symbol
    end
    return Symbol(number)
end
