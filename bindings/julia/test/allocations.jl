# Allocations of optimised code, in a separate process: the suite itself may run with less optimisation, because most of
# its time is compilation.
@testset "no allocation per call" begin
    found = julia("include($(repr(joinpath(@__DIR__, "optimised.jl"))))"; options = `-O2`)
    found.succeeded || println(found.output)
    @test found.succeeded && occursin(r"no allocation per call \| +28 +28\n", found.output)
end
