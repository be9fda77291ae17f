# The calls on a batch.

# Runs `body`, which may only call C, and lets other threads collect garbage meanwhile: a pass can take milliseconds,
# for which they would all have to wait.
macro garbage_safe(body)
    quote
        before = ccall(:jl_gc_safe_enter, Int8, ())
        status = $(esc(body))
        ccall(:jl_gc_safe_leave, Cvoid, (Int8,), before)
        status
    end
end

# Evaluates `body`, which enters and leaves a criterion, and delivers Ctrl-C only after it: otherwise `@garbage_safe`
# would, and the criterion would be in use for ever. An exception ends this as well; so does Ctrl-C several times within
# a second, by which Julia lets nothing be deferred. (`disable_sigint` with its closure would allocate.)
macro uninterrupted(body)
    quote
        ccall(:jl_sigatomic_begin, Cvoid, ())
        $(esc(body))
        ccall(:jl_sigatomic_end, Cvoid, ())
    end
end

const TensorPointer = Ptr{ols_tensor_t}
@inline pointer_to(tensor::Base.RefValue{ols_tensor_t}, given) = given === nothing ? TensorPointer(C_NULL) : Base.unsafe_convert(TensorPointer, tensor)

@inline function finish(criterion::OnlineLabelSmoothingLoss, status::Int32)
    if status != OLS_STATUS_OK
        error = last_error(status)
        leave(criterion)
        throw(error)
    end
    leave(criterion)
    return nothing
end

# Calls ols_forward with outputs that are written in place; returns the loss if it is a Scalar. Everything that may
# throw comes before `enter`.
@inline function forward_pass(criterion::OnlineLabelSmoothingLoss, batch::Batch, value, grad)
    lam, grad_loss, place = place_of(batch.lam), place_of(batch.grad_loss), place_of(value)
    GC.@preserve criterion batch value grad lam grad_loss place begin
        given = Ref(in_header_form(batch, lam, grad_loss))
        value_tensor, grad_tensor = Ref(tensor(value, Val(1), place)), Ref(tensor(grad, Val(2)))
        GC.@preserve given value_tensor grad_tensor begin
            batch_pointer = Base.unsafe_convert(Ptr{ols_batch_t}, given)
            value_pointer, grad_pointer = pointer_to(value_tensor, value), pointer_to(grad_tensor, grad)
            forward = FUNCTIONS[].ols_forward
            @uninterrupted begin
                handle = enter(criterion)
                status = @garbage_safe ccall(
                    forward, Int32, (Ptr{Cvoid}, Ptr{ols_batch_t}, TensorPointer, TensorPointer), handle, batch_pointer, value_pointer, grad_pointer
                )
                finish(criterion, status)
            end
        end
    end
    return place === nothing ? nothing : place[]
end

@inline function backward_pass(criterion::OnlineLabelSmoothingLoss, batch::Batch, grad)
    lam, grad_loss = place_of(batch.lam), place_of(batch.grad_loss)
    GC.@preserve criterion batch grad lam grad_loss begin
        given, grad_tensor = Ref(in_header_form(batch, lam, grad_loss)), Ref(tensor(grad, Val(2)))
        GC.@preserve given grad_tensor begin
            batch_pointer = Base.unsafe_convert(Ptr{ols_batch_t}, given)
            grad_pointer = Base.unsafe_convert(TensorPointer, grad_tensor)
            backward = FUNCTIONS[].ols_backward
            @uninterrupted begin
                handle = enter(criterion)
                status = @garbage_safe ccall(
                    backward, Int32, (Ptr{Cvoid}, Ptr{ols_batch_t}, TensorPointer, TensorPointer), handle, batch_pointer, TensorPointer(C_NULL), grad_pointer
                )
                finish(criterion, status)
            end
        end
    end
    return nothing
end

# An output that the library cannot write in place is replaced by a dense copy, from which it is copied back after the
# call has succeeded.
@inline function writable(output::AbstractArray, kept::Val, name::String)
    has_memory(output) || throw(ArgumentError("$name is a $(typeof(output)), which is not a strided array and cannot be written in place"))
    return readable(output, kept, name)
