# Flux's functions for the mode.
module OnlineLabelSmoothingFluxExt

using Flux: Flux
using OnlineLabelSmoothing: OnlineLabelSmoothing, OnlineLabelSmoothingLoss

Flux.trainmode!(loss::OnlineLabelSmoothingLoss, is_training::Bool = true) = OnlineLabelSmoothing.trainmode!(loss, is_training)
Flux.testmode!(loss::OnlineLabelSmoothingLoss, is_testing::Bool = true) = OnlineLabelSmoothing.testmode!(loss, is_testing)

end
