// The C++ leg of tests/ring/run, which says what it does.
#include <ols/ols.hpp>

#include <cinttypes>
#include <cstdio>
#include <cstring>

int main(int argc, char **argv) try {
    if (argc != 3) return std::fprintf(stderr, "usage: %s IN OUT\n", argv[0]), 2;
    ols::criterion criterion(5);
    criterion.load(std::string(argv[1]));
    const auto options = criterion.options();
    const auto statistics = criterion.statistics();
    std::printf("epoch %" PRId64 " alpha %.6f ignore_index %" PRId64 " counts", criterion.epoch(), options.alpha(), options.ignore_index());
    for (const std::int64_t count : statistics.counts) std::printf(" %" PRId64, count);
    std::printf(" sums");
    for (const std::int64_t sum : statistics.sums.row(1)) std::printf(" %" PRId64, sum);
    std::printf(" soft_labels");
    for (const float value : criterion.soft_labels().row(1)) {
        std::uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        std::printf(" %08" PRIx32, bits);
    }
    std::printf("\n");
    criterion.save(std::string(argv[2]));
} catch (const ols::error &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