end
@inline writable(output::DenseArray, ::Val, name::String) = (check_elements(output, name); output)
@inline writable(output::Union{Nothing,Scalar,Base.RefValue{Float32},Base.RefValue{Float64}}, ::Val, ::String) = output
writable(output, ::Val, name::String) = throw(ArgumentError("$name is a $(typeof(output)), but an array is needed (or, for value, a Ref of Float32 or Float64)"))

# The array to which the gradient is written. If the logits are copied and the gradient is to replace them, it replaces
# the copy.
@inline function gradient_of(batch::Batch, grad, ŷ::AbstractArray)
    grad === ŷ || return writable(grad, Val(2), "grad")
    writable(ŷ, Val(2), "ŷ")
    return batch.logits
end

@inline put_back!(output, written) = output === written ? nothing : copyto!(output, written)

@inline function check_output(output::AbstractArray, expected::Tuple, name::String)
    ndims(output) <= 2 || size(output) == expected || throw(DimensionMismatch("$name has size $(size(output)), but $expected is needed"))
    return nothing
end
@inline check_output(::Any, ::Tuple, ::String) = nothing

# The loss as a number; it is available already, or in device memory.
@inline at_hand(result, ::Scalar) = result
at_hand(::Nothing, value::AbstractArray) = value[]

loss_type(::AbstractArray) = Float32
loss_type(::AbstractArray{Float64}) = Float64

"""
    OnlineLabelSmoothing.forward!(loss, ŷ, y; value = nothing, grad = nothing, keywords...)

Compute loss and gradient in one pass over the logits, with preallocated outputs: `value` (a `Ref` or an array of
`Float32`, or `Float64` for `Float64` logits; with `reduction = :none` of the size of the labels) and `grad` (of the
size and element type of `ŷ`; it may be `ŷ` itself, which is then overwritten by the gradient). If both are `nothing`,
only the statistics are updated. Return nothing. Keywords and errors are as for `loss(ŷ, y)`.
"""
@inline function forward!(criterion::OnlineLabelSmoothingLoss, ŷ::AbstractArray, y; value = nothing, grad = nothing, keywords...)
    batch = Batch(criterion, ŷ, y; keywords...)
    check_output(grad, size(ŷ), "grad")
    check_output(value, label_size(ŷ), "value")
    gradient = gradient_of(batch, grad, ŷ)
    values = writable(value, Val(1), "value")
    result = forward_pass(criterion, batch, values, gradient)
    put_back!(grad, gradient)
    put_back!(value, values)
    return result
end

"""
    (loss::OnlineLabelSmoothingLoss)(ŷ, y; keywords...)

Return the loss of a batch and, in training mode, update the statistics.

- `ŷ`: logits of size `(K, N)` or `(d..., K, N)`, as in Flux, of type `Float32`, `Float64`, `Float16` or
  [`OnlineLabelSmoothing.BFloat16`](@ref). Arrays and strided views are read in place. Other arrays (for example a
  view of an adjoint) are copied, with a one-time warning.
- `y`: labels of size `(N,)` or `(d..., N)`, of type `Int64`, `Int32` or `UInt8` and one-based (see `target_offset`); or
  a one-hot array of the size of `ŷ`, which is converted to labels first. The ignore index is compared with the labels
  as given.

The result is a `Float32` (`Float64` for `Float64` logits) or, with `reduction = :none`, an array of the size of the
labels.

# Keywords
- `sample_weights`: v, of the size of the labels, `Float32` or `Float64`, finite and >= 0. A sample of weight 0 is
  ignored.
- `targets2`, `lam`: for Mixup and CutMix: second labels, like `y`, and the weight of the first ones, in [0, 1], a
  number or an array of the size of the labels.
- `grad_loss`: the upstream gradient, a number or, with `reduction = :none`, an array of the size of the labels; for
  calls that write a gradient.
- `update`: `:add`, `:none` (leave the statistics unchanged, for a second pass over a batch) or `:take_back` (subtract a
  batch that was added earlier).
- `target_offset`: the label of the first class, if it differs from that of the criterion.

Throws an [`OLSError`](@ref) for errors that the library detects (labels out of range, sizes, element types, values), a
`DimensionMismatch` or `ArgumentError` for those that only Julia can detect, and an `InvalidStateException` after
`close`.
"""
@inline function (criterion::OnlineLabelSmoothingLoss{:none})(ŷ::AbstractArray, y; keywords...)
    value = dense_like(ŷ, loss_type(ŷ), label_size(ŷ))
    forward!(criterion, ŷ, y; value = value, keywords...)
    return value
