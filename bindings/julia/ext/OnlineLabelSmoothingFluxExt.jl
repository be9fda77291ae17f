# Flux's functions for the mode, and for a model that contains a criterion.
module OnlineLabelSmoothingFluxExt

using Flux: Flux
using OnlineLabelSmoothing: OnlineLabelSmoothing, OnlineLabelSmoothingLoss

Flux.trainmode!(loss::OnlineLabelSmoothingLoss, is_training::Bool = true) = OnlineLabelSmoothing.trainmode!(loss, is_training)
Flux.testmode!(loss::OnlineLabelSmoothingLoss, is_testing::Bool = true) = OnlineLabelSmoothing.testmode!(loss, is_testing)

# A leaf: since Flux 0.15 (Functors 0.5) every other struct is taken apart and built again from its fields, which include
# the handle, and its arrays of Float32 count as parameters.
Flux.Functors.functor(::Type{<:OnlineLabelSmoothingLoss}, loss) = (), _ -> loss

end
