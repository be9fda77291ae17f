# The calls that work on a batch.

# Runs `body`, which may only call C, while other threads may collect garbage: a pass can take milliseconds, and they would all wait for it.
macro garbage_safe(body)
    quote
        before = ccall(:jl_gc_safe_enter, Int8, ())
        status = $(esc(body))
        ccall(:jl_gc_safe_leave, Cvoid, (Int8,), before)
        status
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

# ols_forward with outputs that are written in place; returns the loss where it is a Scalar. Everything that may throw comes before `enter`.
@inline function forward_pass(criterion::OnlineLabelSmoothingLoss, batch::Batch, value, grad)
    lam, grad_loss, place = place_of(batch.lam), place_of(batch.grad_loss), place_of(value)
    GC.@preserve criterion batch value grad lam grad_loss place begin
        given = Ref(in_header_form(batch, lam, grad_loss))
        value_tensor, grad_tensor = Ref(tensor(value, Val(1), place)), Ref(tensor(grad, Val(2)))
        GC.@preserve given value_tensor grad_tensor begin
            batch_pointer = Base.unsafe_convert(Ptr{ols_batch_t}, given)
            value_pointer, grad_pointer = pointer_to(value_tensor, value), pointer_to(grad_tensor, grad)
            forward = FUNCTIONS[].ols_forward
            handle = enter(criterion)
            status = @garbage_safe ccall(
                forward, Int32, (Ptr{Cvoid}, Ptr{ols_batch_t}, TensorPointer, TensorPointer), handle, batch_pointer, value_pointer, grad_pointer
            )
            finish(criterion, status)
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
            handle = enter(criterion)
            status = @garbage_safe ccall(
                backward, Int32, (Ptr{Cvoid}, Ptr{ols_batch_t}, TensorPointer, TensorPointer), handle, batch_pointer, TensorPointer(C_NULL), grad_pointer
            )
            finish(criterion, status)
        end
    end
    return nothing
end

# Outputs that the library cannot write as they lie are written to a dense copy, and from there, once the call has succeeded.
@inline function writable(output::AbstractArray, kept::Val, name::String)
    has_memory(output) || throw(ArgumentError("$name is a $(typeof(output)), which has no memory to write to"))
    return readable(output, kept, name)
end
@inline writable(output, ::Val, ::String) = output
@inline writable(output::DenseArray, ::Val, ::String) = output

# Where the gradient is written. A copy of the logits takes their place as the output too.
@inline function gradient_of(batch::Batch, grad, ŷ::AbstractArray)
    grad === ŷ || return writable(grad, Val(2), "grad")
    writable(ŷ, Val(2), "ŷ")
    return batch.logits
end

@inline put_back!(output, written) = output === written ? nothing : copyto!(output, written)

@inline function check_output(output::AbstractArray, expected::Tuple, name::String)
    ndims(output) <= 2 || size(output) == expected || throw(DimensionMismatch("$name has the size $(size(output)), but $expected is needed"))
    return nothing
end
@inline check_output(::Any, ::Tuple, ::String) = nothing

# The loss of a call: it is here already, or in a device's memory.
@inline at_hand(result, ::Scalar) = result
at_hand(::Nothing, value::AbstractArray) = value[]

loss_type(::AbstractArray) = Float32
loss_type(::AbstractArray{Float64}) = Float64

