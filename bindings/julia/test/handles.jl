# R10 to R14: lifetime and threads.

@testset "r10 one owner" begin
    # Criteria that were not closed are closed by the garbage collector.
    closed = Ref(0)
    function forget(count)
        for _ in 1:count
            criterion = OnlineLabelSmoothingLoss(50)
            criterion(rand(Float32, 50, 4), [1, 2, 3, 4])
            finalizer(_ -> closed[] += 1, criterion)
        end
    end
    forget(200)
    GC.gc()
    GC.gc()
    @test closed[] >= 199
    # A criterion that was closed explicitly is not destroyed again by its finalizer.
    criterion = OnlineLabelSmoothingLoss(3)
    close(criterion)
    @test criterion.handle == C_NULL && criterion.users[] == 0
    finalize(criterion)
    @test criterion.users[] == 0
    kept = OnlineLabelSmoothingLoss(3) do loss
        @test isopen(loss)
        loss
    end
    @test !isopen(kept)
    failed = Ref{Any}()
    @test_throws ErrorException OnlineLabelSmoothingLoss(loss -> (failed[] = loss; error("no")), 3)
    @test !isopen(failed[])
end

# A library in which Ctrl-C arrives as soon as a criterion exists, and which counts those that are destroyed.
O.ensure_library()
const REAL_FUNCTIONS, DESTROYED = O.FUNCTIONS[], Threads.Atomic{Int}(0)
function create_and_interrupt(options::Ptr{Cvoid}, out::Ptr{Ptr{Cvoid}})::Int32
    code = ccall(REAL_FUNCTIONS.ols_create, Int32, (Ptr{Cvoid}, Ptr{Ptr{Cvoid}}), options, out)
    code == O.OLS_STATUS_OK && throw(InterruptException())
    return code
end
function count_destroyed(handle::Ptr{Cvoid})::Cvoid
    handle == C_NULL || Threads.atomic_add!(DESTROYED, 1)
    ccall(REAL_FUNCTIONS.ols_destroy, Cvoid, (Ptr{Cvoid},), handle)
end

@testset "r10 an interrupted construction loses no handle" begin
    changed = Dict(
        :ols_create => @cfunction(create_and_interrupt, Int32, (Ptr{Cvoid}, Ptr{Ptr{Cvoid}})),
        :ols_destroy => @cfunction(count_destroyed, Cvoid, (Ptr{Cvoid},)),
    )
    # What was forgotten before is not counted.
    GC.gc()
    GC.gc()
    O.FUNCTIONS[] = O.Functions((get(changed, name, getfield(REAL_FUNCTIONS, name)) for name in O.FUNCTION_NAMES)...)
    try
        for _ in 1:20
            @test error_of(() -> OnlineLabelSmoothingLoss(3)) isa InterruptException
            # Nothing was created, and the finalizer destroys nothing.
            @test error_of(() -> OnlineLabelSmoothingLoss(1)) isa OLSError
        end
        GC.gc()
        GC.gc()
        # The stack may still refer to the last one.
        @test DESTROYED[] in 19:20
    finally
        O.FUNCTIONS[] = REAL_FUNCTIONS
    end
    GC.gc()
    @test OnlineLabelSmoothingLoss(isopen, 3)
end

# Signals reach Julia's first thread at its next safepoint, and the end of a pass is one.
Sys.isunix() && @testset "r10 Ctrl-C during a pass leaves no call in progress" begin
    found = julia("""
        using OnlineLabelSmoothing
        ccall(:jl_exit_on_sigint, Cvoid, (Cint,), 0)
        loss = OnlineLabelSmoothingLoss(1000; n_threads = 1)
        ŷ, y = zeros(Float32, 1000, 20000), ones(Int, 20000)
        grad = similar(ŷ)
        backward!() = OnlineLabelSmoothing.backward!(grad, loss, ŷ, y)
        forward!() = loss_and_gradient!(grad, loss, ŷ, y)
        forward!(), backward!()
        function outcome(call)
            try; call(); catch exception; return typeof(exception); end
        end
        print(outcome(() -> loss(ŷ, zero(y))), " ") # a failed call defers signals no longer than any other
        for pass in (forward!, forward!, backward!)
            print(outcome(() -> (ccall(:kill, Cint, (Cint, Cint), getpid(), 2); pass(); sleep(10))), " ")
            sleep(1) # more signals within a second would be forced upon the library
        end
        close(loss)
        print(loss.handle == C_NULL)
    """)
    @test found.succeeded && found.output == "OLSError " * "InterruptException "^3 * "true"
