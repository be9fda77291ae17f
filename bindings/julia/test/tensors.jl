# R16 to R20: arrays are read and written in place.

# The tensor that the library gets for an array.
told(array, kept) = O.tensor(array, Val(kept))

@testset "r16 no copy" begin
    ŷ = randn(MersenneTwister(1), Float32, 5, 8)
    y = [1, 2, 3, 4, 5, 1, 2, 3]
    at(array) = UInt(told(array, 2).data)
    @test at(ŷ) == UInt(pointer(ŷ)) && O.readable(ŷ, Val(2), "ŷ") === ŷ
    # Addresses and strides of every kind of view; results equal those of a copy.
    big = randn(MersenneTwister(2), Float32, 16, 20)
    back, wide = randn(MersenneTwister(3), Float32, 8, 5), randn(MersenneTwister(4), Float64, 5, 8)
    views = [
        (view(big, 3:7, 1:8), UInt(pointer(big, 3)), (16, 1)),
        (view(big, 2:3:14, 4:2:18), UInt(pointer(big, 2 + 3 * 16)), (32, 3)),
        (view(big, 7:-1:3, 8:-1:1), UInt(pointer(big, 7 + 7 * 16)), (-16, -1)),
        (back', UInt(pointer(back)), (1, 8)),
        (transpose(back), UInt(pointer(back)), (1, 8)),
        (PermutedDimsArray(back, (2, 1)), UInt(pointer(back)), (1, 8)),
        (reshape(view(big, 1:16, 1:10), 5, 32)[:, 1:8], nothing, (5, 1)),
        (reinterpret(Float32, rand(MersenneTwister(5), UInt32(0x3f000000):UInt32(0x40000000), 5, 8)), nothing, (5, 1)),
        (Strided(vec(copy(big)), 4, (5, 8), (2, 17)), nothing, (17, 2)),
    ]
    for (array, start, steps) in views
        seen = told(array, 2)
        @test start === nothing || UInt(seen.data) == start
        @test seen.shape[1:2] == (8, 5) && seen.strides[1:2] == steps && seen.ndim == 2
        loss, other = OnlineLabelSmoothingLoss(5), OnlineLabelSmoothingLoss(5)
        value, grad = @test_logs loss_and_gradient(loss, array, y)
        @test (value, grad) == loss_and_gradient(other, Array(array), y)
        @test O.saved(loss) == O.saved(other)
        # As an output too: elements outside the view are unchanged.
        written = array isa Base.ReinterpretArray ? copy(array) : array
        kept = copy(parent(written))
        O.backward!(written, loss, copy(array), y)
        @test written == grad
        parent(written) === written || @test count(kept .!= parent(written)) <= length(grad)
        copyto!(parent(written), kept)
    end
    # Several dimensions: (d..., K, N) is the library's (N, K, inner).
    images, marks = randn(MersenneTwister(6), Float32, 3, 4, 5, 2), rand(MersenneTwister(7), 1:5, 3, 4, 2)
    seen = told(images, 2)
    @test (UInt(seen.data), seen.ndim, seen.shape, seen.strides) == (UInt(pointer(images)), 3, (2, 5, 12), (60, 12, 1))
    @test told(marks, 1).shape == (2, 12, 1) && told(marks, 1).strides == (12, 1, 0)
    loss = OnlineLabelSmoothingLoss(5; reduction = :none)
    values = loss(images, marks)
    @test size(values) == size(marks)
    flat = reshape(permutedims(images, (3, 1, 2, 4)), 5, 24)
    @test vec(values) == loss(flat, vec(marks))
    # Parts whose first dimensions can be merged.
    cut = view(images, :, 2:3, :, :)
    @test_logs loss(cut, marks[:, 2:3, :])
    @test told(cut, 2).shape == (2, 5, 6) && told(cut, 2).strides == (60, 12, 1)
    single = view(images, 2:2, :, :, :)
    @test told(single, 2).shape == (2, 5, 4) && told(single, 2).strides == (60, 12, 3)
    @test_logs loss(single, marks[2:2, :, :])
end

@testset "r16 copies are visible" begin
    loss, other = OnlineLabelSmoothingLoss(5; reduction = :none), OnlineLabelSmoothingLoss(5; reduction = :none)
    images, marks = randn(MersenneTwister(8), Float32, 3, 4, 5, 2), rand(MersenneTwister(9), 1:5, 3, 4, 2)
    scattered, some = view(images, 1:2, :, :, :), view(marks, 1:2, :, :)
    @test !O.collapses(scattered, 2)
    values = @test_logs (:warn, r"ŷ is copied") (:warn, r"y is copied") loss(scattered, some)
    @test values == other(copy(scattered), copy(some))
    # Outputs that had to be copied are written back; nothing outside them is written.
    expected, grad = loss_and_gradient(other, copy(scattered), copy(some))
    kept, outputs = copy(images), zeros(Float32, 3, 4, 2)
    with_logger(NullLogger()) do
        O.backward!(scattered, loss, scattered, some)
        O.forward!(loss, copy(view(kept, 1:2, :, :, :)), copy(some); value = view(outputs, 1:2, :, :))
    end
    @test scattered == grad && view(images, 3:3, :, :, :) == view(kept, 3:3, :, :, :)
    @test outputs[1:2, :, :] == expected && all(iszero, outputs[3, :, :])
    # A reshaped array without strides.
    reshaped = reshape(view(randn(MersenneTwister(16), Float32, 7, 10), 2:2:7, :), 5, 6)
    @test with_logger(() -> loss(reshaped, [1, 2, 3, 4, 5, 1]), NullLogger()) == other(copy(reshaped), [1, 2, 3, 4, 5, 1])
    # Arrays that are not stored in memory element by element.
    triangle = UpperTriangular(rand(MersenneTwister(10), Float32, 5, 5))
    @test !O.has_memory(triangle) && !O.has_memory(1:5) && !O.has_memory(Diagonal(ones(3)))
    @test (@test_logs (:warn, r"ŷ is copied in each call, because a UpperTriangular") (:warn, r"y is copied") loss(triangle, 1:5)) == other(Matrix(triangle), collect(1:5))
    # `similar` of these arrays is sparse.
    for array in (Diagonal(ones(Float32, 5)), Tridiagonal(ones(Float32, 4), ones(Float32, 5), ones(Float32, 4)))
        @test with_logger(() -> loss_and_gradient(loss, array, 1:5), NullLogger()) == loss_and_gradient(other, Matrix(array), collect(1:5))
    end
end

@testset "r17 element types" begin
    ŷ = Float32.(rand(MersenneTwister(11), -8:8, 4, 6)) ./ 4
    y = [1, 2, 3, 4, 1, 2]
    reference = OnlineLabelSmoothingLoss(4)
    value, grad = loss_and_gradient(reference, ŷ, y)
    for (type, tolerance) in [(Float64, 1e-6), (Float16, 1e-3), (O.BFloat16, 8e-3)]
        loss = OnlineLabelSmoothingLoss(4)
        got, slope = loss_and_gradient(loss, type.(ŷ), y)
        @test typeof(got) == (type === Float64 ? Float64 : Float32) && eltype(slope) == type
        @test isapprox(got, value; rtol = 1e-6)
        @test maximum(abs.(Float64.(slope) .- grad)) <= tolerance * maximum(abs.(grad))
        @test statistics(loss).counts == statistics(reference).counts
    end
    for type in [Int64, Int32, UInt8]
        @test OnlineLabelSmoothingLoss(4)(ŷ, type.(y)) == value
    end
    for type in [Float32, Float64]
        loss = OnlineLabelSmoothingLoss(4; class_weights = ones(type, 4))
        @test loss(ŷ, y; sample_weights = ones(type, 6), targets2 = y, lam = ones(type, 6), grad_loss = one(type)) == value
    end
    # Bits of 16-bit numbers.
    bits = reinterpret(UInt16, Float16.(ŷ))
    @test OnlineLabelSmoothingLoss(4)(reinterpret(Float16, collect(bits)), y) == OnlineLabelSmoothingLoss(4)(Float16.(ŷ), y)
    @test O.BFloat16(1.0f0) === reinterpret(O.BFloat16, 0x3f80) && isnan(Float32(O.BFloat16(NaN32)))
    @test Float32(O.BFloat16(1.00390625f0)) == 1.0f0 && Float32(O.BFloat16(1.01171875f0)) == 1.015625f0 # ties to even
    @test Float32(O.BFloat16(-Inf32)) == -Inf32 && Float64(O.BFloat16(0.5)) == 0.5 && repr(O.BFloat16(2)) == "BFloat16(2.0)"
    @test Float32(O.BFloat16(1.00390625 + 2.0^-40)) == 1.0078125f0 && Float32(O.BFloat16(-1.00390625 - 2.0^-40)) == -1.0078125f0 # just above a tie
    @test Float32(O.BFloat16(2^30 + 2^22 + 1)) == 2.0f0^30 + 2.0f0^23 && Float32(O.BFloat16(1e39)) == Inf32 && Float32(O.BFloat16(5e-324)) == 0
    @test O.BFloat16(0.5) + 1.0f0 === 1.5f0 && [O.BFloat16(1), 2.0] == [1.0, 2.0]
end

@testset "r18 labels count from 1" begin
    ŷ = Float32[9 0 0 0; 0 9 0 9; 0 0 9 0]
    loss = OnlineLabelSmoothingLoss(3; ignore_index = 2)
    loss(ŷ, [1, 2, 3, 1])
    @test statistics(loss).counts == [1, 0, 1]
    # Messages and the ignore index use the labels as given.
    @test occursin("target[2] = 0 is outside [1, 4) and is not ignore_index (2)", error_of(() -> loss(ŷ, [1, 2, 0, 1])).message)
    from_zero = OnlineLabelSmoothingLoss(3; target_offset = 0)
    @test from_zero(ŷ, [0, 1, 2, 0]) == OnlineLabelSmoothingLoss(3)(ŷ, [1, 2, 3, 1])
    @test occursin("target[0] = 3 is outside [0, 3)", error_of(() -> from_zero(ŷ, [3, 0, 0, 0])).message)
    @test OnlineLabelSmoothingLoss(3)(ŷ, [10, 11, 12, 10]; target_offset = 10) == OnlineLabelSmoothingLoss(3)(ŷ, [1, 2, 3, 1])
    # One-hot arrays equal the labels, also with an ignore index and other offsets.
    for (one_hot, type) in [(Bool[1 0 0 1; 0 1 0 0; 0 0 1 0], Bool), (Float32[1 0 0 1; 0 1 0 0; 0 0 1 0], Float32), (BitMatrix([1 0 0 1; 0 1 0 0; 0 0 1 0]), Bool)]
        @test OnlineLabelSmoothingLoss(3)(ŷ, one_hot) == OnlineLabelSmoothingLoss(3)(ŷ, [1, 2, 3, 1])
        @test OnlineLabelSmoothingLoss(3; ignore_index = 2)(ŷ, one_hot) == OnlineLabelSmoothingLoss(3; ignore_index = 2)(ŷ, [1, 2, 3, 1])
        @test from_zero(ŷ, one_hot; update = :none) == OnlineLabelSmoothingLoss(3)(ŷ, [1, 2, 3, 1])
    end
    images = randn(MersenneTwister(12), Float32, 2, 3, 4, 5)
    marks = rand(MersenneTwister(13), 1:4, 2, 3, 5)
    hot = [marks[i, j, n] == k for i in 1:2, j in 1:3, k in 1:4, n in 1:5]
    none = OnlineLabelSmoothingLoss(4; reduction = :none)
    @test none(images, hot) == none(images, marks)
    second = circshift(marks, (0, 0, 1))
    @test none(images, hot; targets2 = circshift(hot, (0, 0, 0, 1)), lam = 0.25) == none(images, marks; targets2 = second, lam = 0.25)
end

@testset "r19 empty batches" begin
    for type in [Float32, Float64, Float16]
        @test OnlineLabelSmoothingLoss(3)(zeros(type, 3, 0), Int[]) === (type === Float64 ? 0.0 : 0.0f0)
        value, grad = loss_and_gradient(OnlineLabelSmoothingLoss(3; reduction = :none), zeros(type, 3, 0), Int[])
        @test size(value) == (0,) && size(grad) == (3, 0)
    end
    @test OnlineLabelSmoothingLoss(3)(zeros(Float32, 0, 2, 3, 4), zeros(Int, 0, 2, 4)) === 0.0f0
    @test OnlineLabelSmoothingLoss(3)(zeros(Float32, 3, 0), falses(3, 0)) === 0.0f0
    ccall(O.FUNCTIONS[].ols_destroy, Cvoid, (Ptr{Cvoid},), C_NULL)
    # Only the statistics.
    loss = OnlineLabelSmoothingLoss(3)
    @test O.forward!(loss, Float32[1 0; 0 1; 0 0], [1, 2]) === nothing
    @test statistics(loss).counts == [1, 1, 0]
end

@testset "r20 in place only on request" begin
    ŷ = randn(MersenneTwister(14), Float32, 5, 7)
    y = rand(MersenneTwister(15), 1:5, 7)
    kept = copy(ŷ)
    loss, other = OnlineLabelSmoothingLoss(5), OnlineLabelSmoothingLoss(5)
    value, grad = loss_and_gradient(other, ŷ, y)
    @test ŷ == kept
    @test loss_and_gradient!(ŷ, loss, ŷ, y) == value && ŷ == grad
    @test O.backward!(kept, loss, kept, y) === kept && kept == grad
    # The library rejects other overlaps.
    block = rand(Float32, 5, 8)
    found = error_of(() -> loss_and_gradient!(view(block, :, 2:8), loss, view(block, :, 1:7), y))
    @test found isa OLSError && found.code == O.OLS_STATUS_INVALID_ARGUMENT && occursin("overlap", found.message)
    @test error_of(() -> loss_and_gradient!(soft_labels(loss), loss, rand(Float32, 5, 5), y[1:5])) isa OLSError
end
