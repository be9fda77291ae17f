# Julia arrays as the library's tensors, in place and without a copy.
#
# Julia's first dimension is the fastest, the library's last one: the dimensions are reversed, so that a (K, N) matrix
# is (N, K) in the library.

"""
    OnlineLabelSmoothing.BFloat16

bfloat16, the upper half of an IEEE 754 binary32, as an element type of logits and gradients.
`reinterpret(BFloat16, bits::Array{UInt16})` makes no copy. The type converts from and to `Float32` and has no
arithmetic; the type of the package BFloat16s is supported as well.
"""
primitive type BFloat16 <: AbstractFloat 16 end

Base.Float32(x::BFloat16) = reinterpret(Float32, UInt32(reinterpret(UInt16, x)) << 16)
Base.Float64(x::BFloat16) = Float64(Float32(x))
Base.promote_rule(::Type{BFloat16}, ::Type{Float32}) = Float32
Base.promote_rule(::Type{BFloat16}, ::Type{Float64}) = Float64
Base.show(io::IO, x::BFloat16) = print(io, "BFloat16(", Float32(x), ")")

function BFloat16(x::Float32)
    isnan(x) && return reinterpret(BFloat16, 0x7fc0)
    bits = reinterpret(UInt32, x)
    # Round to nearest, ties to even.
    return reinterpret(BFloat16, ((bits + 0x00007fff + ((bits >> 16) & 0x00000001)) >> 16) % UInt16)
end
function BFloat16(x::Float64)
    nearest = Float32(x)
    (isnan(x) || nearest == x) && return BFloat16(nearest)
    # Rounded to odd first, because rounding to nearest twice would take a number just above a tie for the tie.
    bits = reinterpret(UInt32, nearest) - UInt32(abs(nearest) > abs(x))
    return BFloat16(reinterpret(Float32, bits | 0x00000001))
end
BFloat16(x::Float16) = BFloat16(Float32(x))
BFloat16(x::Integer) = BFloat16(Float64(x))

# DLPack's type codes; `nothing` for types that have none. The library rejects the numbers that it does not support.
dtype(::Type{<:Union{Int8,Int16,Int32,Int64}}) = OLS_CODE_INT
dtype(::Type{<:Union{UInt8,UInt16,UInt32,UInt64}}) = OLS_CODE_UINT
dtype(::Type{<:Union{Float16,Float32,Float64}}) = OLS_CODE_FLOAT
dtype(::Type{BFloat16}) = OLS_CODE_BFLOAT
@static if isdefined(Core, :BFloat16)
    dtype(::Type{Core.BFloat16}) = OLS_CODE_BFLOAT
end
dtype(::Type) = nothing

@inline check_elements(::AbstractArray{T}, name::String) where {T} = dtype(T) === nothing ? throw_elements(T, name) : nothing
@noinline function throw_elements(T::Type, name::String)
    throw(ArgumentError("$name has elements of type $T; libols supports Float16, Float32, Float64, BFloat16, Int32, Int64 and UInt8"))
end

# The location of an array. The extension for device arrays adds methods to these five functions, and an entry to
# STATE_ALLOCATORS.
device(array::AbstractArray) = parent(array) === array ? (OLS_DEVICE_CPU, Int32(0)) : device(parent(array))
device(::Array) = (OLS_DEVICE_CPU, Int32(0))
address(array::AbstractArray{T}) where {T} = Ptr{Cvoid}(Base.unsafe_convert(Ptr{T}, array))
stream(array::AbstractArray) = parent(array) === array ? C_NULL : stream(parent(array))
stream(::Array) = C_NULL
scalar_output(::AbstractArray, ::Type{T}) where {T} = Scalar(zero(T))
scalar_input(::AbstractArray, value::Float64) = Scalar(value)

# Whether the elements are in memory with fixed strides.
has_memory(::StridedArray) = true
has_memory(array::PermutedDimsArray) = has_memory(parent(array))
# Arrays of these types that are not a StridedArray: some have strides and some do not, which would only show when they
# are asked for.
has_memory(::Union{SubArray,Base.ReshapedArray,Base.ReinterpretArray}) = false
function has_memory(array::AbstractArray)
    # Base cannot provide the address of a wrapper of a device array.
    hasmethod(strides, Tuple{typeof(array)}) && first(device(array)) == OLS_DEVICE_CPU || return false
    return parent(array) === array || has_memory(parent(array))
