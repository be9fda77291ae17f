// A second translation unit over the same headers: what is not inline there would be defined twice.
#include <ols/ols.hpp>
#include <ols/ols.hpp>

double loss_in_another_unit(ols::criterion &criterion) {
    const float logits[2][3] = {{2.0f, 0.1f, -1.0f}, {0.3f, 0.2f, 0.1f}};
    const std::uint8_t targets[2] = {0, 2};
    return criterion.loss(ols::batch(ols::view(logits), ols::view(targets)));
}
