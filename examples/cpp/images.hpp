// Images and their classes: the bundled digits, or a folder of IDX files, gzipped or not (zlib reads both).
#ifndef IMAGES_HPP
#define IMAGES_HPP

#include <torch/torch.h>

#include <array>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <zlib.h>

/// Pixels (N, 1, height, width) in [0, 1] and classes (N).
struct Images {
    torch::Tensor pixels, classes;

    std::int64_t size() const { return classes.size(0); }
    Images at(const torch::Tensor &indices) const { return {pixels.index_select(0, indices), classes.index_select(0, indices)}; }
};

inline std::vector<std::uint8_t> read_file(const std::string &path) {
    gzFile file = gzopen(path.c_str(), "rb");
    if (!file) throw std::runtime_error(path + ": cannot be opened");
    std::vector<std::uint8_t> bytes;
    std::array<std::uint8_t, 1 << 16> piece;
    int read;
    while ((read = gzread(file, piece.data(), piece.size())) > 0) bytes.insert(bytes.end(), piece.begin(), piece.begin() + read);
    int status = Z_OK;
    gzerror(file, &status);
    const int closed = gzclose(file);
    if (read < 0 || closed != Z_OK) throw std::runtime_error(path + ": the file is damaged or cut off");
    return bytes;
}

/// Reads lines of 64 pixels from 0 to 16 and a class.
inline Images read_digits(const std::string &path) {
    const auto bytes = read_file(path);
    std::istringstream text(std::string(bytes.begin(), bytes.end()));
    std::vector<float> pixels;
    std::vector<std::int64_t> classes;
    for (std::string line; std::getline(text, line);) {
        std::istringstream numbers(line);
        std::vector<float> row;
        for (std::string number; std::getline(numbers, number, ',');) row.push_back(std::stof(number));
        if (row.size() != 65) throw std::runtime_error(path + ": a line of " + std::to_string(row.size()) + " numbers instead of 65");
        for (std::size_t i = 0; i < 64; i++) pixels.push_back(row[i] / 16);
        classes.push_back(static_cast<std::int64_t>(row[64]));
    }
    if (classes.empty()) throw std::runtime_error(path + ": there are no images in it");
    return {torch::tensor(pixels).view({-1, 1, 8, 8}), torch::tensor(classes)};
}

/// Reads an IDX file: a big-endian magic number (0, 0, 8 for bytes, number of dimensions), the sizes as 32-bit numbers,
/// and the bytes.
inline torch::Tensor read_idx(const std::string &path, std::size_t dimensions) {
    const auto bytes = read_file(path);
    const std::size_t header = 4 + 4 * dimensions;
    if (bytes.size() < header || bytes[0] != 0 || bytes[1] != 0 || bytes[2] != 8 || bytes[3] != dimensions) {
        throw std::runtime_error(path + ": not an IDX file of " + std::to_string(dimensions) + "-dimensional bytes");
    }
    std::vector<std::int64_t> shape;
    std::int64_t count = 1;
    for (std::size_t d = 0; d < dimensions; d++) {
        std::int64_t size = 0;
        for (std::size_t byte = 4 + 4 * d; byte < 8 + 4 * d; byte++) size = size << 8 | bytes[byte];
        shape.push_back(size);
        // A product larger than the file is wrong already; multiplying further could overflow.
        if (count <= static_cast<std::int64_t>(bytes.size())) count *= size;
    }
    if (count != static_cast<std::int64_t>(bytes.size() - header)) throw std::runtime_error(path + ": its size is not that of its dimensions");
    return torch::tensor(at::ArrayRef<std::uint8_t>(bytes).slice(header), torch::kByte).view(shape);
}

/// Both spellings are common: "train-images-idx3-ubyte" and "train-images.idx3-ubyte".
inline std::string find_idx(const std::string &folder, const std::string &name, const std::string &form) {
    for (const char *separator : {"-", "."}) {
        for (const char *ending : {"", ".gz"}) {
            const std::string path = folder + "/" + name + separator + form + "-ubyte" + ending;
            if (std::ifstream(path)) return path;
        }
    }
    throw std::runtime_error(folder + ": there is no " + name + "-" + form + "-ubyte or " + name + "-" + form + "-ubyte.gz in it");
}

/// `part` is "train" or "t10k".
inline Images read_idx_images(const std::string &folder, const std::string &part) {
    const torch::Tensor pixels = read_idx(find_idx(folder, part + "-images", "idx3"), 3), classes = read_idx(find_idx(folder, part + "-labels", "idx1"), 1);
    if (pixels.size(0) != classes.size(0) || pixels.numel() == 0) {
        throw std::runtime_error(folder + ": " + std::to_string(classes.size(0)) + " labels for the " + std::to_string(pixels.size(0)) + " images of " + part);
    }
    return {pixels.to(torch::kFloat).div(255).unsqueeze(1), classes.to(torch::kLong)};
}

/// Training, validation and test images in the ratio 6:1:2.
struct Split {
    Images train, validation, test;
};

/// Draws a split with at most `limit` training images, or as many as possible if it is 0. `test` points to separate
/// test images, or is null.
inline Split draw_split(const Images &images, const Images *test, std::int64_t limit) {
    const torch::Tensor order = torch::randperm(images.size());
    std::int64_t train = images.size() * 6 / (test ? 7 : 9);
    if (limit > 0) train = std::min(train, limit);
    const std::int64_t validation = train + std::max<std::int64_t>(train / 6, 1), tests = (train + 2) / 3;
    const Images &source = test ? *test : images;
    const torch::Tensor for_test = test ? torch::randperm(test->size()) : order.slice(0, validation);
    return {images.at(order.slice(0, 0, train)), images.at(order.slice(0, train, validation)), source.at(for_test.slice(0, 0, tests))};
}

/// Replaces the fraction `noise` of the labels by another class, chosen uniformly.
inline torch::Tensor with_wrong_labels(const torch::Tensor &labels, std::int64_t classes, double noise) {
    const auto wrong = static_cast<std::int64_t>(std::llround(noise * static_cast<double>(labels.size(0))));
    const torch::Tensor chosen = torch::randperm(labels.size(0)).slice(0, 0, wrong);
    const torch::Tensor shifts = torch::randint(1, classes, {wrong}, torch::kLong);
    return labels.index_copy(0, chosen, (labels.index_select(0, chosen) + shifts).remainder(classes));
}

/// The images as a data set of LibTorch: each example is an image and its label.
class ImageDataset : public torch::data::datasets::Dataset<ImageDataset> {
public:
    ImageDataset(torch::Tensor pixels, torch::Tensor labels) : pixels_(std::move(pixels)), labels_(std::move(labels)) {}
    torch::data::Example<> get(std::size_t index) override {
        const auto i = static_cast<std::int64_t>(index);
        return {pixels_[i], labels_[i]};
    }
    std::optional<std::size_t> size() const override { return static_cast<std::size_t>(labels_.size(0)); }

private:
    torch::Tensor pixels_, labels_;
};

#endif
