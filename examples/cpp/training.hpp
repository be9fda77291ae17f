// A small convolutional network and its training.
#ifndef TRAINING_HPP
#define TRAINING_HPP

#include "images.hpp"

#include <ols/torch.hpp>

#include <cmath>
#include <cstdio>

/// Two convolutions, each followed by ReLU and 2x2 max pooling, then two dense layers.
struct NetworkImpl : torch::nn::Module {
    NetworkImpl(std::int64_t height, std::int64_t width, std::int64_t classes)
        : first(register_module("first", torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 16, 3).padding(1)))),
          second(register_module("second", torch::nn::Conv2d(torch::nn::Conv2dOptions(16, 32, 3).padding(1)))),
          hidden(register_module("hidden", torch::nn::Linear(32 * (height / 4) * (width / 4), 64))),
          last(register_module("last", torch::nn::Linear(64, classes))) {}

    torch::Tensor forward(const torch::Tensor &images) {
        torch::Tensor x = torch::max_pool2d(torch::relu(first(images)), 2);
        x = torch::max_pool2d(torch::relu(second(x)), 2);
        return last(torch::relu(hidden(x.flatten(1))));
    }

    torch::nn::Conv2d first, second;
    torch::nn::Linear hidden, last;
};
TORCH_MODULE(Network);

struct Settings {
    std::int64_t epochs = 100, batch = 64, train = 0;
    double noise = 0.4, alpha = 0.5, smoothing = 0.1, learning_rate = 0.05, momentum = 0.9, weight_decay = 1e-3;
    std::uint64_t seed = 0;
};

enum class Loss { cross_entropy, label_smoothing, online_label_smoothing };

/// Creates one of the three losses, all of which are the same criterion with different options.
inline ols::torch::OnlineLabelSmoothing make_criterion(Loss loss, std::int64_t classes, const Settings &settings) {
    ols::torch::OnlineLabelSmoothingOptions options(classes);
    switch (loss) {
    case Loss::cross_entropy: return ols::torch::OnlineLabelSmoothing(options.alpha(1));
    // (1 - eps) * onehot + eps / K.
    case Loss::label_smoothing: return ols::torch::OnlineLabelSmoothing(options.alpha(1 - settings.smoothing).initial(ols::initial::uniform));
    default: return ols::torch::OnlineLabelSmoothing(options.alpha(settings.alpha).smoothing(settings.smoothing));
    }
}

/// The numbers of the table, as fractions and in nats.
struct Numbers {
    double test_accuracy = 0, test_nll = 0, test_calibration_error = 0, early_stopped_test_accuracy = 0, train_accuracy = 0, wrong_learned = NAN;
};

inline double accuracy(const torch::Tensor &logits, const torch::Tensor &labels) {
    return logits.argmax(1).eq(labels).to(torch::kDouble).mean().item<double>();
}

/// Expected calibration error with 15 bins of equal width (Guo et al. 2017).
inline double calibration_error(const torch::Tensor &logits, const torch::Tensor &labels) {
    constexpr std::int64_t bins = 15;
    const auto [confidence, guess] = logits.to(torch::kDouble).softmax(1).max(1);
    const torch::Tensor bin = (confidence * bins).to(torch::kLong).clamp_max(bins - 1);
    const torch::Tensor gap = torch::zeros(bins, torch::kDouble).index_add_(0, bin, confidence - guess.eq(labels).to(torch::kDouble));
    return gap.abs().sum().item<double>() / static_cast<double>(labels.size(0));
}

inline torch::Tensor predict(Network &network, const torch::Tensor &pixels) {
    const torch::NoGradGuard no_graph;
    std::vector<torch::Tensor> logits;
    for (const torch::Tensor &piece : pixels.split(512)) logits.push_back(network(piece));
    return torch::cat(logits);
}

/// Trains a network on `train_labels` and measures its quality. The validation labels are as noisy as the training
/// labels.
inline Numbers run(Loss loss, const Split &split, const torch::Tensor &train_labels, const torch::Tensor &validation_labels, std::int64_t classes,
                   const Settings &settings) {
    // All losses get the same initial weights and batches.
    torch::manual_seed(settings.seed);
    Network network(split.train.pixels.size(2), split.train.pixels.size(3), classes);
    ols::torch::OnlineLabelSmoothing criterion = make_criterion(loss, classes, settings);
    // The other two losses accumulate nothing.
    if (loss != Loss::online_label_smoothing) criterion->eval();
    torch::optim::SGD optimizer(network->parameters(),
                                torch::optim::SGDOptions(settings.learning_rate).momentum(settings.momentum).weight_decay(settings.weight_decay));
    auto loader = torch::data::make_data_loader<torch::data::samplers::RandomSampler>(
        ImageDataset(split.train.pixels, train_labels).map(torch::data::transforms::Stack<>()),
        torch::data::DataLoaderOptions(static_cast<std::size_t>(settings.batch)));

    const std::int64_t steps = settings.epochs * ((split.train.size() + settings.batch - 1) / settings.batch);
    const torch::Tensor is_wrong = train_labels.ne(split.train.classes);
    Numbers numbers;
    double best_validation = -1;
    std::int64_t step = 0;
    for (std::int64_t epoch = 0; epoch < settings.epochs; epoch++) {
        for (auto &batch : *loader) {
            const double rate = settings.learning_rate * 0.5 * (1 + std::cos(M_PI * static_cast<double>(step++) / static_cast<double>(steps)));
            static_cast<torch::optim::SGDOptions &>(optimizer.param_groups()[0].options()).lr(rate);
            optimizer.zero_grad();
            criterion(network(batch.data), batch.target).backward();
            optimizer.step();
        }
        if (loss == Loss::online_label_smoothing) criterion->next_epoch();

        const torch::Tensor train = predict(network, split.train.pixels), test = predict(network, split.test.pixels);
        numbers.test_accuracy = accuracy(test, split.test.classes);
        numbers.test_nll = torch::nn::functional::cross_entropy(test.to(torch::kDouble), split.test.classes).item<double>();
        numbers.test_calibration_error = calibration_error(test, split.test.classes);
        numbers.train_accuracy = accuracy(train, train_labels);
        if (is_wrong.any().item<bool>()) numbers.wrong_learned = accuracy(train.index({is_wrong}), train_labels.index({is_wrong}));
        const double validation = accuracy(predict(network, split.validation.pixels), validation_labels);
        if (validation > best_validation) {
            best_validation = validation;
            numbers.early_stopped_test_accuracy = numbers.test_accuracy;
        }
    }
    return numbers;
}

#endif
