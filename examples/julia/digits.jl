# Trains a small network with cross entropy, label smoothing and online label smoothing, with clean and with wrong
# labels, and prints a comparison.
#
#     julia --project=bindings/julia examples/julia/digits.jl [--data DIR] [--epochs N] [--train N] [--seed N] [--noise SHARE]
#
# OnlineLabelSmoothing.jl must be able to find libols: installed, or named by OLS_LIBRARY.
using OnlineLabelSmoothing
using LinearAlgebra, Printf, Random

include("data.jl")
include("network.jl")
include("metrics.jl")

const USAGE = """
    usage: digits.jl [--data DIR] [--epochs N] [--train N] [--seed N] [--noise SHARE]

      --data DIR     folder of the MNIST family's IDX files, gzipped or not [the UCI digits that come with libols]
      --epochs N     epochs of every run [100]
      --train N      training images; a sixth as many validate and a third as many test [all; 3000 with --data]
      --seed N       the split, first weights, batches and wrong labels, which the runs share [0]
      --noise SHARE  share of wrong labels in the second half of the table [0.4]
    """

const SETTINGS = (batch = 32, hidden = 128, learning_rate = 0.05, weight_decay = 0.001)

# All three losses are the same criterion with different options. The first two learn no soft labels: they are in
# evaluation mode, and their epochs never end.
const LOSSES = [
    ("cross entropy", (alpha = 1, mode = :eval)),
    ("label smoothing", (alpha = 0.9, initial = :uniform, mode = :eval)),
    ("online label smoothing", (alpha = 0.5, smoothing = 0.1)),
]

function train(options, training, labels, validation, validation_labels, test, classes, epochs, seed)
    network = Network([size(training.pixels, 1), SETTINGS.hidden, SETTINGS.hidden, classes], MersenneTwister(seed))
    velocities = [zero(value) for value in parameters(network)]
    steps = epochs * cld(length(training), SETTINGS.batch)
    step, best_validation, early = 0, -1.0, 0.0
    loss = OnlineLabelSmoothingLoss(classes; options...)
    for epoch in 1:epochs
        order = shuffle(MersenneTwister(1000 * seed + epoch), 1:length(training))
        for batch in Iterators.partition(order, SETTINGS.batch)
            layers = activations(network, training.pixels[:, batch])
            _, by_logits = loss_and_gradient(loss, layers[end], labels[batch])
            step!(network, velocities, gradient(network, layers, by_logits), cosine(SETTINGS.learning_rate, step, steps), SETTINGS.weight_decay)
            step += 1
        end
        OnlineLabelSmoothing.istraining(loss) && next_epoch!(loss)
        by_validation = accuracy(probabilities(logits(network, validation.pixels)), validation_labels)
        if by_validation > best_validation
            best_validation, early = by_validation, accuracy(probabilities(logits(network, test.pixels)), test.labels)
        end
    end
    close(loss)
    p, own = probabilities(logits(network, test.pixels)), probabilities(logits(network, training.pixels))
    wrong = labels .!= training.labels
    return (
        test_accuracy = accuracy(p, test.labels),
        test_nll = likelihood_loss(p, test.labels),
        test_ece = calibration_error(p, test.labels),
        early_stopped = early,
        train_accuracy = accuracy(own, labels),
        wrong_learned = any(wrong) ? count(predictions(own)[wrong] .== labels[wrong]) / count(wrong) : nothing,
    )
end

function main(arguments)
    given = Dict{String,String}()
    names = ("--data", "--epochs", "--train", "--seed", "--noise")
    while !isempty(arguments)
        name = popfirst!(arguments)
        name == "--help" && return print(USAGE)
        name in names && !isempty(arguments) || (print(stderr, USAGE); exit(2))
        given[name] = popfirst!(arguments)
    end
    folder = get(given, "--data", nothing)
    epochs, seed, noise = parse(Int, get(given, "--epochs", "100")), parse(Int, get(given, "--seed", "0")), parse(Float64, get(given, "--noise", "0.4"))
    epochs >= 1 && 0 <= noise <= 1 || error("--epochs has to be at least 1, and --noise in [0, 1]")
    name, images, apart = read_data(folder)
    training, validation, test = split_data(images, apart, parse(Int, get(given, "--train", folder === nothing ? "1000000" : "3000")), seed)
    classes = maximum([images.labels; apart === nothing ? Int[] : apart.labels])

    println("$name: $(length(training)) training, $(length(validation)) validation and $(length(test)) test images; seed $seed, $epochs epochs")
    header = ["Training labels", "Loss", "Test accuracy %", "Test NLL (nats)", "Test ECE %", "Test accuracy % stopped early", "Training accuracy %", "Wrong labels learned %"]
    println("| ", join(header, " | "), " |")
    println("|---|---", "|---:"^6, "|")
    for share in (0.0, noise)
        labels = with_wrong_labels(training.labels, classes, share, MersenneTwister(seed + 1))
        validation_labels = with_wrong_labels(validation.labels, classes, share, MersenneTwister(seed + 2))
        for (loss, options) in LOSSES
            result = train(options, training, labels, validation, validation_labels, test, classes, epochs, seed)
            percent(value) = value === nothing ? "–" : @sprintf("%.1f", 100 * value)
            kind = share == 0 ? "clean labels" : @sprintf("%g %% wrong labels", 100 * share)
            println("| ", join([kind, loss, percent(result.test_accuracy), @sprintf("%.3f", result.test_nll), percent(result.test_ece),
                percent(result.early_stopped), percent(result.train_accuracy), percent(result.wrong_learned)], " | "), " |")
        end
    end
    return nothing
end

main(copy(ARGS))
