# Saved state, in the file format that all languages share.

"""
    OnlineLabelSmoothing.save(path, loss)

Save the state (soft labels, statistics, epoch) and the options that affect the results to a file in the safetensors
format, which libols can load in any language. Saving is atomic: at any moment, `path` names either the old file or the
complete new one.
"""
save(path::AbstractString, criterion::OnlineLabelSmoothingLoss) = call_on_file(FUNCTIONS[].ols_save, path, criterion)

function call_on_file(save_or_load::Ptr{Cvoid}, path::AbstractString, criterion::OnlineLabelSmoothingLoss)
    name = Base.cconvert(Cstring, path)
    on = stream_of_state(criterion)
    GC.@preserve name begin
        text = Base.unsafe_convert(Cstring, name)
        call(handle -> ccall(save_or_load, Int32, (Ptr{Cvoid}, Cstring, Ptr{Cvoid}), handle, text, on), criterion)
    end
    return nothing
end

"""
    OnlineLabelSmoothing.load!(loss, path) -> loss
    OnlineLabelSmoothing.load!(loss, bytes::Vector{UInt8}) -> loss

Restore the state, the epoch, and the options that affect the results from what [`OnlineLabelSmoothing.save`](@ref) or
[`OnlineLabelSmoothing.saved`](@ref) has written, here or in another language. Mode, reduction, device, number of
threads and `target_offset` are not changed. A criterion that is saved and loaded continues bitwise identically to one
that was never interrupted. After an error (a missing or corrupted file, a different number of classes) the criterion is
unchanged.
"""
function load!(criterion::OnlineLabelSmoothingLoss, path::AbstractString)
    lock(() -> call_on_file(FUNCTIONS[].ols_load, path, criterion), criterion.loading)
    return criterion
end

function load!(criterion::OnlineLabelSmoothingLoss, bytes::DenseVector{UInt8})
    on = stream_of_state(criterion)
    GC.@preserve bytes begin
        lock(criterion.loading) do
            call(criterion) do handle
                ccall(FUNCTIONS[].ols_load_memory, Int32, (Ptr{Cvoid}, Ptr{UInt8}, Csize_t, Ptr{Cvoid}), handle, pointer(bytes), length(bytes), on)
            end
        end
    end
    return criterion
end

"""
    OnlineLabelSmoothing.load(path, num_classes; keywords...) -> loss

Create a criterion (an [`OnlineLabelSmoothingLoss`](@ref) with these keywords) that continues from a saved state.
"""
function load(path::AbstractString, num_classes::Integer; keywords...)
    criterion = OnlineLabelSmoothingLoss(num_classes; keywords...)
    try
        return load!(criterion, path)
    catch
        close(criterion)
        rethrow()
    end
end

"""
    OnlineLabelSmoothing.saved(loss) -> Vector{UInt8}

Return the contents of the file that [`OnlineLabelSmoothing.save`](@ref) would write, for checkpoints that contain more
than the criterion.
"""
function saved(criterion::OnlineLabelSmoothingLoss)
    on = stream_of_state(criterion)
    length_of_bytes = Ref{Csize_t}(0)
    write_to(handle, buffer, capacity) =
        ccall(FUNCTIONS[].ols_save_memory, Int32, (Ptr{Cvoid}, Ptr{UInt8}, Csize_t, Ptr{Cvoid}, Ref{Csize_t}), handle, buffer, capacity, on, length_of_bytes)
    # The tensors have the same sizes in both calls, because no load comes in between. Another call may, and make a number
    # in the header longer.
    return lock(criterion.loading) do
        call(handle -> write_to(handle, C_NULL, 0), criterion)
        bytes = Vector{UInt8}(undef, length_of_bytes[] + 4096)
        GC.@preserve bytes call(handle -> write_to(handle, pointer(bytes), length(bytes)), criterion)
        resize!(bytes, length_of_bytes[])
    end
end

# ==== Copies ====

# The options that are not part of the saved state.
kept_options(criterion::OnlineLabelSmoothingLoss) = with_options(now -> (now.reduction, now.mode, now.device_type, now.device_id, now.n_threads), criterion)

function restored(num_classes::Integer, target_offset::Integer, (reduction, mode, device_type, device_id, n_threads), bytes::Vector{UInt8})
    criterion = OnlineLabelSmoothingLoss(
        num_classes;
        reduction = symbol_of(REDUCTIONS, reduction),
        mode = symbol_of(MODES, mode),
        device = symbol_of(DEVICES, device_type),
        device_id = device_id,
        n_threads = n_threads,
        target_offset = target_offset,
    )
    return load!(criterion, bytes)
end

Base.copy(criterion::OnlineLabelSmoothingLoss) = restored(criterion.num_classes, criterion.target_offset, kept_options(criterion), saved(criterion))

function Base.deepcopy_internal(criterion::OnlineLabelSmoothingLoss, copies::IdDict)
    return get!(() -> copy(criterion), copies, criterion)
end

function Serialization.serialize(s::Serialization.AbstractSerializer, criterion::OnlineLabelSmoothingLoss)
    # One object that is referred to twice stays one object.
    Serialization.serialize_cycle_header(s, criterion) && return nothing
    for part in (criterion.num_classes, criterion.target_offset, kept_options(criterion), saved(criterion))
        Serialization.serialize(s, part)
    end
    return nothing
end

function Serialization.deserialize(s::Serialization.AbstractSerializer, ::Type{<:OnlineLabelSmoothingLoss})
    criterion = restored((Serialization.deserialize(s) for _ in 1:4)...)
    Serialization.deserialize_cycle(s, criterion)
    return criterion
end
