# R25 and R26: saved state, and views.

const ROUND_TRIP = joinpath(PACKAGE, "test", "round_trip.jl")

function trained(; epochs = 2, keywords...)
    loss = OnlineLabelSmoothingLoss(5; keywords...)
    for epoch in 1:epochs, batch in 1:3
        generator = MersenneTwister(10 * epoch + batch)
        loss(3 .* randn(generator, Float32, 5, 20), rand(generator, 1:5, 20))
        batch == 3 && epoch < epochs && next_epoch!(loss)
    end
    return loss
end

@testset "r25 a saved run continues bitwise identically" begin
    mktempdir() do folder
        loss = trained(; alpha = 0.3, momentum = 0.25, empty_class = :uniform, ignore_index = 3, class_weights = collect(1.0:5.0))
        path = joinpath(folder, "grüße.safetensors")
        O.save(path, loss)
        @test read(path) == O.saved(loss)
        other = O.load(path, 5; mode = :eval, reduction = :sum)
        @test O.saved(other) == O.saved(loss) && O.epoch(other) == 1
        found = O.options(other)
        @test (found.alpha, found.momentum, found.empty_class, found.ignore_index) == (0.3, 0.25, :uniform, 3)
        @test (found.mode, found.reduction) == (:eval, :sum)
        O.trainmode!(other)
        again = O.load!(OnlineLabelSmoothingLoss(5), read(path))
        ŷ, y = randn(MersenneTwister(1), Float32, 5, 20), rand(MersenneTwister(2), 1:5, 20)
        for criterion in (loss, other, again)
            criterion(ŷ, y)
            next_epoch!(criterion)
        end
        @test O.saved(other) == O.saved(loss) == O.saved(again)
        @test loss(ŷ, y) == again(ŷ, y)
        # Corrupted data and another number of classes are errors that change nothing.
        bytes = read(path)
        before = O.saved(loss)
        for place in (20, length(bytes) ÷ 2, length(bytes))
            damaged = copy(bytes)
            damaged[place] ⊻= 0x10
            @test error_of(() -> O.load!(loss, damaged)).code == O.OLS_STATUS_INVALID_FILE
        end
        @test error_of(() -> O.load!(loss, bytes[1:(end - 1)])).code == O.OLS_STATUS_INVALID_FILE
        @test error_of(() -> O.load(path, 6)).code == O.OLS_STATUS_INVALID_ARGUMENT
        @test O.saved(loss) == before
    end
end

# A C program that loads a state, prints S and saves it again.
const C_ROUND_TRIP = """
    #include <ols.h>
    #include <stdio.h>
    int main(int argc, char **argv) {
        ols_options_t options;
        ols_criterion_t *criterion;
        ols_tensor_t S;
        int64_t epoch;
        ols_options_init(&options, sizeof options);
        options.num_classes = 5;
        if (argc != 3 || ols_create(&options, &criterion) || ols_load(criterion, argv[1], NULL) || ols_soft_labels(criterion, &S) || ols_epoch(criterion, &epoch)) return 1;
        printf("%lld", (long long)epoch);
        for (int i = 0; i < 25; i++) printf(" %a", ((float *)S.data)[i / 5 * S.strides[0] + i % 5]);
        if (ols_save(criterion, argv[2], NULL)) return 2;
        ols_destroy(criterion);
        return 0;
    }
    """

@testset "r25 to C and back, and the program for the ring of languages" begin
    mktempdir() do folder
        path(name) = joinpath(folder, name)
        write(path("c.c"), C_ROUND_TRIP)
        library = dirname(O.library().path)
        run(`$(compiler()) -std=c99 -I$(dirname(HEADER)) $(path("c.c")) -L$library -lols -Wl,-rpath,$library -o $(path("c"))`)
        loss = trained(; epochs = 3, initial_soft_labels = rand(MersenneTwister(1), Float32, 5, 5))
        O.save(path("julia"), loss)
        words = split(read(`$(path("c")) $(path("julia")) $(path("from_c"))`, String))
        @test parse(Int, words[1]) == O.epoch(loss)
        # One row per class in C is one column per class here.
        @test parse.(Float32, words[2:end]) == vec(soft_labels(loss))
        @test read(path("from_c")) == read(path("julia"))
        back = O.load(path("from_c"), 5)
        @test statistics(back) == statistics(loss) && soft_labels(back) == soft_labels(loss)
        # The program that tests/ring/run calls.
        @test success(`$(Base.julia_cmd()) --startup-file=no --project=$PACKAGE $ROUND_TRIP $(path("from_c")) $(path("again"))`)
        @test read(path("again")) == read(path("julia"))
        write(path("damaged"), read(path("julia"))[1:(end - 3)])
        @test !success(pipeline(`$(Base.julia_cmd()) --startup-file=no --project=$PACKAGE $ROUND_TRIP $(path("damaged")) $(path("never"))`; stderr = devnull))
        @test !isfile(path("never"))
    end
