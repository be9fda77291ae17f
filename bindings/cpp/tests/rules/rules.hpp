// Shared by the tests of this folder: a batch of four classes, and what main calls: the tests of each file.
#ifndef RULES_HPP
#define RULES_HPP

#include "../check.hpp"

namespace rules {

inline constexpr std::size_t N = 6, K = 4;

struct Data {
    std::vector<float> logits = std::vector<float>(N * K), grad = std::vector<float>(N * K);
    std::vector<std::int64_t> targets = std::vector<std::int64_t>(N);

    explicit Data(int step = 0) {
        for (std::size_t i = 0; i < N * K; i++) logits[i] = static_cast<float>((static_cast<int>(i) * 37 + step * 101) % 19) / 8;
        for (std::size_t n = 0; n < N; n++) {
            targets[n] = static_cast<std::int64_t>(n) % static_cast<std::int64_t>(K);
            if (n % 3 != 0) logits[n * K + n % K] = 5;
        }
    }
    ols::const_tensor logits_view() const { return ols::view(logits, N, K); }
    ols::batch batch() const { return ols::batch(logits_view(), ols::view(targets)); }
};

void library(const char *header);
void options_and_errors();
void handles(const std::string &folder);
void calls();
void state(const std::string &folder);

} // namespace rules

#endif
