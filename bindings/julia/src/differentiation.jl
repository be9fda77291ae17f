# Reverse-mode differentiation without any dependency; the extension for ChainRulesCore is based on it.

"""
    OnlineLabelSmoothing.loss_and_pullback(loss, ŷ, y; keywords...) -> (value, pullback)

Return the loss, as `loss(ŷ, y; keywords...)` does, and a function that maps the upstream gradient (a number; with
`reduction = :none` an array of the size of the labels) to the gradient with respect to `ŷ`. For the usual upstream
gradient of 1, the gradient comes from the same pass as the loss; any other one is applied by the library, before a
16-bit gradient is rounded. The pullback may be called again, which costs another pass and does not change the
statistics. `ŷ`, `y` and the soft labels must not have changed by then.
"""
function loss_and_pullback(criterion::OnlineLabelSmoothingLoss, ŷ::AbstractArray, y; keywords...)
    value, first_gradient = loss_and_gradient(criterion, ŷ, y; keywords...)
    unused = Ref{Any}(first_gradient)
    pass = without_update(keywords)
    function pullback(grad_loss)
        gradient = unused[]
        if gradient !== nothing && isone_everywhere(grad_loss)
            unused[] = nothing # it now belongs to the caller, who may modify it
            return gradient::typeof(first_gradient)
        end
        return backward!(similar(first_gradient), criterion, ŷ, y; pass..., grad_loss = times(get(pass, :grad_loss, nothing), grad_loss_like(value, grad_loss)))
    end
    return value, pullback
end

# A second pass over a batch must not count it or take it back again.
without_update(keywords) = (; (name => value for (name, value) in pairs(keywords) if name !== :update)...)

# An upstream gradient given to the call, such as a loss scale, still applies.
times(::Nothing, grad_loss) = grad_loss
times(given, grad_loss) = given .* grad_loss

isone_everywhere(grad_loss::Number) = isone(grad_loss)
isone_everywhere(grad_loss) = false

# Of a type that the library can read: automatic differentiation may use lazy arrays.
grad_loss_like(::Number, grad_loss::Number) = grad_loss
grad_loss_like(value::AbstractArray, grad_loss::Number) = fill!(similar(value), grad_loss)
function grad_loss_like(value::AbstractArray, grad_loss::AbstractArray)
    eltype(grad_loss) <: Union{Float32,Float64} && is_readable(grad_loss, Val(1)) && return grad_loss
    return copyto!(similar(value, size(grad_loss)), grad_loss)
end
