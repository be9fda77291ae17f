# As much of CUDA.jl as the extension uses. The "device" is host memory at addresses that the host's own functions refuse, as CUDA.jl's do.
module CUDA

export CuArray

primitive type CuPtr{T} 64 end
Base.UInt(pointer::CuPtr) = reinterpret(UInt, pointer)
CuPtr{T}(address::UInt) where {T} = reinterpret(CuPtr{T}, address)

mutable struct CuArray{T,N} <: DenseArray{T,N}
    memory::Array{T,N}
    device::Int
end
CuArray(memory::Array{T,N}) where {T,N} = CuArray{T,N}(memory, CURRENT[])
CuArray{T}(::UndefInitializer, sizes::Tuple) where {T} = CuArray(Array{T}(undef, sizes))
CuArray{T}(::UndefInitializer, sizes::Int...) where {T} = CuArray(Array{T}(undef, sizes))

Base.size(array::CuArray) = size(array.memory)
Base.getindex(::CuArray, ::Int...) = error("scalar indexing is disallowed")
Base.similar(array::CuArray, ::Type{T}, sizes::Dims) where {T} = CuArray{T}(undef, sizes)
Base.Array(array::CuArray) = copy(array.memory)
Base.unsafe_convert(::Type{Ptr{T}}, ::CuArray{T}) where {T} = throw(ArgumentError("cannot take the CPU address of a CuArray"))
Base.unsafe_convert(::Type{CuPtr{T}}, array::CuArray{T}) where {T} = CuPtr{T}(UInt(pointer(array.memory)))
function Base.unsafe_convert(::Type{CuPtr{T}}, view::SubArray{T,N,<:CuArray}) where {T,N}
    steps = strides(parent(view))
    offset = sum((first.(parentindices(view)) .- 1) .* steps)
    return CuPtr{T}(UInt(pointer(parent(view).memory)) + offset * sizeof(T))
end

const StridedCuArray{T,N} = Union{CuArray{T,N},SubArray{T,N,<:CuArray}}

struct CuDevice
    number::Int
end
const CURRENT = Ref(0)
device() = CuDevice(CURRENT[])
device(array::CuArray) = CuDevice(array.device)
deviceid(device::CuDevice) = device.number
device!(number::Integer) = CURRENT[] = number
device!(device::CuDevice) = CURRENT[] = device.number

struct CuStream
    handle::Ptr{Cvoid}
end
stream() = CuStream(Ptr{Cvoid}(UInt(0x5eed)))

end
