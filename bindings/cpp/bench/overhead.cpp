// What ols/ols.hpp adds to a call, in nanoseconds over the bare C call, for N x K logits in f32 (by default 128 x 10). The goal is 50.
//
//     overhead [N K]
//
// Both sides create a batch of the same memory and compute loss and gradient in one pass. They alternate in each round; printed are the smallest mean of a
// round for each, and the median of the differences over the rounds (a paired comparison), as one line for benches/languages/run.
#include <ols/ols.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>

namespace {

constexpr int rounds = 101;
/// Bytes requested from `new`.
std::size_t allocated = 0;

/// Returns the mean time of a call in nanoseconds, over as many calls as take about 2 ms.
template <class Call>
double time(const Call &call, int calls) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; i++) call();
    return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count() / calls;
}

} // namespace

void *operator new(std::size_t size) {
    allocated += size;
    if (void *memory = std::malloc(size)) return memory;
    throw std::bad_alloc();
}
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }

int main(int count, char **words) {
    const std::int64_t n = count == 3 ? std::atoll(words[1]) : 128, k = count == 3 ? std::atoll(words[2]) : 10;
    if (n < 1 || k < 2) return std::fprintf(stderr, "usage: overhead [N K]\n"), 2;
    std::vector<float> logits(static_cast<std::size_t>(n * k)), gradient(logits.size());
    std::vector<std::int64_t> targets(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < logits.size(); i++) logits[i] = static_cast<float>(i * 37 % 97) / 16;
    for (std::size_t i = 0; i < targets.size(); i++) targets[i] = static_cast<std::int64_t>(i) % k;

    ols::criterion criterion(ols::options(k).threads(1));
    double total = 0;
    const auto bare = [&] {
        ols_batch_t batch;
        if (ols_batch_init(&batch, sizeof batch) != OLS_STATUS_OK) std::abort();
        batch.logits = ols_tensor_2d(logits.data(), OLS_DTYPE_F32, n, k);
        batch.targets = ols_tensor_1d(targets.data(), OLS_DTYPE_I64, n);
        float loss = 0;
        const ols_tensor_t to_loss = ols_tensor_0d(&loss, OLS_DTYPE_F32), to_grad = ols_tensor_2d(gradient.data(), OLS_DTYPE_F32, n, k);
        if (ols_forward(criterion.get(), &batch, &to_loss, &to_grad) != OLS_STATUS_OK) std::abort();
        total += static_cast<double>(loss);
    };
    const auto wrapped = [&] { total += criterion.loss_and_gradient(ols::batch(ols::view(logits, n, k), ols::view(targets)), ols::view(gradient, n, k)); };

    const int calls = std::max(1, static_cast<int>(2e6 / std::max(time(bare, 20), 1.0)));
    std::vector<double> bare_times, wrapped_times, differences;
    for (int round = 0; round < rounds; round++) {
        // Each side goes first equally often.
        if (round % 2 == 0) bare_times.push_back(time(bare, calls));
        wrapped_times.push_back(time(wrapped, calls));
        if (round % 2 != 0) bare_times.push_back(time(bare, calls));
        differences.push_back(wrapped_times.back() - bare_times.back());
    }
    std::nth_element(differences.begin(), differences.begin() + rounds / 2, differences.end());
    // Checks that allocations are counted: the arrays must be among them.
    if (allocated < (logits.size() + gradient.size()) * sizeof(float)) std::abort();
    const std::size_t before = allocated;
    for (int i = 0; i < calls; i++) wrapped();
    std::printf("C++\t%.1f\t%.1f\t%.1f\t%zu\n", *std::min_element(bare_times.begin(), bare_times.end()),
                *std::min_element(wrapped_times.begin(), wrapped_times.end()), differences[rounds / 2], (allocated - before) / static_cast<std::size_t>(calls));
    return total > 0 ? 0 : 1;
}
