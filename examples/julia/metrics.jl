# Metrics of predictions.

function probabilities(logits)
    powers = exp.(logits .- maximum(logits; dims = 1))
    return powers ./ sum(powers; dims = 1)
end

predictions(p) = [argmax(view(p, :, n)) for n in axes(p, 2)]
accuracy(p, labels) = count(predictions(p) .== labels) / length(labels)

# Negative log-likelihood in nats. A probability that has underflowed is replaced by the smallest normal number, so that
# a single image cannot make the mean infinite.
likelihood_loss(p, labels) = -sum(log(Float64(max(p[label, n], floatmin(Float32)))) for (n, label) in enumerate(labels)) / length(labels)

# Expected calibration error with bins of equal width (Guo et al. 2017): the mean gap between confidence and accuracy,
# weighted by the number of predictions in each bin.
function calibration_error(p, labels; bins = 15)
    gaps = zeros(bins)
    for (n, class) in enumerate(predictions(p))
        confidence = p[class, n]
        gaps[min(bins, 1 + floor(Int, confidence * bins))] += confidence - (class == labels[n])
    end
    return sum(abs, gaps) / length(labels)
end
