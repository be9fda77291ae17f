// A first program in C++: the loss and gradient of a batch, and the end of an epoch.
#include <ols/ols.hpp>

#include <cstdio>

int main() try {
    const float logits[2][3] = {{2.0f, 0.1f, -1.0f}, {0.3f, 0.2f, 0.1f}};
    const std::uint8_t targets[2] = {0, 2};
    float gradient[2][3];

    ols::criterion criterion(ols::options(3).alpha(0.5));
    const ols::batch batch(ols::view(logits), ols::view(targets));
    const double loss = criterion.loss_and_gradient(batch, ols::view(gradient));
    std::printf("loss %.4f, gradient of the first sample %+.4f %+.4f %+.4f\n", loss, gradient[0][0], gradient[0][1], gradient[0][2]);

    criterion.next_epoch(); // once an epoch: the soft labels of the next one
    std::printf("%d of 3 classes measured\n", static_cast<int>(criterion.report().rows_measured));
} catch (const ols::error &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
