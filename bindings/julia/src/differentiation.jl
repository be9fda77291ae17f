# Reverse-mode differentiation without any package of it: the extension for ChainRulesCore wraps this.

"""
    OnlineLabelSmoothing.loss_and_pullback(loss, ŷ, y; keywords...) -> (value, pullback)

The loss, as `loss(ŷ, y; keywords...)`, and a function from the gradient by the loss (a number; with `reduction = :none` an array of the size of the labels) to the gradient by `ŷ`.
The gradient is the library's: one for the usual gradient of 1 comes from the same pass as the loss, and another one is multiplied in by the library
before a 16-bit gradient is rounded. Calling the pullback again is right, and costs another pass; it leaves the statistics alone. `ŷ`, `y` and the
soft labels must not have changed by then.
"""
function loss_and_pullback(criterion::OnlineLabelSmoothingLoss, ŷ::AbstractArray, y; keywords...)
    value, first_gradient = loss_and_gradient(criterion, ŷ, y; keywords...)
    unused = Ref{Any}(first_gradient)
    pass = without_update(keywords)
    function pullback(grad_loss)
        gradient = unused[]
        if gradient !== nothing && isone_everywhere(grad_loss)
            unused[] = nothing # it is the caller's now, who may write to it
            return gradient::typeof(first_gradient)
        end
        return backward!(similar(first_gradient), criterion, ŷ, y; pass..., grad_loss = times(get(pass, :grad_loss, nothing), grad_loss_like(value, grad_loss)))
    end
    return value, pullback
end

# The second pass over a batch does not count it again, nor take it back again.
without_update(keywords) = (; (name => value for (name, value) in pairs(keywords) if name !== :update)...)

# A gradient that the call was given, as a loss scale, stays in.
times(::Nothing, grad_loss) = grad_loss
times(given, grad_loss) = given .* grad_loss

isone_everywhere(grad_loss::Number) = isone(grad_loss)
isone_everywhere(grad_loss) = false

# Of a type that the library reads: automatic differentiation may come with lazy arrays.
grad_loss_like(::Number, grad_loss::Number) = grad_loss
grad_loss_like(value::AbstractArray, grad_loss::Number) = fill!(similar(value), grad_loss)
function grad_loss_like(value::AbstractArray, grad_loss::AbstractArray)
    eltype(grad_loss) <: Union{Float32,Float64} && is_readable(grad_loss, Val(1)) && return grad_loss
    return copyto!(similar(value, size(grad_loss)), grad_loss)
end