"""
    OnlineLabelSmoothing.forward!(loss, ŷ, y; value = nothing, grad = nothing, keywords...)

One pass over the logits, with outputs of your own: `value` (a `Ref` or an array of `Float32`, or `Float64` for `Float64` logits; with `reduction = :none` of
the size of the labels) and `grad` (size and element type of `ŷ`; it may be `ŷ` itself, which then holds the gradient). Both `nothing`: statistics
alone. Returns nothing. Keywords and errors as for `loss(ŷ, y)`.
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

The loss of a batch, and in training mode its statistics.

- `ŷ`: logits of size `(K, N)` or `(d..., K, N)`, as Flux has them; `Float32`, `Float64`, `Float16` or [`OnlineLabelSmoothing.BFloat16`](@ref). Arrays and strided views
  are read where they lie. What has no memory of that kind (an adjoint of a view, say) is copied, with a warning once.
- `y`: labels of size `(N,)` or `(d..., N)`, `Int64`, `Int32` or `UInt8`, counting from 1 (see `target_offset`); or a one-hot array of the size of `ŷ`,
  which is turned into labels first. The ignore index is compared with the labels as they are given.

Returns a `Float32` (`Float64` for `Float64` logits), or with `reduction = :none` an array of them of the size of the labels.

# Keywords
- `sample_weights`: v, of the size of the labels, `Float32` or `Float64`, finite and >= 0. A sample that weighs 0 takes no part.
- `targets2`, `lam`: second labels, as `y`, and the weight of the first ones in [0, 1], a number or an array of the size of the labels: Mixup and CutMix.
- `grad_loss`: gradient of the whole by the loss, a number or, with `reduction = :none`, an array of the size of the labels; for calls that write a gradient.
- `update`: `:add`, `:none` (leave the statistics as they are: for a second pass over a batch), `:take_back` (take a batch back that was added before).
- `target_offset`: the label of the first class, if it is not that of the criterion.

Throws an [`OLSError`](@ref) for what the library refuses (labels out of range, sizes, element types, values), a `DimensionMismatch` or `ArgumentError` for what Julia alone can
see, an `InvalidStateException` after `close`.
"""
@inline function (criterion::OnlineLabelSmoothingLoss{:none})(ŷ::AbstractArray, y; keywords...)
    value = similar(ŷ, loss_type(ŷ), label_size(ŷ))
    forward!(criterion, ŷ, y; value = value, keywords...)
    return value
end
@inline function (criterion::OnlineLabelSmoothingLoss)(ŷ::AbstractArray, y; keywords...)
    value = scalar_output(ŷ, loss_type(ŷ))
    return at_hand(forward!(criterion, ŷ, y; value = value, keywords...), value)
end

"""
    loss_and_gradient!(grad, loss, ŷ, y; keywords...) -> value

The loss of a batch, as `loss(ŷ, y)`, and its gradient with respect to `ŷ`, from one pass over the logits. `grad` has the size and the element type of `ŷ`, and
may be `ŷ` itself. Keywords and errors as for `loss(ŷ, y)`; after an error `grad` is as before.
"""
@inline function loss_and_gradient!(grad::AbstractArray, criterion::OnlineLabelSmoothingLoss{:none}, ŷ::AbstractArray, y; keywords...)
    value = similar(ŷ, loss_type(ŷ), label_size(ŷ))
    forward!(criterion, ŷ, y; value = value, grad = grad, keywords...)
    return value
end
@inline function loss_and_gradient!(grad::AbstractArray, criterion::OnlineLabelSmoothingLoss, ŷ::AbstractArray, y; keywords...)
    value = scalar_output(ŷ, loss_type(ŷ))
    return at_hand(forward!(criterion, ŷ, y; value = value, grad = grad, keywords...), value)
end

"""
    loss_and_gradient(loss, ŷ, y; keywords...) -> (value, grad)

As [`loss_and_gradient!`](@ref), with a new array for the gradient.
"""
function loss_and_gradient(criterion::OnlineLabelSmoothingLoss, ŷ::AbstractArray, y; keywords...)
    grad = similar(ŷ, size(ŷ))
    return loss_and_gradient!(grad, criterion, ŷ, y; keywords...), grad
end

"""
    OnlineLabelSmoothing.backward!(grad, loss, ŷ, y; keywords...) -> grad

The gradient of a batch alone, computed anew from its logits, bit for bit that of [`loss_and_gradient!`](@ref). No state is touched. `grad_loss` is multiplied in before a 16-bit
gradient is rounded: a loss scale belongs there. Not across [`next_epoch!`](@ref), which changes the soft labels.
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

Adds to the statistics from given probabilities `p`, of the size that logits have, with entries in [0, 1]: a sample counts when the largest of them is that
of its label. Obeys the mode and the keywords `sample_weights`, `targets2`, `lam`, `target_offset` and `update` as `loss(ŷ, y)` does.
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