end
@inline function (criterion::OnlineLabelSmoothingLoss)(ŷ::AbstractArray, y; keywords...)
    value = scalar_output(ŷ, loss_type(ŷ))
    return at_hand(forward!(criterion, ŷ, y; value = value, keywords...), value)
end

"""
    loss_and_gradient!(grad, loss, ŷ, y; keywords...) -> value

Return the loss of a batch, as `loss(ŷ, y)` does, and write its gradient with respect to `ŷ` to `grad`, in one pass over
the logits. `grad` has the size and element type of `ŷ`, and may be `ŷ` itself. Keywords and errors are as for
`loss(ŷ, y)`; after an error `grad` is unchanged.
"""
@inline function loss_and_gradient!(grad::AbstractArray, criterion::OnlineLabelSmoothingLoss{:none}, ŷ::AbstractArray, y; keywords...)
    value = dense_like(ŷ, loss_type(ŷ), label_size(ŷ))
    forward!(criterion, ŷ, y; value = value, grad = grad, keywords...)
    return value
end
@inline function loss_and_gradient!(grad::AbstractArray, criterion::OnlineLabelSmoothingLoss, ŷ::AbstractArray, y; keywords...)
    value = scalar_output(ŷ, loss_type(ŷ))
    return at_hand(forward!(criterion, ŷ, y; value = value, grad = grad, keywords...), value)
end

"""
    loss_and_gradient(loss, ŷ, y; keywords...) -> (value, grad)

Like [`loss_and_gradient!`](@ref), but return the gradient in a new array.
"""
function loss_and_gradient(criterion::OnlineLabelSmoothingLoss, ŷ::AbstractArray, y; keywords...)
    grad = dense_like(ŷ, eltype(ŷ), size(ŷ))
    return loss_and_gradient!(grad, criterion, ŷ, y; keywords...), grad
end

"""
    OnlineLabelSmoothing.backward!(grad, loss, ŷ, y; keywords...) -> grad

Compute only the gradient of a batch, from its logits; it is bitwise identical to that of [`loss_and_gradient!`](@ref).
No state is changed. `grad_loss` is the upstream gradient; a loss scale belongs there, because it is applied before a
16-bit gradient is rounded. Call it before [`next_epoch!`](@ref), which changes the soft labels.
"""
@inline function backward!(grad::AbstractArray, criterion::OnlineLabelSmoothingLoss, ŷ::AbstractArray, y; keywords...)
    batch = Batch(criterion, ŷ, y; update = :none, keywords...)
    check_output(grad, size(ŷ), "grad")
    gradient = gradient_of(batch, grad, ŷ)
    backward_pass(criterion, batch, gradient)
    put_back!(grad, gradient)
    return grad
end

"""
    OnlineLabelSmoothing.accumulate_probabilities!(loss, p, y; keywords...) -> loss

Update the statistics from probabilities `p` that have been computed already. They have the size of logits, with entries
in [0, 1]; a sample is classified correctly if its largest probability is that of its label. The mode and the keywords
`sample_weights`, `targets2`, `lam`, `target_offset` and `update` have the same effect as in `loss(ŷ, y)`.
"""
function accumulate_probabilities!(criterion::OnlineLabelSmoothingLoss, p::AbstractArray, y; keywords...)
    batch = Batch(criterion, p, y; keywords...)
    scalars = (place_of(batch.lam), place_of(batch.grad_loss))
    GC.@preserve batch scalars begin
        given = Ref(in_header_form(batch, scalars...))
        call(criterion) do handle
            ccall(FUNCTIONS[].ols_accumulate, Int32, (Ptr{Cvoid}, Ref{ols_batch_t}), handle, given)
        end
    end
    return criterion
end
