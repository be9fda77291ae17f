# A user-defined strided array: it implements only Base's strided array interface.
struct Strided{T,N} <: AbstractArray{T,N}
    block::Vector{T}
    offset::Int # zero-based, of the element whose indices are all 1
    sizes::NTuple{N,Int}
    steps::NTuple{N,Int}
end

Base.size(a::Strided) = a.sizes
Base.strides(a::Strided) = a.steps
Base.unsafe_convert(::Type{Ptr{T}}, a::Strided{T}) where {T} = pointer(a.block) + a.offset * sizeof(T)
place(a::Strided{T,N}, index::NTuple{N,Int}) where {T,N} = 1 + a.offset + sum((0, ((index .- 1) .* a.steps)...))
Base.getindex(a::Strided{T,N}, index::Vararg{Int,N}) where {T,N} = a.block[place(a, index)]
Base.setindex!(a::Strided{T,N}, value, index::Vararg{Int,N}) where {T,N} = a.block[place(a, index)] = value
