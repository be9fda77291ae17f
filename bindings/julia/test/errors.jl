# R5 to R9: errors.

@testset "r05 r08 every status is checked, and an error changes nothing" begin
    loss = OnlineLabelSmoothingLoss(3)
    ŷ, y = Float32[2 0; 0 2; 0 0], [1, 2]
    for (call, code, words) in [
        (() -> OnlineLabelSmoothingLoss(1), O.OLS_STATUS_INVALID_ARGUMENT, "ols_create: num_classes = 1"),
        (() -> OnlineLabelSmoothingLoss(3; alpha = 1.5), O.OLS_STATUS_INVALID_ARGUMENT, "alpha = 1.5"),
        (() -> OnlineLabelSmoothingLoss(3; class_weights = [1.0, -1.0, 1.0]), O.OLS_STATUS_INVALID_ARGUMENT, "class_weights"),
        (() -> OnlineLabelSmoothingLoss(3; class_weights = [1, 1, 1]), O.OLS_STATUS_INVALID_DTYPE, "class_weights"),
        (() -> OnlineLabelSmoothingLoss(3; initial_soft_labels = rand(2, 3)), O.OLS_STATUS_INVALID_SHAPE, "initial_soft_labels"),
        (() -> OnlineLabelSmoothingLoss(3; device = :cuda), O.OLS_STATUS_UNSUPPORTED, "device"),
        (() -> OnlineLabelSmoothingLoss(3; sums = zeros(Int32, 3, 3)), O.OLS_STATUS_INVALID_DTYPE, "sums"),
        (() -> OnlineLabelSmoothingLoss(3; counts = zeros(Int64, 2)), O.OLS_STATUS_INVALID_SHAPE, "counts"),
        (() -> loss(ŷ, [1, 4]), O.OLS_STATUS_TARGET_OUT_OF_RANGE, "target[1] = 4 is outside [1, 4)"),
        (() -> loss(ŷ, [1, 0]), O.OLS_STATUS_TARGET_OUT_OF_RANGE, "target[1] = 0"),
        (() -> loss(ŷ, [1]), O.OLS_STATUS_INVALID_SHAPE, "targets"),
        (() -> loss(rand(Float32, 4, 2), y), O.OLS_STATUS_INVALID_SHAPE, "logits"),
        (() -> loss(rand(Float32, 3), y), O.OLS_STATUS_INVALID_SHAPE, "logits"),
        (() -> loss(fill(1.0f0), y), O.OLS_STATUS_INVALID_SHAPE, "logits.ndim = 0"),
        (() -> loss(rand(1:9, 3, 2), y), O.OLS_STATUS_INVALID_DTYPE, "logits"),
        (() -> loss(ŷ, UInt32[1, 2]), O.OLS_STATUS_INVALID_DTYPE, "targets"),
        (() -> loss(ŷ, Float32[1, 2]), O.OLS_STATUS_INVALID_DTYPE, "targets"),
        (() -> loss(ŷ, y; sample_weights = [1.0, -1.0]), O.OLS_STATUS_INVALID_ARGUMENT, "sample_weights"),
        (() -> loss(ŷ, y; lam = 0.5), O.OLS_STATUS_INVALID_ARGUMENT, "targets2"),
        (() -> loss(ŷ, y; targets2 = y, lam = 1.5), O.OLS_STATUS_INVALID_ARGUMENT, "lam"),
        (() -> loss_and_gradient!(zeros(Float64, 3, 2), loss, ŷ, y), O.OLS_STATUS_INVALID_DTYPE, "grad"),
        (() -> loss_and_gradient!(zeros(Float32, 2, 2), loss, ŷ, y), O.OLS_STATUS_INVALID_SHAPE, "grad"),
        (() -> O.forward!(loss, ŷ, y; value = Ref(0.0)), O.OLS_STATUS_INVALID_DTYPE, "loss"),
        (() -> O.backward!(similar(ŷ), loss, ŷ, y; update = :take_back), O.OLS_STATUS_INVALID_ARGUMENT, "taking back"),
        (() -> loss(ŷ, y; update = :take_back), O.OLS_STATUS_INVALID_STATE, "take"),
        (() -> O.set_alpha!(loss, NaN), O.OLS_STATUS_INVALID_ARGUMENT, "alpha"),
        (() -> O.set_epoch!(loss, -1), O.OLS_STATUS_INVALID_ARGUMENT, "epoch"),
        (() -> O.set_soft_labels!(loss, fill(-1.0, 3, 3)), O.OLS_STATUS_INVALID_ARGUMENT, "soft_labels"),
        (() -> O.load!(loss, "/nowhere/at/all"), O.OLS_STATUS_IO, "/nowhere/at/all"),
        (() -> O.load!(loss, UInt8[1, 2, 3]), O.OLS_STATUS_INVALID_FILE, "ols_load_memory"),
        (() -> O.save("/nowhere/at/all", loss), O.OLS_STATUS_IO, "/nowhere/at/all"),
        (() -> O.load!(OnlineLabelSmoothingLoss(4), O.saved(loss)), O.OLS_STATUS_INVALID_ARGUMENT, "classes"),
    ]
        before = O.saved(loss)
        found = error_of(call)
        @test found isa OLSError
        found isa OLSError || continue
        (found.code, occursin(words, found.message)) == (code, true) || println("expected $code and $(repr(words)): ", found)
        @test found.code == code && occursin(words, found.message)
        @test O.saved(loss) == before
        @test error_of(() -> loss(ŷ, y; update = :none)) === nothing
    end
