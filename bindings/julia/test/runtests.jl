# The test suite of OnlineLabelSmoothing.jl, which needs only the standard library. The names of test sets refer to the rules in bindings/RULES.md.
#
# It requires libols and its header in one installed tree (OLS_LIBRARY names the library), a C compiler and two threads; test/run provides them.
using OnlineLabelSmoothing
using LinearAlgebra, Logging, Random, Serialization, Test

const O = OnlineLabelSmoothing
const REPOSITORY = normpath(joinpath(@__DIR__, "..", "..", ".."))

include("support/c.jl")
include("support/errors.jl")
include("support/json.jl")
include("support/processes.jl")
include("support/strided.jl")

@testset "OnlineLabelSmoothing.jl" begin
    for file in ["header", "library", "errors", "handles", "tensors", "meaning", "state", "differentiation", "allocations", "extensions", "documentation", "installed", "examples", "conformance"]
        @testset "$file" begin
            seconds = @elapsed include(file * ".jl")
            println(rpad(file, 16), round(seconds; digits = 1), " s")
        end
    end
end