end

@testset "r11 double close, use after close" begin
    loss = OnlineLabelSmoothingLoss(3)
    ŷ, y = rand(Float32, 3, 2), [1, 2]
    views = statistics(loss)
    S = soft_labels(loss)
    loss(ŷ, y)
    close(loss)
    close(loss)
    @test !isopen(loss)
    for call in [
        () -> loss(ŷ, y), () -> loss_and_gradient(loss, ŷ, y), () -> O.backward!(similar(ŷ), loss, ŷ, y), () -> O.accumulate_probabilities!(loss, ŷ, y),
        () -> next_epoch!(loss), () -> report(loss), () -> statistics(loss), () -> soft_labels(loss), () -> O.set_soft_labels!(loss, zeros(3, 3)),
        () -> O.trainmode!(loss), () -> O.istraining(loss), () -> O.set_alpha!(loss, 0), () -> O.epoch(loss), () -> O.set_epoch!(loss, 1), () -> O.options(loss),
        () -> O.save(tempname(), loss), () -> O.load!(loss, "file"), () -> O.load!(loss, UInt8[]), () -> O.saved(loss), () -> copy(loss), () -> deepcopy(loss),
    ]
        found = error_of(call)
        @test found isa InvalidStateException && found.state === :closed
    end
    @test sprint(show, loss) == "OnlineLabelSmoothingLoss(3) (closed)"
    @test occursin("closed", sprint(show, MIME("text/plain"), loss))
    # The returned arrays belong to Julia and remain valid.
    @test sum(views.counts) <= 2 && size(S) == (3, 3)
end

@testset "r11 a criterion in a precompiled package" begin
    # Constants of a precompiled package are stored in its image, with NULL for pointers: using one is an error, not a crash.
    mktempdir() do folder
        mkpath(joinpath(folder, "Keeper", "src"))
        write(
            joinpath(folder, "Keeper", "src", "Keeper.jl"),
            "module Keeper\nusing OnlineLabelSmoothing\nconst LOSS = OnlineLabelSmoothingLoss(3)\nend\n",
        )
        found = julia(
            """
            using Keeper, OnlineLabelSmoothing
            using OnlineLabelSmoothing: saved
            for use in (repr, saved, loss -> loss(zeros(Float32, 3, 1), [1]))
                try; use(Keeper.LOSS); print("worked"); catch exception; print(exception); end
            end
            close(Keeper.LOSS)
            print(isopen(Keeper.LOSS))
            """;
            environment = Dict("JULIA_LOAD_PATH" => join(["@", folder, "@stdlib"], Sys.iswindows() ? ";" : ":")),
        )
        @test found.succeeded && occursin("InvalidStateException(\"the OnlineLabelSmoothingLoss was created while a package was precompiled", found.output)
        @test endswith(found.output, "false") && !occursin("worked", found.output)
    end
end

