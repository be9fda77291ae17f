# The package extensions. Their packages cannot be had everywhere, so their code runs here over small stand-ins of the same names (test/stubs).

const EXTENSIONS = joinpath(PACKAGE, "ext")
const STUBS = joinpath(@__DIR__, "stubs")

# A program with the stand-ins on the load path, one extension included.
function with_extension(name, program)
    separator = Sys.iswindows() ? ";" : ":"
    environment = Dict("JULIA_LOAD_PATH" => join(["@", "@stdlib", STUBS], separator))
    return julia(
        """
        using OnlineLabelSmoothing, Test
        const O = OnlineLabelSmoothing
        include($(repr(joinpath(EXTENSIONS, name * ".jl"))))
        using .$name
        $program
        print("passed")
        """;
        environment = environment,
    )
end

passes(result) = endswith(result.output, "passed") && result.succeeded || (println(result.output); false)

@testset "every extension is declared and parses" begin
    project = read(joinpath(PACKAGE, "Project.toml"), String)
    section(name) = match(Regex("\\[$name\\]\n((?:\\w.*\n)*)"), project)[1]
    declared = Dict(m[1] => m[2] for m in eachmatch(r"^(\w+) = \"(\w+)\"$"m, section("extensions")))
    @test sort(collect(keys(declared)) .* ".jl") == sort(readdir(EXTENSIONS))
    for (name, package) in declared
        @test occursin("\n$package = ", "\n" * section("weakdeps")) && occursin("\n$package = ", "\n" * section("compat"))
        @test name == "OnlineLabelSmoothing$(package)Ext"
        parsed = Meta.parse("begin\n" * read(joinpath(EXTENSIONS, name * ".jl"), String) * "\nend")
        @test parsed.head === :block && any(part -> part isa Expr && part.head === :module && part.args[2] === Symbol(name), parsed.args)
    end
end

@testset "ChainRulesCore" begin
    @test passes(with_extension("OnlineLabelSmoothingChainRulesCoreExt", """
        using ChainRulesCore
        ŷ, y = Float32[1 2 0; 0 1 3; 2 0 1], [1, 2, 3]
        loss = OnlineLabelSmoothingLoss(3)
        value, pullback = ChainRulesCore.rrule(loss, ŷ, y; sample_weights = Float32[1, 2, 3])
        @test value == copy(loss)(ŷ, y; sample_weights = Float32[1, 2, 3])
        expected = O.backward!(similar(ŷ), loss, ŷ, y; sample_weights = Float32[1, 2, 3], grad_loss = 2)
        self, by_logits, by_labels = pullback(ChainRulesCore.Thunk(() -> 2.0f0))
        @test self isa NoTangent && by_labels isa NoTangent && by_logits == expected
        @test pullback(ChainRulesCore.ZeroTangent()) == (NoTangent(), ChainRulesCore.ZeroTangent(), NoTangent())
        none = OnlineLabelSmoothingLoss(3; reduction = :none)
        values, pullback = ChainRulesCore.rrule(none, ŷ, y)
        @test pullback(Float32[1, 0, 0])[2][:, 2:3] == zeros(3, 2)
        """))
end

@testset "Flux" begin
    @test passes(with_extension("OnlineLabelSmoothingFluxExt", """
        using Flux
        loss = OnlineLabelSmoothingLoss(3)
        @test Flux.testmode!(loss) === loss && !O.istraining(loss)
        @test Flux.trainmode!(loss) === loss && O.istraining(loss)
        @test !O.istraining(Flux.trainmode!(loss, false)) && O.istraining(Flux.testmode!(loss, false))
        """))
end

@testset "BFloat16s" begin
    @test passes(with_extension("OnlineLabelSmoothingBFloat16sExt", """
        using BFloat16s
        bits = reinterpret(UInt16, O.BFloat16.(Float32[1 2; 0 1; 2 0]))
        ours, theirs = (reinterpret(type, collect(bits)) for type in (O.BFloat16, BFloat16s.BFloat16))
        @test OnlineLabelSmoothingLoss(3)(theirs, [1, 2]) == OnlineLabelSmoothingLoss(3)(ours, [1, 2])
        """))
end

@testset "r21 CUDA" begin
    # What the library is told: device, number, address, and the stream of the task. This release then refuses the device, by its own error.
    @test passes(with_extension("OnlineLabelSmoothingCUDAExt", """
        using CUDA
        ŷ = CuArray(rand(Float32, 4, 6), 3)
        y = CuArray([1, 2, 3, 4, 1, 2], 3)
        told = O.tensor(ŷ, Val(2))
        @test (told.device_type, told.device_id) == (O.OLS_DEVICE_CUDA, 3) && UInt(told.data) == UInt(pointer(ŷ.memory))
        @test told.shape == (6, 4, 1) && told.strides == (4, 1, 0)
        part = view(ŷ, 2:3, 2:2:6)
        told = O.tensor(part, Val(2))
        @test UInt(told.data) == UInt(pointer(ŷ.memory, 6)) && told.strides == (8, 1, 0) && told.device_type == O.OLS_DEVICE_CUDA
        @test !O.has_memory(ŷ')
        loss = OnlineLabelSmoothingLoss(4)
        hot = CuArray(collect([k == label for k in 1:4, label in y.memory]))
        for labels in (y, hot)
            batch = O.Batch(loss, ŷ, labels, nothing, nothing, 0.5, 2, 1, :add)
            @test batch.targets isa CuArray && batch.targets.memory == y.memory && batch.lam isa CuArray && batch.lam.memory[] == 0.5
            @test O.in_header_form(batch).stream == Ptr{Cvoid}(UInt(0x5eed)) && O.in_header_form(batch).grad_loss.ndim == 0
        end
        @test O.scalar_output(ŷ, Float32) isa CuArray{Float32,0}
        @test O.at_hand(nothing, CuArray(fill(1.5f0))) === 1.5f0
        for call in (() -> loss(ŷ, y), () -> loss_and_gradient(loss, ŷ, y), () -> O.backward!(similar(ŷ), loss, ŷ, y))
            found = try; call(); catch exception; exception; end
            @test found isa OLSError && found.code == O.OLS_STATUS_INVALID_DEVICE
        end
        memory = O.state_memory(4, O.OLS_DEVICE_CUDA, 2, (soft_labels = nothing, sums = nothing, counts = nothing, counters = nothing))
        @test memory.sums isa CuArray{Int64,2} && memory.sums.device == 2 && size(memory.soft_labels) == (4, 4) && CUDA.device().number == 0
        found = try; OnlineLabelSmoothingLoss(4; device = :cuda); catch exception; exception; end
        @test found isa OLSError && found.code == O.OLS_STATUS_UNSUPPORTED
        """))
end
