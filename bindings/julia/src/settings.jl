# The options of a criterion, and those that can be changed later.

# Calls `f` with the current options. Their views are valid during the call: neither a load nor a close in another
# thread comes in between.
function with_options(f, criterion::OnlineLabelSmoothingLoss)
    options = Ref(default_options()) # sets its struct_size
    return lock(criterion.loading) do
        handle = enter(criterion)
        try
            check(ccall(FUNCTIONS[].ols_get_options, Int32, (Ptr{Cvoid}, Ref{ols_options_t}), handle, options))
            return f(options[])
        finally
            leave(criterion)
        end
    end
end

copied(view::ols_tensor_t, ::Type{T}) where {T} = view.data == C_NULL ? nothing : copy(unsafe_wrap(Array, Ptr{T}(view.data), reverse(view.shape[1:view.ndim])))

"""
    OnlineLabelSmoothing.options(loss) -> NamedTuple

Return the current options, named like the keywords of [`OnlineLabelSmoothingLoss`](@ref): as set last, and those that a
load has replaced. `class_weights` and `initial_soft_labels` (one column per class) are copies, or `nothing`.
"""
function options(criterion::OnlineLabelSmoothingLoss)
    return with_options(criterion) do now
        (
            num_classes = Int(now.num_classes),
            alpha = now.alpha,
            smoothing = now.smoothing,
            momentum = now.momentum,
            freeze_above = now.freeze_above,
            min_count = now.min_count,
            ignore_index = now.ignore_index,
            initial = symbol_of(INITIALS, now.initial),
            empty_class = symbol_of(EMPTY_CLASSES, now.empty_class),
            reduction = symbol_of(REDUCTIONS, now.reduction),
            mode = symbol_of(MODES, now.mode),
            device = symbol_of(DEVICES, now.device_type),
            device_id = Int(now.device_id),
            n_threads = Int(now.n_threads),
            class_weights = copied(now.class_weights, Float64),
            initial_soft_labels = copied(now.initial_soft_labels, Float32),
            target_offset = criterion.target_offset,
        )
    end
end

function set_mode!(criterion::OnlineLabelSmoothingLoss, mode::Int32)
    call(handle -> ccall(FUNCTIONS[].ols_set_mode, Int32, (Ptr{Cvoid}, Int32), handle, mode), criterion)
    return criterion
end

"""
    OnlineLabelSmoothing.trainmode!(loss, is_training = true) -> loss

Switch to training mode, in which calls update the statistics. With Flux loaded, `Flux.trainmode!` and `Flux.testmode!`
do the same as the functions of this module, which are not exported in order not to conflict with Flux.
"""
trainmode!(criterion::OnlineLabelSmoothingLoss, is_training::Bool = true) = set_mode!(criterion, is_training ? OLS_MODE_TRAIN : OLS_MODE_EVAL)

"""
    OnlineLabelSmoothing.testmode!(loss, is_testing = true) -> loss

Switch to evaluation mode, in which calls change no state.
"""
testmode!(criterion::OnlineLabelSmoothingLoss, is_testing::Bool = true) = trainmode!(criterion, !is_testing)

"""
    OnlineLabelSmoothing.istraining(loss) -> Bool

Return whether the criterion is in training mode, in which calls update the statistics.
"""
function istraining(criterion::OnlineLabelSmoothingLoss)
    mode = Ref{Int32}()
    call(handle -> ccall(FUNCTIONS[].ols_mode, Int32, (Ptr{Cvoid}, Ref{Int32}), handle, mode), criterion)
    return mode[] == OLS_MODE_TRAIN
end

"""
    OnlineLabelSmoothing.set_alpha!(loss, alpha) -> loss

Set the weight of the hard label, in [0, 1], for example to follow a schedule. It takes effect with the next call.
"""
function set_alpha!(criterion::OnlineLabelSmoothingLoss, alpha::Real)
    call(handle -> ccall(FUNCTIONS[].ols_set_alpha, Int32, (Ptr{Cvoid}, Float64), handle, alpha), criterion)
    return criterion
end

"""
    OnlineLabelSmoothing.epoch(loss) -> Int

Return the number of completed epochs.
"""
function epoch(criterion::OnlineLabelSmoothingLoss)
    number = Ref{Int64}()
    call(handle -> ccall(FUNCTIONS[].ols_epoch, Int32, (Ptr{Cvoid}, Ref{Int64}), handle, number), criterion)
    return Int(number[])
end

"""
    OnlineLabelSmoothing.set_epoch!(loss, epoch) -> loss

Set the number of completed epochs, for callers that save and restore the memory of the state themselves.
"""
function set_epoch!(criterion::OnlineLabelSmoothingLoss, epoch::Integer)
    call(handle -> ccall(FUNCTIONS[].ols_set_epoch, Int32, (Ptr{Cvoid}, Int64), handle, epoch), criterion)
    return criterion
end

# ==== show ====

# The keywords that differ from the defaults, in the form in which they would be written.
function changed_options(criterion::OnlineLabelSmoothingLoss)
    now, usual = with_options(identity, criterion), default_options()
    words = String[]
    for (field, members) in ((:initial, INITIALS), (:empty_class, EMPTY_CLASSES), (:reduction, REDUCTIONS))
        getfield(now, field) == getfield(usual, field) || push!(words, "$field = $(repr(symbol_of(members, getfield(now, field))))")
    end
    for field in (:alpha, :smoothing, :momentum, :freeze_above, :min_count, :ignore_index)
        getfield(now, field) == getfield(usual, field) || push!(words, "$field = $(getfield(now, field))")
    end
    now.class_weights.data == C_NULL || push!(words, "class_weights = …")
    return words
end

function Base.show(io::IO, criterion::OnlineLabelSmoothingLoss)
    if !isopen(criterion)
        print(io, "OnlineLabelSmoothingLoss(", criterion.num_classes, ") (closed)")
        return nothing
    end
    print(io, "OnlineLabelSmoothingLoss(", criterion.num_classes)
    words = changed_options(criterion)
    isempty(words) || print(io, "; ", join(words, ", "))
    print(io, ")")
    return nothing
end

function Base.show(io::IO, ::MIME"text/plain", criterion::OnlineLabelSmoothingLoss)
    show(io, criterion)
    isopen(criterion) || return nothing
    now = report(criterion)
    number = epoch(criterion)
    counted = now.running_samples_accumulated
    print(io, "\n  ", istraining(criterion) ? "training" : "evaluation", " mode, ", number, number == 1 ? " epoch" : " epochs", " completed, ")
    print(io, counted, counted == 1 ? " sample" : " samples", " counted in the current epoch")
    now.running_samples_skipped == 0 || print(io, ", ", now.running_samples_skipped, " not finite")
    print(io, "\n  libols ", library().version)
    return nothing
end
