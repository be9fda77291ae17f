// libols for C++17 and later: Online Label Smoothing, a classification loss that learns its own soft labels.
// Header-only, on top of the C interface, and without any dependency except libols. What is computed is documented in
// ols.h; errors are thrown as ols::error. For LibTorch use ols/torch.hpp.
//
//     #include <ols/ols.hpp>
//
//     #include <cstdio>
//
//     int main() {
//         const float logits[2][3] = {{2.0f, 0.1f, -1.0f}, {0.3f, 0.2f, 0.1f}};
//         const std::uint8_t targets[2] = {0, 2};
//         float gradient[2][3];
//
//         ols::criterion criterion(ols::options(3).alpha(0.5));
//         const ols::batch batch(ols::view(logits), ols::view(targets));
//         const double loss = criterion.loss_and_gradient(batch, ols::view(gradient));
//         std::printf("loss %.4f, first entry of the gradient %+.4f\n", loss, static_cast<double>(gradient[0][0]));
//
//         criterion.next_epoch(); // once an epoch: the soft labels of the next one
//     }
#ifndef OLS_OLS_HPP
#define OLS_OLS_HPP

#include <ols/batch.hpp>
#include <ols/criterion.hpp>
#include <ols/error.hpp>
#include <ols/options.hpp>
#include <ols/tensor.hpp>

#endif
