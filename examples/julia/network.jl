# A multilayer perceptron with ReLU, its gradient, and stochastic gradient descent with momentum.

using Random

struct Network
    weights::Vector{Matrix{Float32}} # (outputs, inputs)
    biases::Vector{Vector{Float32}}
end

# Weights from He's normal distribution (He et al. 2015): variance 2 / inputs.
function Network(sizes::Vector{Int}, generator)
    pairs = zip(sizes[1:(end - 1)], sizes[2:end])
    return Network([randn(generator, Float32, outputs, inputs) .* sqrt(2.0f0 / inputs) for (inputs, outputs) in pairs], [zeros(Float32, outputs) for (_, outputs) in pairs])
end

parameters(network::Network) = [network.weights; network.biases]

# The outputs of all layers; the last ones are the logits (classes, images).
function activations(network::Network, images)
    layers = Any[images]
    for (number, (weight, bias)) in enumerate(zip(network.weights, network.biases))
        values = weight * layers[end] .+ bias
        number < length(network.weights) && (values .= max.(values, 0.0f0))
        push!(layers, values)
    end
    return layers
end

logits(network::Network, images) = activations(network, images)[end]

# The gradient with respect to all parameters, given the gradient with respect to the logits.
function gradient(network::Network, layers, by_output)
    by_weights, by_biases = similar(network.weights), similar(network.biases)
    for number in length(network.weights):-1:1
        by_weights[number] = by_output * layers[number]'
        by_biases[number] = vec(sum(by_output; dims = 2))
        number > 1 && (by_output = (network.weights[number]' * by_output) .* (layers[number] .> 0))
    end
    return [by_weights; by_biases]
end

# velocity = 0.9 * velocity + gradient + weight decay * value; value -= learning rate * velocity.
function step!(network::Network, velocities, gradients, learning_rate, weight_decay)
    for (value, velocity, slope) in zip(parameters(network), velocities, gradients)
        velocity .= 0.9f0 .* velocity .+ slope .+ Float32(weight_decay) .* value
        value .-= Float32(learning_rate) .* velocity
    end
    return nothing
end

# From `peak` at the first step to 0 after the last one (Loshchilov and Hutter 2017).
cosine(peak, step, steps) = peak * (1 + cos(pi * step / steps)) / 2