@testset "r12 copies are separate criteria" begin
    loss = OnlineLabelSmoothingLoss(3; alpha = 0.25, reduction = :sum, class_weights = [1.0, 2.0, 3.0], target_offset = 0, mode = :eval, n_threads = 1)
    O.trainmode!(loss)
    ŷ, y = Float32[5 0 0; 0 5 0; 0 0 5], [0, 1, 2]
    loss(ŷ, y)
    next_epoch!(loss)
    loss(ŷ, y)
    buffer = IOBuffer()
    serialize(buffer, (loss, [loss, loss]))
    seekstart(buffer)
    sent, twice = deserialize(buffer)
    for other in [copy(loss), deepcopy(loss), sent, deepcopy([loss])[1]]
        @test other !== loss && other.handle != loss.handle
        @test O.saved(other) == O.saved(loss)
        @test isequal(O.options(other), O.options(loss))
        @test other(ŷ, y; update = :none) == loss(ŷ, y; update = :none)
        other(ŷ, y)
        @test statistics(other).counts == 2 .* statistics(loss).counts
        @test O.saved(other) != O.saved(loss)
    end
    # Several references to one criterion remain references to one criterion.
    @test sent === twice[1] === twice[2]
    both = deepcopy([loss, loss])
    @test both[1] === both[2]
end

@testset "r13 alive while used" begin
    # Garbage collections between and during calls: a call keeps alive what it uses.
    function disturbed()
        loss = OnlineLabelSmoothingLoss(4; class_weights = ones(4), initial_soft_labels = fill(0.25f0, 4, 4))
        for _ in 1:20
            value, grad = loss_and_gradient(loss, rand(Float32, 4, 3), [1, 2, 3]; sample_weights = ones(3), targets2 = [2, 3, 4], lam = fill(0.5, 3))
            GC.gc(false)
            isfinite(value) && all(isfinite, grad) || return false
        end
        S = soft_labels(loss)
        loss = nothing
        GC.gc()
        return all(==(0.25f0), S)
    end
    @test disturbed()
    # The criterion refers to the memory that was given for its state.
    sums = zeros(Int64, 4, 4)
    loss = OnlineLabelSmoothingLoss(4; sums = sums)
    @test statistics(loss).sums === sums
end

@testset "r14 threads" begin
    @test Threads.nthreads() > 1
    batches = [(Float32.(3 .* (randn(MersenneTwister(n), 8, 16))), rand(MersenneTwister(100 + n), 1:8, 16)) for n in 1:64]
    alone, together = OnlineLabelSmoothingLoss(8), OnlineLabelSmoothingLoss(8)
    expected = [loss_and_gradient(alone, ŷ, y) for (ŷ, y) in batches]
    found = Vector{Any}(undef, length(batches))
    Threads.@threads for n in 1:length(batches)
        found[n] = loss_and_gradient(together, batches[n]...)
        n % 16 == 0 && GC.gc(false)
    end
    @test found == expected
    @test O.saved(alone) == O.saved(together)
    next_epoch!(alone), next_epoch!(together)
    @test soft_labels(alone) == soft_labels(together)

    # A load frees the memory behind the views of the options, so it waits while another thread reads them.
    loss = OnlineLabelSmoothingLoss(3; class_weights = [1.0, 2.0, 3.0])
    bytes = O.saved(OnlineLabelSmoothingLoss(3; class_weights = [4.0, 5.0, 6.0]))
    loading = O.with_options(loss) do now
        load = Threads.@spawn O.load!(loss, bytes)
        # Saving to memory takes two calls, which must find a state of the same size.
        save = Threads.@spawn O.saved(loss)
        sleep(0.2)
        @test !istaskdone(load) && !istaskdone(save) && O.copied(now.class_weights, Float64) == [1, 2, 3]
        load, save
    end
    foreach(wait, loading)
    @test O.options(loss).class_weights == [4, 5, 6]

    # Closing during calls: each call either succeeds or reports that the criterion is closed.
    for _ in 1:20
        loss = OnlineLabelSmoothingLoss(8)
        outcomes = Vector{Symbol}(undef, 200)
        Threads.@threads for n in 1:200
            n == 90 && close(loss)
            outcomes[n] = try
                isfinite(loss(batches[1]...)) ? :worked : :wrong
            catch exception
                exception isa InvalidStateException ? :closed : :wrong
            end
        end
        @test !(:wrong in outcomes) && outcomes[90] === :closed
        @test loss.handle == C_NULL
    end
end
