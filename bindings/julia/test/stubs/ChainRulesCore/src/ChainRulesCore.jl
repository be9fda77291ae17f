# The part of ChainRulesCore.jl that the extension uses.
module ChainRulesCore

export NoTangent, ZeroTangent

abstract type AbstractZero end
struct NoTangent <: AbstractZero end
struct ZeroTangent <: AbstractZero end

struct Thunk{F}
    f::F
end
unthunk(thunk::Thunk) = thunk.f()
unthunk(value) = value

struct ProjectTo{T,S}
    sizes::S
end
ProjectTo(array::AbstractArray) = ProjectTo{eltype(array),typeof(size(array))}(size(array))
(project::ProjectTo{T})(tangent::AbstractArray) where {T} = reshape(convert(AbstractArray{T}, tangent), project.sizes)

function rrule end

end
