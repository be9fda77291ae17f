# Data-parallel training with the Distributed standard library. Each worker has its own criterion and counts its share
# of every batch; at the end of an epoch their statistics are summed. These are integers, so the soft labels are those
# of a single process that has seen every batch, bit for bit.
#
#     julia --project=bindings/julia examples/julia/data_parallel.jl [WORKERS] [EPOCHS]
#
# Trains twice, in this process alone and with the workers, and compares the results.
using Distributed

const WORKERS = parse(Int, get(ARGS, 1, "2"))
const EPOCHS = parse(Int, get(ARGS, 2, "3"))

addprocs(WORKERS; exeflags = "--project=$(Base.active_project())")

@everywhere begin
    using LinearAlgebra, OnlineLabelSmoothing

    # The order of summation in a matrix product depends on the number of threads.
    BLAS.set_num_threads(1)

    include($(joinpath(@__DIR__, "data.jl")))
    include($(joinpath(@__DIR__, "network.jl")))

    const CLASSES = 10
    const IMAGES = read_digits()
    const LOSS = OnlineLabelSmoothingLoss(CLASSES; reduction = :sum)
    const START = OnlineLabelSmoothing.saved(LOSS)

    begin_training() = (OnlineLabelSmoothing.load!(LOSS, START); nothing)

    # The gradient of the losses of some images, which are also counted.
    function share_gradient(network, share)
        layers = activations(network, IMAGES.pixels[:, share])
        _, by_logits = loss_and_gradient(LOSS, layers[end], IMAGES.labels[share])
        return gradient(network, layers, by_logits)
    end

    counted() = map(copy, statistics(LOSS))

    # Ends the epoch with the statistics of all workers.
    function end_epoch(total)
        for (name, numbers) in pairs(statistics(LOSS))
            numbers .= total[name]
        end
        next_epoch!(LOSS)
        return nothing
    end

    learned() = copy(soft_labels(LOSS))
end

# Each batch has the same four shares for any number of processes, so that the weights are bitwise identical as well.
const SHARES = 4

function train(processes)
    foreach(process -> remotecall_wait(begin_training, process), processes)
    network = Network([64, 64, CLASSES], MersenneTwister(0))
    velocities = [zero(value) for value in parameters(network)]
    for epoch in 1:EPOCHS
        order = shuffle(MersenneTwister(epoch), 1:length(IMAGES))
        for batch in Iterators.partition(order, 128)
            shares = collect(Iterators.partition(batch, cld(length(batch), SHARES)))
            parts = [remotecall(share_gradient, processes[mod1(n, end)], network, share) for (n, share) in enumerate(shares)]
            mean_gradient = sum(fetch.(parts)) ./ Float32(length(batch))
            step!(network, velocities, mean_gradient, 0.05, 0.001)
        end
        found = [remotecall_fetch(counted, process) for process in processes]
        total = (sums = sum(s.sums for s in found), counts = sum(s.counts for s in found), counters = sum(s.counters for s in found))
        println(length(processes), " process(es), epoch $epoch: ", sum(total.counts), " of $(length(IMAGES)) images were classified right and counted")
        foreach(process -> remotecall_wait(end_epoch, process, total), processes)
    end
    return [remotecall_fetch(learned, process) for process in processes], parameters(network)
end

(alone,), weights = train([myid()])
together, other_weights = train(workers())
same = all(==(alone), together) && weights == other_weights
println(same ? "the soft labels of all $WORKERS workers are those of one process, bit for bit" : "the soft labels differ")
exit(same ? 0 : 1)
