# The element type of BFloat16s.jl. Where Julia has one of its own (1.11), that package uses it, and it is known already.
module OnlineLabelSmoothingBFloat16sExt

using BFloat16s: BFloat16
using OnlineLabelSmoothing: OnlineLabelSmoothing

@static if !(isdefined(Core, :BFloat16) && BFloat16 === Core.BFloat16)
    OnlineLabelSmoothing.dtype(::Type{BFloat16}) = OnlineLabelSmoothing.OLS_CODE_BFLOAT
end

end
