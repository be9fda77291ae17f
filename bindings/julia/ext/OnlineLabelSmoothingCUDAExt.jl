# Arrays of CUDA.jl: device pointers and the task's stream are passed through, and nothing is synchronised but where a loss is returned as a number.
#
# The memory of a call's arrays may be freed while the call is still enqueued: CUDA.jl frees it in the order of the same stream.
module OnlineLabelSmoothingCUDAExt

using CUDA: CUDA, CuArray, CuPtr
using OnlineLabelSmoothing: OnlineLabelSmoothing, OLS_DEVICE_CUDA

OnlineLabelSmoothing.device(array::CuArray) = (OLS_DEVICE_CUDA, Int32(CUDA.deviceid(CUDA.device(array))))
OnlineLabelSmoothing.stream(::CuArray) = Ptr{Cvoid}(UInt(CUDA.stream().handle))
OnlineLabelSmoothing.address(array::CUDA.StridedCuArray{T}) where {T} = Ptr{Cvoid}(UInt(Base.unsafe_convert(CuPtr{T}, array)))

# One number of a call lies on the device as everything else does.
OnlineLabelSmoothing.scalar_input(::CuArray, value::Float64) = CuArray(fill(value))
OnlineLabelSmoothing.scalar_output(::CuArray, ::Type{T}) where {T} = CuArray{T}(undef)
OnlineLabelSmoothing.at_hand(::Nothing, value::CuArray) = only(Array(value))

# One-hot arrays are read on the host: labels are the fast way.
function OnlineLabelSmoothing.one_hot_labels(y::CUDA.StridedCuArray{T,N}, ŷ::AbstractArray, offset::Int) where {T,N}
    return CuArray(OnlineLabelSmoothing.one_hot_labels(Array(y), ŷ, offset))
end

function allocate_state(type, shape, device_id)
    before = CUDA.device()
    CUDA.device!(device_id)
    try
        return CuArray{type}(undef, shape)
    finally
        CUDA.device!(before)
    end
end

__init__() = OnlineLabelSmoothing.STATE_ALLOCATORS[OLS_DEVICE_CUDA] = allocate_state

end
