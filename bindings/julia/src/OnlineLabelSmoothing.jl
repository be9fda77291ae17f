"""
Online Label Smoothing, a classification loss that learns its own soft labels (Zhang et al., "Delving Deep into Label
Smoothing", IEEE Transactions on Image Processing 30, 2021), based on libols. [`OnlineLabelSmoothingLoss`](@ref) creates
a loss, `loss(ŷ, y)` computes it for a batch, and [`next_epoch!`](@ref) ends an epoch.
"""
module OnlineLabelSmoothing

import Libdl
import Serialization

export OnlineLabelSmoothingLoss, OLSError, loss_and_gradient, loss_and_gradient!, next_epoch!, report, soft_labels, statistics

include("header/constants.jl")
include("header/structs.jl")
include("library.jl")
include("errors.jl")
include("tensors.jl")
include("criterion.jl")
include("settings.jl")
include("batches.jl")
include("passes.jl")
include("epochs.jl")
include("state.jl")
include("differentiation.jl")

end
