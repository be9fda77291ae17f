// libols for LibTorch: Online Label Smoothing as a torch::nn module. Header-only; requires libols and LibTorch 1.13 or
// later (2.10 or later for CUDA tensors).
//
//     #include <ols/torch.hpp>
//     #include <torch/torch.h>
//
//     #include <iostream>
//
//     int main() {
//         torch::manual_seed(0);
//         torch::nn::Sequential network(torch::nn::Linear(20, 64), torch::nn::ReLU(), torch::nn::Linear(64, 10));
//         torch::optim::SGD optimizer(network->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));
//         ols::torch::OnlineLabelSmoothing criterion(ols::torch::OnlineLabelSmoothingOptions(10).alpha(0.5));
//
//         const torch::Tensor images = torch::randn({256, 20}), targets = images.slice(1, 0, 10).argmax(1);
//         for (int epoch = 1; epoch <= 5; epoch++) {
//             for (int step = 0; step < 4; step++) {
//                 optimizer.zero_grad();
//                 const torch::Tensor some_images = images.slice(0, 64 * step, 64 * (step + 1)), some_targets = targets.slice(0, 64 * step, 64 * (step + 1));
//                 criterion(network->forward(some_images), some_targets).backward();
//                 optimizer.step();
//             }
//             criterion->next_epoch(); // the soft labels of the next one
//             std::cout << "epoch " << epoch << ": " << criterion->report().rows_measured << " of 10 classes measured\n";
//         }
//         criterion->eval(); // a loss of validation teaches nothing
//         std::cout << criterion << "\nvalidation " << criterion(network->forward(images), targets).item<float>() << "\n";
//         torch::save(criterion, "criterion.pt");
//     }
//
// The name `ols::torch` hides LibTorch's namespace only inside namespace ols; `using namespace ols` would make `torch`
// ambiguous.
#ifndef OLS_TORCH_HPP
#define OLS_TORCH_HPP

#include <ols/torch/function.hpp>
#include <ols/torch/module.hpp>
#include <ols/torch/options.hpp>
#include <ols/torch/tensors.hpp>

#endif