end

@testset "r06 the message is copied immediately" begin
    loss = OnlineLabelSmoothingLoss(3)
    first_error = error_of(() -> loss(rand(Float32, 3, 1), [9]))
    second_error = error_of(() -> OnlineLabelSmoothingLoss(-5))
    loss(rand(Float32, 3, 1), [1])
    @test occursin("target[0] = 9", first_error.message) && occursin("num_classes = -5", second_error.message)

    # Finalizers that make failing calls, run by garbage collections in between.
    mutable struct Disturber end
    disturbed = Ref(0)
    function disturb(::Disturber)
        ccall(O.FUNCTIONS[].ols_create, Int32, (Ptr{Cvoid}, Ptr{Cvoid}), C_NULL, C_NULL)
        disturbed[] += 1
        return nothing
    end
    for number in 4:300
        finalizer(disturb, Disturber())
        @test occursin("target[0] = $number ", error_of(() -> loss(rand(Float32, 3, 1), [number])).message)
        number % 20 == 0 && GC.gc(false)
    end
    GC.gc()
    @test disturbed[] > 200

    # Each thread has its own message.
    @test Threads.nthreads() > 1
    wrong = Threads.Atomic{Int}(0)
    Threads.@threads for thread in 1:(4 * Threads.nthreads())
        for number in 1:200
            value = 1000 * thread + number
            message = error_of(() -> loss(rand(Float32, 3, 1), [value])).message
            occursin("target[0] = $value ", message) || Threads.atomic_add!(wrong, 1)
        end
    end
    @test wrong[] == 0
end

@testset "r07 kinds" begin
    text = sprint(showerror, OLSError(3, "ols_forward: something"))
    @test text == "OLSError: ols_forward: something (INVALID_SHAPE, status 3)"
    @test O.status(OLSError(5, "")) === :target_out_of_range
    # A status of a newer library.
    unknown = OLSError(77, "new")
    @test unknown.code == 77 && O.status(unknown) === :unknown && occursin("status 77", sprint(showerror, unknown))
    for (symbol, number) in O.STATUSES
        name = unsafe_string(ccall(O.FUNCTIONS[].ols_status_string, Ptr{UInt8}, (Int32,), number))
        @test lowercase(name) == string(symbol)
    end
    # A status that no constant of this package has is still an error.
    @test error_of(() -> O.check(Int32(200))) isa OLSError
end

