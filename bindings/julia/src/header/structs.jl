# The structs of ols.h, field by field. test/header.jl compares sizes and offsets with those of the C compiler.

struct ols_tensor_t
    data::Ptr{Cvoid}
    device_type::Int32
    device_id::Int32
    dtype_code::UInt8
    dtype_bits::UInt8
    dtype_lanes::UInt16
    ndim::Int32
    shape::NTuple{3,Int64}
    strides::NTuple{3,Int64}
    reserved::UInt64
end

# All bytes are 0: "not given".
const NOT_GIVEN = ols_tensor_t(C_NULL, 0, 0, 0, 0, 0, 0, (0, 0, 0), (0, 0, 0), 0)

struct ols_options_t
    struct_size::Csize_t
    num_classes::Int64
    alpha::Float64
    smoothing::Float64
    momentum::Float64
    freeze_above::Float64
    min_count::Int64
    ignore_index::Int64
    initial::Int32
    empty_class::Int32
    reduction::Int32
    mode::Int32
    device_type::Int32
    device_id::Int32
    n_threads::Int32
    flags::UInt32
    class_weights::ols_tensor_t
    initial_soft_labels::ols_tensor_t
    soft_labels::ols_tensor_t
    sums::ols_tensor_t
    counts::ols_tensor_t
    counters::ols_tensor_t
end

struct ols_batch_t
    struct_size::Csize_t
    logits::ols_tensor_t
    targets::ols_tensor_t
    sample_weights::ols_tensor_t
    targets2::ols_tensor_t
    lam::ols_tensor_t
    grad_loss::ols_tensor_t
    target_offset::Int64
    stream::Ptr{Cvoid}
    flags::UInt32
    reserved::UInt32
end

struct ols_statistics_t
    struct_size::Csize_t
    sums::ols_tensor_t
    counts::ols_tensor_t
    counters::ols_tensor_t
end

struct ols_report_t
    struct_size::Csize_t
    epoch::Int64
    rows_measured::Int64
    rows_kept::Int64
    rows_uniform::Int64
    rows_initial::Int64
    rows_one_hot::Int64
    rows_zero::Int64
    rows_frozen::Int64
    samples_accumulated::Int64
    samples_skipped::Int64
    classes_full::Int64
    targets_out_of_range::Int64
    running_epoch::Int64
    running_samples_accumulated::Int64
    running_samples_skipped::Int64
    running_classes_full::Int64
    running_targets_out_of_range::Int64
end

# `value` with some of its fields replaced.
function with_fields(value::T, changes::Dict{Symbol,Any}) where {T}
    return T((get(changes, field, getfield(value, field)) for field in fieldnames(T))...)
end
