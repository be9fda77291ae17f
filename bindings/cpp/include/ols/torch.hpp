// libols for LibTorch: Online Label Smoothing as a torch::nn module. Header-only, beside LibTorch (1.13 or later; for CUDA tensors 2.10 or later) and libols.
//
//     #include <ols/torch.hpp>
//
//     ols::torch::OnlineLabelSmoothing criterion(ols::torch::OnlineLabelSmoothingOptions(10).alpha(0.5));
//     for (int epoch = 0; epoch < epochs; epoch++) {
//         for (auto &batch : *loader) {
//             optimizer.zero_grad();
//             criterion(network->forward(batch.data), batch.target).backward();
//             optimizer.step();
//         }
//         criterion->next_epoch();                          // the soft labels of the next one
//     }
//
// `criterion->eval()` for the loss of validation, which teaches nothing; `torch::save(criterion, path)` for checkpoints. The name `ols::torch` hides LibTorch's
// namespace from code inside of namespace ols alone; `using namespace ols` would make `torch` ambiguous.
#ifndef OLS_TORCH_HPP
#define OLS_TORCH_HPP

#include <ols/torch/function.hpp>
#include <ols/torch/module.hpp>
#include <ols/torch/options.hpp>
#include <ols/torch/tensors.hpp>

#endif
