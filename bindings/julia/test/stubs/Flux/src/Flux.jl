# The functions of Flux.jl that the extension adds methods to.
module Flux

# As Functors 0.5 does by default.
module Functors
functor(T, x) = NamedTuple{fieldnames(T)}(ntuple(i -> getfield(x, i), fieldcount(T))), fields -> T.name.wrapper(fields...)
end

trainmode!(model, mode = true) = model
testmode!(model, mode = true) = model

end
