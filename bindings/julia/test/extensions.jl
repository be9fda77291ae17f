# The package extensions. They run with small stand-ins for their packages (test/stubs), so that the tests need no other package.

const EXTENSIONS = joinpath(PACKAGE, "ext")
const STUBS = joinpath(@__DIR__, "stubs")

# Runs a program with the stand-ins on the load path and one extension loaded.
function with_extension(name, program; environment = Dict{String,String}())
    separator = Sys.iswindows() ? ";" : ":"
    environment = merge(environment, Dict("JULIA_LOAD_PATH" => join(["@", "@stdlib", STUBS], separator)))
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
        # r12: inside a model the criterion is not copied and has no parameters.
        children, rebuilt = Flux.Functors.functor(typeof(loss), loss)
        @test children === () && rebuilt(children) === loss
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

# The extension for CUDA with test/stubs/CUDA, which uses memory and streams of the stand-in for the driver.
@testset "r21 CUDA" begin
    @test passes(with_extension("OnlineLabelSmoothingCUDAExt", """
        using CUDA
        CUDA.device!(1)
        # The tensor that the library gets: device, address and strides; and the stream of the task.
        logits, labels = Float32[mod(7n + 3k, 11) / 4 + 4 * (k == mod1(n, 4)) for k in 1:4, n in 1:6], [1, 2, 4, 4, 1, 2]
        ŷ, y = CuArray(logits), CuArray(labels)
        told = O.tensor(ŷ, Val(2))
        @test (told.device_type, told.device_id) == (O.OLS_DEVICE_CUDA, 1) && UInt(told.data) == UInt(pointer(ŷ.memory))
        @test told.shape == (6, 4, 1) && told.strides == (4, 1, 0)
        part = view(ŷ, 2:3, 2:2:6)
        told = O.tensor(part, Val(2))
        @test UInt(told.data) == UInt(pointer(ŷ.memory, 6)) && told.strides == (8, 1, 0) && told.device_type == O.OLS_DEVICE_CUDA
        @test !O.has_memory(ŷ')
        host, there = OnlineLabelSmoothingLoss(4; alpha = 0.25), OnlineLabelSmoothingLoss(4; alpha = 0.25, device = :cuda, device_id = 1)
        hot = CuArray(collect([k == label for k in 1:4, label in labels]))
        for given in (y, hot)
            batch = O.Batch(there, ŷ, given; lam = 0.5, grad_loss = 2)
            @test batch.targets isa CuArray && batch.targets.memory == labels && batch.lam isa CuArray && batch.lam.memory[] == 0.5
            @test O.in_header_form(batch).stream == CUDA.stream().handle != C_NULL && O.in_header_form(batch).grad_loss.ndim == 0
        end
        @test O.scalar_output(ŷ, Float32) isa CuArray{Float32,0}
        @test O.at_hand(nothing, CuArray(fill(1.5f0))) === 1.5f0

        # A pass with preallocated outputs does not synchronise; returning the loss as a number does.
        value, grad = CuArray{Float32}(undef), similar(ŷ)
        O.forward!(there, ŷ, y; value = value, grad = grad, update = :none)
        CUDA.synchronize()
        waits, allocations = CUDA.kept("synchronisations"), CUDA.kept("allocations")
        O.forward!(there, ŷ, y; value = value, grad = grad)
        @test CUDA.kept("synchronisations") == waits && CUDA.kept("allocations") == allocations && CUDA.kept("queued") > 0
        @test CUDA.kept("last_stream") == Int(UInt(CUDA.stream().handle))
        expected, gradient = loss_and_gradient(host, logits, labels)
        @test only(Array(value)) ≈ expected && Array(grad) ≈ gradient
        @test there(ŷ, y; update = :none) ≈ expected && there(ŷ, hot; update = :none) ≈ expected
        @test Array(O.backward!(similar(ŷ), there, ŷ, y)) == Array(grad)
        again, pullback = O.loss_and_pullback(there, ŷ, y; update = :none)
        @test again ≈ expected && Array(pullback(3.0f0)) ≈ 3 .* gradient
        mixed = (targets2 = circshift(labels, 1), lam = 0.25, sample_weights = Float32[1, 2, 0, 1, 1, 3], update = :none)
        on_device = (targets2 = CuArray(mixed.targets2), lam = 0.25, sample_weights = CuArray(mixed.sample_weights), update = :none)
        @test there(ŷ, y; on_device...) ≈ host(logits, labels; mixed...)
        # A view that is not a CuArray: every other column of a larger array.
        wide = CuArray(repeat(logits; inner = (1, 2)))
        apart = view(wide, :, 1:2:12)
        @test !(apart isa CuArray) && there(apart, y; update = :none, lam = 0.25, targets2 = on_device.targets2) ≈ host(logits, labels; update = :none, lam = 0.25, targets2 = mixed.targets2)
        @test Array(O.backward!(similar(ŷ), there, apart, y)) == Array(grad)
        each, each_there = OnlineLabelSmoothingLoss(4; reduction = :none), OnlineLabelSmoothingLoss(4; reduction = :none, device = :cuda, device_id = 1)
        @test Array(each_there(ŷ, y)) ≈ each(logits, labels)

        # The state is on the device, in place; a copy and a criterion on the host continue from it.
        @test statistics(there).counts isa CuArray && Array(statistics(there).counts) == statistics(host).counts
        next_epoch!(there); next_epoch!(host)
        @test soft_labels(there) isa CuArray && Array(soft_labels(there)) ≈ soft_labels(host) && report(there) == report(host)
        second = copy(there)
        @test O.options(second).device === :cuda && O.options(second).device_id == 1 && O.saved(second) == O.saved(there)
        @test soft_labels(O.load!(OnlineLabelSmoothingLoss(4), O.saved(there))) == Array(soft_labels(there))
        @test occursin("training mode, 1 epoch completed", sprint(show, MIME("text/plain"), there))

        # Invalid input.
        code(call) = try; call(); 0; catch exception; exception isa OLSError ? exception.code : rethrow(); end
        for call in (() -> host(ŷ, y), () -> loss_and_gradient(host, ŷ, y), () -> O.backward!(similar(ŷ), host, ŷ, y), () -> there(logits, labels), () -> there(ŷ, labels))
            @test code(call) == O.OLS_STATUS_INVALID_DEVICE
        end
        @test code(() -> OnlineLabelSmoothingLoss(4; device = :cuda, device_id = 7)) != 0
        there(ŷ, CuArray([9, 2, 4, 4, 1, 2]))
        @test report(there).running_targets_out_of_range == 1
        memory = O.state_memory(4, O.OLS_DEVICE_CUDA, 0, (soft_labels = nothing, sums = nothing, counts = nothing, counters = nothing))
        @test memory.sums isa CuArray{Int64,2} && memory.sums.device == 0 && size(memory.soft_labels) == (4, 4) && CUDA.device().number == 1
        """; environment = Dict("OLS_STAND_IN" => chomp(read(`$(joinpath(REPOSITORY, "bindings", "stand-in-driver"))`, String)))))
    # Without CUDA.jl libols allocates the state; without a driver the library reports that.
    @test passes(with_extension("OnlineLabelSmoothingBFloat16sExt", """
        using Libdl
        found = try; OnlineLabelSmoothingLoss(4; device = :cuda, device_id = 99); catch exception; exception; end
        has_driver = any(name -> Libdl.dlopen(name; throw_error = false) !== nothing, ["libcuda.so", "libcuda.so.1"])
        @test found isa OLSError && found.code == (has_driver ? O.OLS_STATUS_INVALID_DEVICE : O.OLS_STATUS_UNSUPPORTED)
        """))
end
