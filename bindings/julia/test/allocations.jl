# What optimised code must not do. The suite itself may run with less optimisation, as most of its time goes into compilation.
@testset "no allocation per call" begin
    found = julia("include($(repr(joinpath(@__DIR__, "optimised.jl"))))"; options = `-O2`)
    found.succeeded || println(found.output)
    @test found.succeeded && occursin(r"no allocation per call \| +28 +28\n", found.output)
end
