# The two functions of Flux.jl that the extension adds methods to.
module Flux

trainmode!(model, mode = true) = model
testmode!(model, mode = true) = model

end
