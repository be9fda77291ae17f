// Trains a convolutional network on images with cross entropy, label smoothing and Online Label Smoothing, with clean
// and with wrong labels: the C++ version of the project's demo, for one seed.
#include "training.hpp"

#include <cstring>

namespace {

constexpr const char *usage = "usage: digits [options] [DIGITS]\n"
                              "  DIGITS        the bundled digits.csv.gz [examples/data/digits.csv.gz]\n"
                              "  --data DIR    a folder of the MNIST family's IDX files, gzipped or not, instead\n"
                              "  --epochs N    epochs of each of the six runs [100]\n"
                              "  --train N     training images [all; 3000 with --data]\n"
                              "  --noise X     share of wrong labels in the noisy runs, from 0 to 1 [0.4]\n"
                              "  --alpha X     weight of the hard label in online label smoothing, from 0 to 1 [0.5]\n"
                              "  --seed N      [0]\n";

struct Arguments {
    Settings settings;
    std::string digits = "examples/data/digits.csv.gz", data;
};

/// Parses all of `text` as a number from `least` to `most`.
template <class Number>
Number number(const std::string &name, const char *text, Number least, Number most) {
    std::istringstream stream(text ? text : "");
    Number value;
    if (!(stream >> value) || !stream.eof() || !(value >= least && value <= most)) {
        std::ostringstream message;
        message << name << " takes a number from " << least << " to " << most << ", not \"" << (text ? text : "") << "\"\n" << usage;
        throw std::invalid_argument(message.str());
    }
    return value;
}

Arguments parse(int count, char **words) {
    Arguments arguments;
    for (int i = 1; i < count; i++) {
        const std::string name = words[i];
        if (name.rfind("--", 0) != 0) {
            arguments.digits = name;
            continue;
        }
        const char *const value = i + 1 < count ? words[++i] : nullptr;
        constexpr std::int64_t many = 1'000'000;
        if (name == "--data" && value) {
            arguments.data = value;
        } else if (name == "--epochs") {
            arguments.settings.epochs = number<std::int64_t>(name, value, 1, many);
        } else if (name == "--train") {
            arguments.settings.train = number<std::int64_t>(name, value, 6, many);
        } else if (name == "--noise") {
            arguments.settings.noise = number<double>(name, value, 0, 1);
        } else if (name == "--alpha") {
            arguments.settings.alpha = number<double>(name, value, 0, 1);
        } else if (name == "--seed") {
            arguments.settings.seed = number<std::uint64_t>(name, value, 0, std::numeric_limits<std::uint64_t>::max());
        } else {
            throw std::invalid_argument("there is no option " + name + "\n" + usage);
        }
    }
    if (!arguments.data.empty() && arguments.settings.train == 0) arguments.settings.train = 3000;
    return arguments;
}

void print_row(const std::string &labels, const char *loss, const Numbers &numbers) {
    char wrong[16] = "-";
    if (!std::isnan(numbers.wrong_learned)) std::snprintf(wrong, sizeof wrong, "%.1f", 100 * numbers.wrong_learned);
    std::printf("%-18s %-23s %10.1f %9.3f %7.1f %15.1f %10.1f %13s\n", labels.c_str(), loss, 100 * numbers.test_accuracy, numbers.test_nll,
                100 * numbers.test_calibration_error, 100 * numbers.early_stopped_test_accuracy, 100 * numbers.train_accuracy, wrong);
    std::fflush(stdout);
}

void compare_losses(const Arguments &arguments) {
    const Settings &settings = arguments.settings;
    torch::manual_seed(settings.seed);
    Images images, test;
    if (arguments.data.empty()) {
        images = read_digits(arguments.digits);
    } else {
        images = read_idx_images(arguments.data, "train");
        test = read_idx_images(arguments.data, "t10k");
    }
    const std::int64_t classes = images.classes.max().item<std::int64_t>() + 1;
    const Split split = draw_split(images, arguments.data.empty() ? nullptr : &test, settings.train);
    std::printf("%lld training, %lld validation and %lld test images; %lld epochs, one seed\n\n", static_cast<long long>(split.train.size()),
                static_cast<long long>(split.validation.size()), static_cast<long long>(split.test.size()), static_cast<long long>(settings.epochs));
    std::printf("%-18s %-23s %10s %9s %7s %15s %10s %13s\n", "", "", "Test", "Test NLL", "Test", "Test accuracy %", "Training", "Wrong labels");
    std::printf("%-18s %-23s %10s %9s %7s %15s %10s %13s\n", "Training labels", "Loss", "accuracy %", "(nats)", "ECE %", "stopped early", "accuracy %",
                "learned %");
    for (const bool is_noisy : {false, true}) {
        const double noise = is_noisy ? settings.noise : 0;
        const torch::Tensor train_labels = with_wrong_labels(split.train.classes, classes, noise);
        const torch::Tensor validation_labels = with_wrong_labels(split.validation.classes, classes, noise);
        std::ostringstream labels;
        if (is_noisy) labels << noise * 100 << " % wrong labels";
        std::string name = is_noisy ? labels.str() : "clean labels";
        const std::pair<Loss, const char *> losses[] = {
            {Loss::cross_entropy, "cross entropy"}, {Loss::label_smoothing, "label smoothing"}, {Loss::online_label_smoothing, "online label smoothing"}};
        for (const auto &[loss, loss_name] : losses) {
            print_row(name, loss_name, run(loss, split, train_labels, validation_labels, classes, settings));
            // Each kind of labels is named once.
            name.clear();
        }
    }
    std::printf("\nNLL: negative log-likelihood; ECE: expected calibration error, 15 bins. Numbers are those of the last epoch; stopped early: of the best epoch by\n"
                "validation labels that are as wrong as the training labels. Training accuracy: on the labels as given.\n");
}

} // namespace

int main(int count, char **words) try {
    if (count == 2 && std::strcmp(words[1], "--help") == 0) return std::printf("%s", usage), 0;
    compare_losses(parse(count, words));
} catch (const std::invalid_argument &error) {
    std::fprintf(stderr, "digits: %s\n", error.what());
    return 2;
} catch (const std::exception &error) {
    std::fprintf(stderr, "digits: %s\n", error.what());
    return 1;
}