@testset "r09 what only Julia can check" begin
    loss = OnlineLabelSmoothingLoss(3)
    ŷ = rand(Float32, 3, 2)
    for (call, type, words) in [
        (() -> OnlineLabelSmoothingLoss(3; reduction = :median), ArgumentError, "reduction = :median is not one of :mean, :none, :sum"),
        (() -> OnlineLabelSmoothingLoss(3; empty_class = :drop), ArgumentError, "empty_class"),
        (() -> OnlineLabelSmoothingLoss(3; preset = :mine), ArgumentError, "preset"),
        (() -> OnlineLabelSmoothingLoss(3; reduction = "mean"), ArgumentError, "reduction = \"mean\" is not one of"),
        (() -> OnlineLabelSmoothingLoss(3; min_count = 1.5), ArgumentError, "min_count = 1.5 cannot be represented as Int64"),
        (() -> OnlineLabelSmoothingLoss(3; n_threads = 2^40), ArgumentError, "n_threads = 1099511627776 cannot be represented as Int32"),
        (() -> OnlineLabelSmoothingLoss(3; alpha = "half"), ArgumentError, "alpha is a String"),
        (() -> OnlineLabelSmoothingLoss(big(10)^30), ArgumentError, "num_classes = 1000000"),
        (() -> OnlineLabelSmoothingLoss(3; class_weights = "heavy"), ArgumentError, "class_weights"),
        (() -> OnlineLabelSmoothingLoss(3; class_weights = trues(3)), ArgumentError, "class_weights has elements of type Bool"),
        (() -> OnlineLabelSmoothingLoss(3; soft_labels = 5), ArgumentError, "soft_labels is a Int64"),
        (() -> OnlineLabelSmoothingLoss(3; counts = 1:3), ArgumentError, "counts is a UnitRange"),
        (() -> loss(rand(ComplexF32, 3, 2), [1, 2]), ArgumentError, "ŷ has elements of type Complex"),
        (() -> loss(Any[1 2; 3 4; 5 6], [1, 2]), ArgumentError, "ŷ has elements of type Any"),
        (() -> loss(ŷ, ["a", "b"]), ArgumentError, "y has elements of type String"),
        (() -> loss(trues(3, 2), [1, 2]), ArgumentError, "ŷ has elements of type Bool"),
        (() -> loss(ŷ, [1, 2]; sample_weights = trues(2)), ArgumentError, "sample_weights has elements of type Bool"),
        (() -> loss(ŷ, [1, 2]; sample_weights = 2.0), ArgumentError, "sample_weights is a Float64"),
        (() -> loss(ŷ, [1, 2]; targets2 = 1, lam = 0.5), ArgumentError, "targets2 is a Int64"),
        (() -> loss(ŷ, [1, 2]; targets2 = falses(3, 2), lam = 0.5), ArgumentError, "targets2[:, 1] is not one-hot"),
        (() -> loss(ŷ, [1, 2]; targets2 = falses(2, 2), lam = 0.5), DimensionMismatch, "targets2 has size (2, 2)"),
        (() -> loss(ŷ, nothing), ArgumentError, "y is a Nothing"),
        (() -> loss(ŷ, 1), ArgumentError, "y is a Int64"),
        (() -> loss(ŷ, [1, 2]; update = :maybe), ArgumentError, "update = :maybe"),
        (() -> loss(ŷ, [1, 2]; sample_weights = "all"), ArgumentError, "sample_weights"),
        (() -> loss(ŷ, rand(Bool, 2, 2)), DimensionMismatch, "one-hot"),
        (() -> loss(ŷ, [true true; false true; false false]), ArgumentError, "y[:, 2] is not one-hot"),
        (() -> loss(ŷ, [1.0 0.5; 0 0.5; 0 0]), ArgumentError, "y[:, 2] is not one-hot"),
        (() -> loss(ŷ, falses(3, 2)), ArgumentError, "y[:, 1] is not one-hot"),
        (() -> loss(rand(Float32, 4, 5, 3, 2), ones(Int, 5, 4, 2)), DimensionMismatch, "y has size (5, 4, 2)"),
        (() -> loss(rand(Float32, 4, 5, 3, 2), ones(Int, 4, 5, 2); sample_weights = ones(20, 2)), DimensionMismatch, "sample_weights"),
        (() -> loss_and_gradient!(zeros(Float32, 5, 4, 3, 2), loss, rand(Float32, 4, 5, 3, 2), ones(Int, 4, 5, 2)), DimensionMismatch, "grad"),
        (() -> loss_and_gradient!(UpperTriangular(rand(Float32, 3, 3)), loss, rand(Float32, 3, 3), [1, 2, 3]), ArgumentError, "grad is a UpperTriangular"),
        (() -> O.forward!(loss, ŷ, [1, 2]; value = 0.0f0), ArgumentError, "value is a Float32"),
        (() -> O.save("a\0b", loss), ArgumentError, "NUL"),
    ]
        before = O.saved(loss)
        found = error_of(call)
        found isa type && occursin(words, sprint(showerror, found)) || println("expected $type and $(repr(words)): ", found)
        @test found isa type && occursin(words, sprint(showerror, found))
        @test O.saved(loss) == before
    end
end
