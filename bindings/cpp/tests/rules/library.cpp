// The library that is loaded and the header of C: no side effects, versions, numbers of enums and flags.
#include "rules.hpp"

#include <fstream>
#include <map>
#include <sstream>

namespace rules {

namespace {

void loading() {
    test::begin("r02 loading the library with this program has had no side effects");
    std::ifstream status("/proc/self/status"), maps("/proc/self/maps");
    bool is_alone = false;
    for (std::string line; std::getline(status, line);) is_alone = is_alone || line == "Threads:\t1";
    EXPECT(is_alone);
    const std::string mapped{std::istreambuf_iterator<char>(maps), std::istreambuf_iterator<char>()};
    EXPECT(!mapped.empty() && mapped.find("libcuda") == std::string::npos);
}

void versions() {
    test::begin("r01 equal ABI versions, and equal minor versions below 1.0");
    using ols::detail::is_compatible;
    EXPECT(is_compatible(OLS_ABI_VERSION, OLS_VERSION));
    EXPECT(!is_compatible(OLS_ABI_VERSION + 1, OLS_VERSION));
    const std::string other_minor = std::to_string(OLS_VERSION_MAJOR) + "." + std::to_string(OLS_VERSION_MINOR + 1) + ".0";
    EXPECT(is_compatible(OLS_ABI_VERSION, other_minor.c_str()) == (OLS_ABI_VERSION != 0));
    EXPECT(is_compatible(OLS_ABI_VERSION, "garbage") == (OLS_ABI_VERSION != 0));
    EXPECT(std::string(ols::version()) == OLS_VERSION);
    EXPECT(ols::detail::library_path().find("ols") != std::string::npos || ols::detail::library_path().find("rules") != std::string::npos);
}

void constants(const char *header) {
    test::begin("r03 the names and numbers of enums and flags equal those of the header, in both directions");
    std::map<std::string, std::int64_t> here = {
        {"INITIAL_SMOOTHING", static_cast<int>(ols::initial::smoothing)},
        {"INITIAL_UNIFORM", static_cast<int>(ols::initial::uniform)},
        {"INITIAL_ZERO", static_cast<int>(ols::initial::zero)},
        {"INITIAL_ONE_HOT", static_cast<int>(ols::initial::one_hot)},
        {"INITIAL_MATRIX", static_cast<int>(ols::initial::matrix)},
        {"EMPTY_CLASS_KEEP", static_cast<int>(ols::empty_class::keep)},
        {"EMPTY_CLASS_UNIFORM", static_cast<int>(ols::empty_class::uniform)},
        {"EMPTY_CLASS_INITIAL", static_cast<int>(ols::empty_class::initial)},
        {"EMPTY_CLASS_ONE_HOT", static_cast<int>(ols::empty_class::one_hot)},
        {"EMPTY_CLASS_ZERO", static_cast<int>(ols::empty_class::zero)},
        {"REDUCTION_NONE", static_cast<int>(ols::reduction::none)},
        {"REDUCTION_MEAN", static_cast<int>(ols::reduction::mean)},
        {"REDUCTION_SUM", static_cast<int>(ols::reduction::sum)},
        {"MODE_TRAIN", static_cast<int>(ols::mode::train)},
        {"MODE_EVAL", static_cast<int>(ols::mode::eval)},
        {"PRESET_REFERENCE", static_cast<int>(ols::preset::reference)},
        {"PRESET_PAPER", static_cast<int>(ols::preset::paper)},
        {"BATCH_NO_UPDATE", static_cast<int>(ols::update::no_update)},
        {"BATCH_TAKE_BACK", static_cast<int>(ols::update::take_back)},
        {"DTYPE_F32", ols::dtype<float>::value},
        {"DTYPE_F64", ols::dtype<double>::value},
        {"DTYPE_F16", ols::dtype<ols::float16>::value},
        {"DTYPE_BF16", ols::dtype<ols::bfloat16>::value},
        {"DTYPE_I64", ols::dtype<std::int64_t>::value},
        {"DTYPE_I32", ols::dtype<std::int32_t>::value},
        {"DTYPE_U8", ols::dtype<std::uint8_t>::value},
        // The only flag of the options is adopt_state().
        {"OPTIONS_ADOPT_STATE", ols::options(2).adopt_state().raw().flags},
    };
    std::ifstream file(header);
    std::size_t found = 0;
    for (std::string line; std::getline(file, line);) {
        std::string name;
        std::int64_t value = 0;
        std::istringstream words(line);
        std::string first, second, third;
        words >> first >> second >> third;
        if (first == "#define" && !third.empty()) {
            name = second;
            value = std::strtoll(third.c_str(), nullptr, 0);
        } else if (second == "=") {
            name = first;
            value = std::strtoll(third.c_str(), nullptr, 0);
        }
        if (name.rfind("OLS_", 0) != 0) continue;
        name = name.substr(4);
        bool is_ours = false;
        for (const char *group : {"INITIAL_", "EMPTY_CLASS_", "REDUCTION_", "MODE_", "PRESET_", "BATCH_", "DTYPE_", "OPTIONS_"}) {
            is_ours = is_ours || name.rfind(group, 0) == 0;
        }
        if (!is_ours) continue;
        const auto known = here.find(name);
        test::check(known != here.end() && known->second == value, __FILE__, __LINE__, "the constant of the header has the same number here", name);
        found++;
    }
    EXPECT(found == here.size());
    static_assert(ols::dtype<long>::value == (sizeof(long) == 8 ? OLS_DTYPE_I64 : OLS_DTYPE_I32), "by size");
    static_assert(ols::dtype<long long>::value == OLS_DTYPE_I64, "by size");
}

} // namespace

void library(const char *header) {
    loading();
    versions();
    constants(header);
}

} // namespace rules
