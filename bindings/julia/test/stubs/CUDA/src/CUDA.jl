# The part of CUDA.jl that the extension uses, based on the stand-in for the CUDA driver that the environment variable
# OLS_STAND_IN names. As in CUDA.jl, host functions reject device pointers; only tests access the memory behind them.
module CUDA

export CuArray

import Libdl

primitive type CuPtr{T} 64 end
Base.UInt(pointer::CuPtr) = reinterpret(UInt, pointer)
CuPtr{T}(address::UInt) where {T} = reinterpret(CuPtr{T}, address)

const DRIVER = Ref(C_NULL)
const CURRENT = Ref(0)
const STREAMS = Dict{Int,Ptr{Cvoid}}()

# Opened before libols looks for libcuda.so, which is also the name of the stand-in.
__init__() = DRIVER[] = Libdl.dlopen(ENV["OLS_STAND_IN"], Libdl.RTLD_NOW | Libdl.RTLD_GLOBAL)

driver(name::Symbol) = Libdl.dlsym(DRIVER[], name)
demand(status::Integer) = status == 0 || error("the stand-in returns $status")

function enter(device::Int)
    context = Ref{Ptr{Cvoid}}(C_NULL)
    demand(ccall(driver(:cuInit), Cint, (Cuint,), 0))
    demand(ccall(driver(:cuDevicePrimaryCtxRetain), Cint, (Ref{Ptr{Cvoid}}, Cint), context, device))
    demand(ccall(driver(:cuCtxSetCurrent), Cint, (Ptr{Cvoid},), context[]))
end

function allocate(device::Int, bytes::Int)
    enter(device)
    address = Ref{UInt64}(0)
    demand(ccall(driver(:cuMemAlloc_v2), Cint, (Ref{UInt64}, Csize_t), address, max(bytes, 1)))
    return address[]
end

"Runs all work that was enqueued."
function synchronize()
    enter(CURRENT[])
    demand(ccall(driver(:cuCtxSynchronize), Cint, ()))
end

"A number that the stand-in keeps, such as \"synchronisations\"."
kept(name::String) = ccall(driver(:standin_get), Clonglong, (Cstring,), name)

# `memory` is the same memory, for tests; it is never freed.
mutable struct CuArray{T,N} <: DenseArray{T,N}
    memory::Array{T,N}
    device::Int
end
function CuArray{T}(::UndefInitializer, sizes::NTuple{N,Int}) where {T,N}
    address = allocate(CURRENT[], prod(sizes) * sizeof(T))
    return CuArray{T,N}(unsafe_wrap(Array, Ptr{T}(address), sizes), CURRENT[])
end
CuArray{T}(::UndefInitializer, sizes::Int...) where {T} = CuArray{T}(undef, sizes)
CuArray(values::Array{T}) where {T} = (array = CuArray{T}(undef, size(values)); copyto!(array.memory, values); array)

Base.size(array::CuArray) = size(array.memory)
Base.getindex(::CuArray, ::Int...) = error("scalar indexing is disallowed")
Base.similar(array::CuArray, ::Type{T}, sizes::Dims) where {T} = CuArray{T}(undef, sizes)
Base.Array(array::CuArray) = (synchronize(); copy(array.memory))
Base.fill!(array::CuArray, value) = (fill!(array.memory, value); array)
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
device() = CuDevice(CURRENT[])
device(array::CuArray) = CuDevice(array.device)
deviceid(device::CuDevice) = device.number
device!(number::Integer) = CURRENT[] = number
device!(device::CuDevice) = CURRENT[] = device.number

struct CuStream
    handle::Ptr{Cvoid}
end

"The task's stream on the current device, which waits for no other."
function stream()
    handle = get!(STREAMS, CURRENT[]) do
        enter(CURRENT[])
        made = Ref{Ptr{Cvoid}}(C_NULL)
        demand(ccall(driver(:cuStreamCreate), Cint, (Ref{Ptr{Cvoid}}, Cuint), made, 1))
        made[]
    end
    return CuStream(handle)
end

end
