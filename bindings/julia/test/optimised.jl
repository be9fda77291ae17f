# A call allocates nothing except what it returns. Run by allocations.jl.
using OnlineLabelSmoothing, Random, Test
const O = OnlineLabelSmoothing

function calls(loss, grad, ŷ, y, w, n)
    total = 0.0
    for _ in 1:n
        total += loss(ŷ, y)
        total += loss_and_gradient!(grad, loss, ŷ, y; sample_weights = w, targets2 = y, lam = 0.3, grad_loss = 2)
        total += loss_and_gradient!(ŷ, loss, ŷ, y; update = :none)
        OnlineLabelSmoothing.backward!(grad, loss, ŷ, y)
    end
    return total
end

function writes(loss, value, grad, ŷ, y, n)
    for _ in 1:n
        OnlineLabelSmoothing.forward!(loss, ŷ, y; value = value, grad = grad)
    end
    return nothing
end

bytes_of(f, arguments...) = (f(arguments..., 1); minimum([@allocated(f(arguments..., 50)) - @allocated(f(arguments..., 1)) for _ in 1:3]))

@testset "no allocation per call" begin
    y = rand(MersenneTwister(1), 1:10, 128)
    for type in (Float32, Float64, Float16, O.BFloat16)
        ŷ = type.(randn(MersenneTwister(2), 10, 128))
        wide = type.(randn(MersenneTwister(3), 20, 256))
        for logits in (ŷ, view(wide, 1:2:20, 1:2:256))
            grad, loss = copy(logits), OnlineLabelSmoothingLoss(10)
            @test bytes_of(calls, loss, grad, logits, y, rand(Float32, 128)) == 0
            @test bytes_of(writes, OnlineLabelSmoothingLoss(10; reduction = :none), zeros(type === Float64 ? Float64 : Float32, 128), grad, logits, y) == 0
            @test bytes_of(writes, loss, Ref(type === Float64 ? 0.0 : 0.0f0), grad, logits, y) == 0
        end
        images, marks = type.(randn(MersenneTwister(4), 4, 4, 10, 8)), reshape(y, 4, 4, 8)
        @test bytes_of(calls, OnlineLabelSmoothingLoss(10), similar(images), images, marks, rand(Float32, 4, 4, 8)) == 0
    end
end
