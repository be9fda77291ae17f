// libols for C++17 and later: Online Label Smoothing, a classification loss that learns its own soft labels. Header-only over the C interface, whose
// header ols.h is the manual of what is computed; nothing but the standard library is needed. For LibTorch there is ols/torch.hpp.
//
//     #include <ols/ols.hpp>
//
//     ols::criterion criterion(ols::options(10).alpha(0.5));
//     for (int epoch = 0; epoch < epochs; epoch++) {
//         for (auto &[logits, targets] : batches) {                             // std::vector<float> of n*10, std::vector<std::int64_t> of n
//             ols::batch batch(ols::view(logits, n, 10), ols::view(targets));
//             double loss = criterion.loss_and_gradient(batch, ols::view(grad, n, 10));
//             ...                                                               // grad goes back through the network
//         }
//         criterion.next_epoch();                                               // the soft labels of the next one
//     }
#ifndef OLS_OLS_HPP
#define OLS_OLS_HPP

#include <ols/batch.hpp>
#include <ols/criterion.hpp>
#include <ols/error.hpp>
#include <ols/options.hpp>
#include <ols/tensor.hpp>

#endif
