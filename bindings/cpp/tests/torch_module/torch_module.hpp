// Shared by the tests of this folder: batches of five classes, and what main calls: the tests of each file.
#ifndef TORCH_MODULE_HPP
#define TORCH_MODULE_HPP

#include "../check.hpp"

#include <ols/torch.hpp>

#include <fstream>

namespace torch_module {

using ols::torch::CallOptions;
using ols::torch::OnlineLabelSmoothing;
using ols::torch::OnlineLabelSmoothingOptions;
using torch::Tensor;

inline constexpr std::int64_t N = 12, K = 5;

inline Tensor logits_for(int step, at::IntArrayRef shape = {N, K}, at::ScalarType type = at::kFloat) {
    return at::arange(c10::multiply_integers(shape), at::kDouble).mul(12.9898).add(78.233 * step).sin().mul(3).view(shape).to(type);
}
inline Tensor targets_for(int step) {
    // Every third sample is classified correctly.
    const Tensor guess = logits_for(step).argmax(1);
    return at::where(at::arange(N).remainder(3) == 0, guess, (guess + 1).remainder(K));
}
inline void train(OnlineLabelSmoothing &module, int step) { module(logits_for(step), targets_for(step)); }

inline std::vector<std::uint8_t> bytes_of(OnlineLabelSmoothing &module, const std::string &folder) {
    module->save_file(folder + "/module.ols");
    std::ifstream file(folder + "/module.ols", std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void gradients();
void input(const std::string &folder);
void state(const std::string &folder);
void device_tensors(const char *stand_in_path, const std::string &folder);

} // namespace torch_module

#endif
