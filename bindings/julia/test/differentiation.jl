# R23: gradients.

@testset "r23 the pullback" begin
    ŷ = randn(MersenneTwister(1), Float64, 4, 6)
    y = rand(MersenneTwister(2), 1:4, 6)
    keywords = (sample_weights = rand(MersenneTwister(3), 6), targets2 = rand(MersenneTwister(4), 1:4, 6), lam = 0.3)
    for reduction in (:mean, :sum, :none)
        loss = OnlineLabelSmoothingLoss(4; reduction = reduction, class_weights = [1.0, 0.5, 2.0, 1.5], alpha = 0.4)
        value, pullback = O.loss_and_pullback(loss, ŷ, y; keywords...)
        counted = copy(statistics(loss).counts)
        grad_loss = reduction === :none ? rand(MersenneTwister(5), 6) : 0.7
        grad = pullback(grad_loss)
        # Compared with central differences of the loss.
        total(z) = sum(loss(z, y; update = :none, keywords...) .* grad_loss)
        step = 1e-6
        for place in eachindex(ŷ)
            up, down = copy(ŷ), copy(ŷ)
            up[place] += step
            down[place] -= step
            @test isapprox(grad[place], (total(up) - total(down)) / 2step; atol = 1e-8)
        end
        @test grad == O.backward!(similar(ŷ), loss, ŷ, y; grad_loss = grad_loss, keywords...)
        @test value == loss(ŷ, y; update = :none, keywords...)
        # The second pass did not count the batch again.
        @test statistics(loss).counts == counted
    end
end

@testset "r23 second pullbacks, other gradients" begin
    ŷ, y = randn(MersenneTwister(6), Float32, 4, 6), rand(MersenneTwister(7), 1:4, 6)
    loss = OnlineLabelSmoothingLoss(4)
    expected = loss_and_gradient(copy(loss), ŷ, y)[2]
    value, pullback = O.loss_and_pullback(loss, ŷ, y)
    first_grad = pullback(1.0f0)
    @test first_grad == expected
    fill!(first_grad, 7)
    @test pullback(1.0f0) == expected && pullback(1) == expected
    @test isapprox(pullback(2.0), 2 .* expected; rtol = 1e-6)
    # A loss scale keeps small 16-bit gradients from underflowing, because it is applied before the rounding.
    tiny = Float16.(randn(MersenneTwister(8), 4, 6))
    scale = 2.0^-20
    _, small = O.loss_and_pullback(loss, tiny, y; update = :none)
    @test maximum(abs.(small(scale))) > 0
    _, large = O.loss_and_pullback(loss, tiny, y; update = :none, grad_loss = 1024)
    for _ in 1:2
        @test isapprox(large(1), 1024 .* small(1); rtol = 2^-10)
    end
    @test isapprox(large(0.5), 512 .* small(1); rtol = 2^-10)
    # Upstream gradients of the types that automatic differentiation passes.
    none = OnlineLabelSmoothingLoss(4; reduction = :none)
    wanted = O.backward!(similar(ŷ), none, ŷ, y; grad_loss = fill(0.5f0, 6))
    _, each = O.loss_and_pullback(none, ŷ, y)
    for grad_loss in (0.5, fill(0.5f0, 6), fill(0.5, 6), fill(Float16(0.5), 6), range(0.5; stop = 0.5, length = 6), view(fill(0.5f0, 12), 1:2:12))
        @test each(grad_loss) == wanted
    end
    _, ones_too = O.loss_and_pullback(none, ŷ, y)
    @test ones_too(ones(Float32, 6)) == O.backward!(similar(ŷ), none, ŷ, y)
    # A batch that is taken back is not taken back again.
    before = copy(statistics(loss).counts)
    O.loss_and_pullback(loss, ŷ, y)[2](2)
    O.loss_and_pullback(loss, ŷ, y; update = :take_back)[2](2)
    @test statistics(loss).counts == before
end
