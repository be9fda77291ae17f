# R22 and R24: options, modes, epochs; and some results compared with a plain implementation.

# The loss in plain Float64, with one column per class in S.
function by_hand(ŷ, y, S; alpha = 0.5)
    z = Float64.(ŷ)
    logp = z .- log.(sum(exp.(z .- maximum(z; dims = 1)); dims = 1)) .- maximum(z; dims = 1)
    q = [alpha * (k == y[n]) + (1 - alpha) * S[k, y[n]] for k in axes(z, 1), n in axes(z, 2)]
    return -sum(q .* logp) / length(y), (sum(q; dims = 1) .* exp.(logp) .- q) ./ length(y)
end

@testset "r22 names and defaults" begin
    usual = O.default_options()
    found = O.options(OnlineLabelSmoothingLoss(7))
    for field in (:alpha, :smoothing, :momentum, :freeze_above, :min_count, :ignore_index)
        @test isequal(found[field], getfield(usual, field))
    end
    @test (found.initial, found.empty_class, found.reduction, found.mode, found.device) == (:smoothing, :keep, :mean, :train, :cpu)
    @test found.class_weights === nothing && found.initial_soft_labels === nothing && found.target_offset == 1
    given = (
        alpha = 0.25, smoothing = 0.2, momentum = 0.5, freeze_above = 0.95, min_count = 3, ignore_index = -1, initial = :smoothing, empty_class = :uniform,
        reduction = :sum, mode = :eval, n_threads = 2, target_offset = 0,
    )
    kept = O.options(OnlineLabelSmoothingLoss(7; class_weights = collect(1.0f0:7.0f0), given...))
    @test all(kept[name] == value for (name, value) in pairs(given))
    @test kept.class_weights == 1:7
    matrix = rand(MersenneTwister(1), Float32, 7, 7)
    loss = OnlineLabelSmoothingLoss(7; initial_soft_labels = matrix)
    @test O.options(loss).initial == :matrix && O.options(loss).initial_soft_labels == matrix && soft_labels(loss) == matrix
    @test soft_labels(OnlineLabelSmoothingLoss(7; initial_soft_labels = Float64.(matrix)')) == matrix'
    # The options have the names of the library's fields.
    @test issubset(keys(found), (fieldnames(O.ols_options_t)..., :device, :target_offset))
    paper = O.options(OnlineLabelSmoothingLoss(5; preset = :paper))
    @test (paper.initial, paper.empty_class) == (:zero, :uniform)
    @test O.options(OnlineLabelSmoothingLoss(5; preset = :reference)).empty_class == :zero
    @test O.options(OnlineLabelSmoothingLoss(5; preset = :paper, empty_class = :keep)).empty_class == :keep
    @test_throws MethodError OnlineLabelSmoothingLoss(; alpha = 1)
    @test_throws MethodError OnlineLabelSmoothingLoss(3; smothing = 0.1)
end

@testset "r22 modes" begin
    ŷ, y = Float32[2 0; 0 2; 0 0], [1, 2]
    loss = OnlineLabelSmoothingLoss(3; mode = :eval)
    @test !O.istraining(loss)
    loss(ŷ, y)
    @test report(loss).running_samples_accumulated == 0
    @test O.trainmode!(loss) === loss && O.istraining(loss)
    loss(ŷ, y)
    @test report(loss).running_samples_accumulated == 2
    O.testmode!(loss)
    @test !O.istraining(loss)
    O.testmode!(loss, false)
    @test O.istraining(loss)
    O.trainmode!(loss, false)
    @test !O.istraining(loss)
end

@testset "numbers by hand" begin
    ŷ = randn(MersenneTwister(2), Float32, 4, 9)
    y = rand(MersenneTwister(3), 1:4, 9)
    # Columns with different sums, so that a transposed matrix would be noticed.
    S = rand(MersenneTwister(4), Float32, 4, 4) .* Float32[1 2 3 4]
    loss = OnlineLabelSmoothingLoss(4; alpha = 0.3, initial_soft_labels = S)
    value, grad = loss_and_gradient(loss, ŷ, y)
    expected, slope = by_hand(ŷ, y, S; alpha = 0.3)
    @test isapprox(value, expected; rtol = 1e-6) && isapprox(grad, slope; atol = 1e-6)
    # Column y of the sums is the sum of the softmax of the correctly classified samples of class y.
    p = exp.(Float64.(ŷ)) ./ sum(exp.(Float64.(ŷ)); dims = 1)
    right = [n for n in 1:9 if argmax(ŷ[:, n]) == y[n]]
    @test !isempty(right)
    A, c, counters = statistics(loss)
    for j in 1:4
        members = filter(n -> y[n] == j, right)
        @test c[j] == length(members)
        @test isapprox(A[:, j] ./ 2.0^30, sum([zeros(4), (p[:, n] for n in members)...]); atol = 1e-6)
    end
    @test counters == zeros(Int, 4)
    O.accumulate_probabilities!(loss, Float32[0.7 0.2; 0.1 0.3; 0.1 0.4; 0.1 0.1], [1, 3])
    @test sum(c) == length(right) + 2
    before = copy(A)
    loss(ŷ, y; update = :none)
    @test A == before
    loss(ŷ, y)
    loss(ŷ, y; update = :take_back)
    @test A == before
    # A row that is not finite is counted and skipped.
    @test isnan(loss(hcat(ŷ, fill(NaN32, 4)), vcat(y, 1); update = :add))
    @test counters[1] == 1 && report(loss).running_samples_skipped == 1
end

@testset "r24 the end of an epoch" begin
    ŷ, y = Float32[3 0 1; 0 3 1; 0 0 1], [1, 2, 3]
    loss = OnlineLabelSmoothingLoss(3)
    first_labels = copy(soft_labels(loss))
    @test isapprox(first_labels, [0.9 0.05 0.05; 0.05 0.9 0.05; 0.05 0.05 0.9]; atol = 1e-7)
    loss(ŷ, y)
    @test O.epoch(loss) == 0 && soft_labels(loss) == first_labels
    S = soft_labels(loss)
    @test next_epoch!(loss) === loss
    @test S === soft_labels(loss) && O.epoch(loss) == 1
    p = exp.([3, 0, 0]) ./ sum(exp.([3, 0, 0]))
    @test isapprox(S[:, 1], p; atol = 1e-6) && isapprox(S[:, 2], p[[2, 1, 3]]; atol = 1e-6) && S[:, 3] == first_labels[:, 3]
    happened = report(loss)
    @test (happened.epoch, happened.rows_measured, happened.rows_kept, happened.samples_accumulated, happened.running_epoch) == (1, 2, 1, 2, 2)
    @test all(iszero, statistics(loss).sums)
    O.set_alpha!(loss, 1)
    @test isapprox(loss(ŷ, y), by_hand(ŷ, y, S; alpha = 1)[1]; rtol = 1e-6)
    O.set_epoch!(loss, 41)
    @test O.epoch(loss) == 41
    @test O.set_soft_labels!(loss, [1.0 0 0; 0 1 0; 0.5 0 1]) === loss && S == Float32[1 0 0; 0 1 0; 0.5 0 1]
    @test O.set_soft_labels!(loss, [1.0 0 0.5; 0 1 0; 0 0 1]') === loss && S == Float32[1 0 0; 0 1 0; 0.5 0 1]
end

@testset "show" begin
    loss = OnlineLabelSmoothingLoss(3)
    @test repr(loss) == "OnlineLabelSmoothingLoss(3)"
    other = OnlineLabelSmoothingLoss(3; alpha = 0.25, reduction = :none, initial = :uniform, class_weights = ones(3), mode = :eval)
    @test repr(other) == "OnlineLabelSmoothingLoss(3; initial = :uniform, reduction = :none, alpha = 0.25, class_weights = …)"
    loss(Float32[2 0; 0 2; 0 NaN], [1, 2])
    next_epoch!(loss)
    loss(Float32[2 0; 0 2; 0 NaN], [1, 2])
    text = sprint(show, MIME("text/plain"), loss)
    @test occursin("training mode, 1 epoch completed, 1 sample counted in the current epoch, 1 not finite", text) && occursin("libols 0.1.0", text)
    @test occursin("evaluation mode, 0 epochs", sprint(show, MIME("text/plain"), other))
end
