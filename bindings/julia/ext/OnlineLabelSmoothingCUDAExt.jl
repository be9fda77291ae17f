# Arrays of CUDA.jl: device pointers and the stream of the task are passed to the library. There is no synchronisation,
# except to return a loss as a number.
#
# The arrays of a call may be freed while the call is still enqueued, because CUDA.jl frees memory in the order of the
# same stream.
module OnlineLabelSmoothingCUDAExt

using CUDA: CUDA, CuArray, CuPtr
using OnlineLabelSmoothing: OnlineLabelSmoothing, OLS_DEVICE_CUDA

OnlineLabelSmoothing.device(array::CuArray) = (OLS_DEVICE_CUDA, Int32(CUDA.deviceid(CUDA.device(array))))
OnlineLabelSmoothing.stream(::CuArray) = Ptr{Cvoid}(UInt(CUDA.stream().handle))
OnlineLabelSmoothing.address(array::CUDA.StridedCuArray{T}) where {T} = Ptr{Cvoid}(UInt(Base.unsafe_convert(CuPtr{T}, array)))

# Single numbers of a call are on the device, like its arrays, which may be views of a CuArray.
OnlineLabelSmoothing.scalar_input(::CUDA.StridedCuArray, value::Float64) = CuArray(fill(value))
OnlineLabelSmoothing.scalar_output(::CUDA.StridedCuArray, ::Type{T}) where {T} = CuArray{T}(undef)
OnlineLabelSmoothing.at_hand(::Nothing, value::CuArray) = only(Array(value))

# One-hot arrays are converted on the host; labels are faster.
function OnlineLabelSmoothing.one_hot_labels(y::CUDA.StridedCuArray{T,N}, ŷ::AbstractArray, offset::Int, name::String) where {T,N}
    return CuArray(OnlineLabelSmoothing.one_hot_labels(Array(y), ŷ, offset, name))
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
