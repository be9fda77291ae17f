# The element type of BFloat16s.jl. If Julia has such a type itself (1.11), BFloat16s.jl uses that one, which is
# supported already.
module OnlineLabelSmoothingBFloat16sExt

using BFloat16s: BFloat16
using OnlineLabelSmoothing: OnlineLabelSmoothing

@static if !(isdefined(Core, :BFloat16) && BFloat16 === Core.BFloat16)
    OnlineLabelSmoothing.dtype(::Type{BFloat16}) = OnlineLabelSmoothing.OLS_CODE_BFLOAT
end

end