end

# The library's views of the state.
view_of(loss, name) = (view = Ref(O.NOT_GIVEN); O.call(handle -> ccall(getfield(O.FUNCTIONS[], name), Int32, (Ptr{Cvoid}, Ref{O.ols_tensor_t}), handle, view), loss); view[])
function statistics_of(loss)
    views = Ref(O.ols_statistics_t(sizeof(O.ols_statistics_t), O.NOT_GIVEN, O.NOT_GIVEN, O.NOT_GIVEN))
    O.call(handle -> ccall(O.FUNCTIONS[].ols_statistics, Int32, (Ptr{Cvoid}, Ref{O.ols_statistics_t}), handle, views), loss)
    return views[]
end

@testset "r26 views are views" begin
    loss = trained()
    S, (sums, counts, counters) = soft_labels(loss), statistics(loss)
    @test pointer(S) == Ptr{Float32}(view_of(loss, :ols_soft_labels).data)
    seen = statistics_of(loss)
    @test (UInt(pointer(sums)), UInt(pointer(counts)), UInt(pointer(counters))) == (UInt(seen.sums.data), UInt(seen.counts.data), UInt(seen.counters.data))
    @test size(sums) == (5, 5) && size(counts) == (5,) && size(counters) == (O.OLS_COUNTERS,)
    # Writing to them changes the state.
    S[2, 3] = 0.125f0
    counts[1] += 1
    other = O.load!(OnlineLabelSmoothingLoss(5), O.saved(loss))
    @test soft_labels(other)[2, 3] == 0.125f0 && statistics(other).counts[1] == counts[1]
    # Memory of the caller, among it a part of a larger array.
    block, all_sums = zeros(Float32, 8, 5), zeros(Int64, 5, 5)
    mine = OnlineLabelSmoothingLoss(5; soft_labels = view(block, 1:5, :), sums = all_sums)
    @test block[1, 1] == 0.9f0 && all(iszero, block[6:8, :])
    ŷ, y = 3 .* randn(MersenneTwister(5), Float32, 5, 20), rand(MersenneTwister(6), 1:5, 20)
    mine(ŷ, y)
    @test any(!iszero, all_sums)
    adopted = OnlineLabelSmoothingLoss(5; soft_labels = copy(soft_labels(mine)), sums = copy(all_sums), counts = copy(statistics(mine).counts), counters = zeros(Int64, 4), adopt_state = true)
    @test O.saved(adopted) == O.saved(mine)
    # With a part of the memory, the rest is initialised as usual. Before, memory of the same sizes is filled with other
    # numbers and freed, so that new arrays are likely to contain them.
    for _ in 1:20
        foreach(shape -> fill(Int64(7), shape), ((5, 5), (5,), (4,), (5, 5), (5,), (4,)))
        GC.gc(false)
        partly = OnlineLabelSmoothingLoss(5; soft_labels = copy(soft_labels(mine)), adopt_state = true)
        @test soft_labels(partly) == soft_labels(mine) && all(all.(iszero, values(statistics(partly))))
        foreach(_ -> fill(7.0f0, 5, 5), 1:4)
        counted = OnlineLabelSmoothingLoss(5; sums = copy(all_sums), counts = copy(statistics(mine).counts), smoothing = 0.2, adopt_state = true)
        @test soft_labels(counted) == soft_labels(OnlineLabelSmoothingLoss(5; smoothing = 0.2)) && statistics(counted) == statistics(mine)
    end
    @test occursin("no state memory is given", error_of(() -> OnlineLabelSmoothingLoss(5; adopt_state = true)).message)
    next_epoch!(adopted), next_epoch!(mine)
    @test soft_labels(adopted) == soft_labels(mine) == block[1:5, :]
end

@testset "r26 an all-reduce by hand" begin
    batches = [(3 .* randn(MersenneTwister(n), Float32, 5, 11 + n), rand(MersenneTwister(50 + n), 1:5, 11 + n)) for n in 1:6]
    alone = OnlineLabelSmoothingLoss(5)
    workers = [OnlineLabelSmoothingLoss(5) for _ in 1:3]
    for (n, batch) in enumerate(batches)
        alone(batch...)
        workers[n % 3 + 1](batch...)
    end
    for name in (:sums, :counts, :counters)
        total = sum(statistics(worker)[name] for worker in workers)
        foreach(worker -> statistics(worker)[name] .= total, workers)
    end
    foreach(next_epoch!, [alone; workers])
    @test all(soft_labels(worker) == soft_labels(alone) for worker in workers)
    @test all(O.saved(worker) == O.saved(alone) for worker in workers)
end
