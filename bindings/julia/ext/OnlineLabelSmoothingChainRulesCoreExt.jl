# The reverse-mode rule for Zygote, Flux and all other packages that use ChainRulesCore.
module OnlineLabelSmoothingChainRulesCoreExt

using ChainRulesCore: ChainRulesCore, AbstractZero, NoTangent, ProjectTo, ZeroTangent, unthunk
using OnlineLabelSmoothing: OnlineLabelSmoothing, OnlineLabelSmoothingLoss

function ChainRulesCore.rrule(loss::OnlineLabelSmoothingLoss, ŷ::AbstractArray, y; keywords...)
    value, gradient = OnlineLabelSmoothing.loss_and_pullback(loss, ŷ, y; keywords...)
    project = ProjectTo(ŷ)
    function pullback(lazy)
        grad_loss = unthunk(lazy)
        grad_loss isa AbstractZero && return NoTangent(), ZeroTangent(), NoTangent()
        return NoTangent(), project(gradient(grad_loss)), NoTangent()
    end
    return value, pullback
end

end