end

# Whether the first `count` dimensions can be merged into one with a fixed stride.
function collapses(array::AbstractArray, count::Int)
    steps = strides(array)
    isempty(array) && return true
    inner = 0 # the last dimension so far with more than one element
    for d in 1:count
        size(array, d) == 1 && continue
        inner == 0 || steps[d] == steps[inner] * size(array, inner) || return false
        inner = d
    end
    return true
end

# Returns `array`, or a dense copy if the library could not read it in place. Its last `kept` dimensions must remain
# separate.
@inline function readable(array::AbstractArray{T,N}, ::Val{kept}, name::String) where {T,N,kept}
    check_elements(array, name)
    is_readable(array, Val(kept)) && return array
    @warn "$name is copied in each call, because a $(typeof(array)) of size $(size(array)) does not have the strides that libols needs" maxlog = 1 _id = Symbol(name, :_is_copied)
    return dense(array)
end
@inline readable(array::DenseArray, ::Val, name::String) = (check_elements(array, name); array)
@inline is_readable(array::AbstractArray{T,N}, ::Val{kept}) where {T,N,kept} = has_memory(array) && (N <= kept + 1 || collapses(array, N - kept))
@inline is_readable(::DenseArray, ::Val) = true

dense(array::AbstractArray{T}) where {T} = copyto!(dense_like(array, T, size(array)), array)

# A new array beside `array`, on the same device. `similar` of a diagonal or a banded matrix is sparse.
@inline function dense_like(array::AbstractArray, ::Type{T}, sizes::Tuple) where {T}
    made = similar(array, T, sizes)
    return has_memory(made) ? made : Array{T}(undef, sizes)
end

# A single number that a call reads or writes. It is stored in the stack frame of the call, so that a call does not
# allocate.
struct Scalar{T}
    value::T
end

# A view of an array whose last `kept` dimensions remain separate, while the others are merged into one.
@inline function tensor(array::AbstractArray{T,N}, ::Val{kept}) where {T,N,kept}
    kind, id = device(array)
    ndim = min(N, kept + 1)
    merged = N - ndim + 1 # dimensions that are merged into the tensor's last one
    sizes, steps = size(array), strides(array)
    shape = ntuple(i -> i < ndim ? Int64(sizes[N + 1 - i]) : i == ndim ? Int64(merged_size(sizes, merged)) : Int64(1), Val(3))
    step = ntuple(i -> i < ndim ? Int64(steps[N + 1 - i]) : i == ndim ? Int64(merged_step(sizes, steps, merged)) : Int64(0), Val(3))
    return ols_tensor_t(address(array), kind, id, dtype(T), UInt8(8 * sizeof(T)), 0x0001, Int32(ndim), shape, step, 0)
end
@inline tensor(::Nothing, ::Val) = NOT_GIVEN
@inline tensor(array, kept::Val, ::Nothing) = tensor(array, kept)
@inline tensor(::Scalar, kept::Val, place::Base.RefValue) = tensor(place, kept)

# Holds the number of a Scalar during a call.
@inline place_of(scalar::Scalar) = Ref(scalar.value)
@inline place_of(::Any) = nothing
@inline function tensor(value::Base.RefValue{T}, ::Val) where {T<:Union{Float32,Float64}}
    return ols_tensor_t(Base.unsafe_convert(Ptr{T}, value), OLS_DEVICE_CPU, 0, OLS_CODE_FLOAT, UInt8(8 * sizeof(T)), 0x0001, 0, (1, 1, 1), (0, 0, 0), 0)
end

@inline merged_size(sizes, merged::Int) = merged == 1 ? sizes[1] : prod(sizes[1:merged])

@inline function merged_step(sizes, steps, merged::Int)
    merged == 1 && return steps[1]
    for d in 1:merged
        sizes[d] == 1 || return steps[d]
    end
    return 1
end
