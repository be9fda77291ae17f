// The conformance cases of tests/vectors, from tests/c/vectors.inc, and a runner for anything that acts as a criterion: the C++ wrapper, the
// LibTorch module. vectors.inc explains the cases.
#ifndef VECTORS_HPP
#define VECTORS_HPP

#include "check.hpp"

#include <cmath>
#include <cstring>
#include <map>
#include <memory>

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-const-variable"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#endif
#include "vectors.inc"
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

namespace vectors {

// In the order of the VEC_... constants.
inline constexpr std::int32_t dtypes[] = {OLS_DTYPE_F32, OLS_DTYPE_F64, OLS_DTYPE_F16, OLS_DTYPE_BF16, OLS_DTYPE_I64, OLS_DTYPE_I32, OLS_DTYPE_U8};
inline constexpr std::size_t sizes[] = {4, 8, 2, 2, 8, 4, 1};
inline constexpr ols::update updates[] = {ols::update::add, ols::update::no_update, ols::update::take_back};
inline constexpr ols_status_t statuses[] = {OLS_STATUS_OK,           OLS_STATUS_INVALID_ARGUMENT,    OLS_STATUS_INVALID_DTYPE,
                                            OLS_STATUS_INVALID_SHAPE, OLS_STATUS_TARGET_OUT_OF_RANGE, OLS_STATUS_INVALID_STATE};

inline const char *case_name = "";
inline std::size_t step_number = 0;

inline void wrong(const std::string &what) {
    test::failures++;
    if (test::failures < 40) std::fprintf(stderr, "%s, step %zu: %s\n", case_name, step_number, what.c_str());
}

inline void same(const char *what, double got, double want, double tolerance = 0) {
    test::checks++;
    const bool good = std::isnan(want) ? std::isnan(got) : std::isinf(want) ? got == want : std::fabs(got - want) <= tolerance;
    if (!good) wrong(std::string(what) + " = " + std::to_string(got) + ", expected " + std::to_string(want) + " within " + std::to_string(tolerance));
}

// 16-bit floating-point numbers. Values to encode are exactly representable.
inline std::uint16_t to_f16(double value) {
    const int sign = std::signbit(value) ? 0x8000 : 0;
    if (std::isnan(value)) return 0x7e00;
    if (std::isinf(value)) return static_cast<std::uint16_t>(sign | 0x7c00);
    int exponent;
    const double fraction = std::frexp(std::fabs(value), &exponent); // in [0.5, 1)
    if (fraction == 0) return static_cast<std::uint16_t>(sign);
    if (exponent < -13) return static_cast<std::uint16_t>(sign | static_cast<int>(std::ldexp(fraction, exponent + 24)));
    return static_cast<std::uint16_t>(sign | (exponent + 14) << 10 | (static_cast<int>(std::ldexp(fraction, 11)) & 1023));
}

inline double from_f16(std::uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double value = exponent == 31 ? (fraction ? NAN : INFINITY) : exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
    return bits & 0x8000 ? -value : value;
}

/// A block of memory and a view of it.
struct Block {
    Block() = default;
    Block(int dtype_, const vec_view &view_) : dtype(dtype_), view(view_), bytes(static_cast<std::size_t>(view_.length) * sizes[dtype_] + 1, 0xa5) {}

    std::int64_t count() const {
        std::int64_t count = 1;
        for (int d = 0; d < view.ndim; d++) count *= view.shape[d];
        return count;
    }
    /// Returns the position of the element with a flat index.
    unsigned char *at(std::int64_t flat) { return bytes.data() + static_cast<std::size_t>(vec_place(&view, flat, nullptr)) * sizes[dtype]; }
    unsigned char *first() { return bytes.data() + static_cast<std::size_t>(view.offset) * sizes[dtype]; }

    template <class T>
    void store(std::int64_t flat, T value) {
        std::memcpy(at(flat), &value, sizeof value);
    }
    template <class T>
    T load(std::int64_t flat) {
        T value;
        std::memcpy(&value, at(flat), sizeof value);
        return value;
    }

    void put(std::int64_t flat, double value) {
        const float single = static_cast<float>(value);
        std::uint32_t bits;
        std::memcpy(&bits, &single, sizeof bits);
        switch (dtype) {
        case VEC_F64: return store(flat, value);
        case VEC_F16: return store(flat, to_f16(value));
        case VEC_BF16: return store(flat, static_cast<std::uint16_t>(bits >> 16));
        default: return store(flat, single);
        }
    }
    double get(std::int64_t flat) {
        if (dtype == VEC_F64) return load<double>(flat);
        if (dtype == VEC_F16) return from_f16(load<std::uint16_t>(flat));
        if (dtype == VEC_F32) return static_cast<double>(load<float>(flat));
        const std::uint32_t bits = static_cast<std::uint32_t>(load<std::uint16_t>(flat)) << 16;
        float value;
        std::memcpy(&value, &bits, sizeof value);
        return static_cast<double>(value);
    }
    void put_integer(std::int64_t flat, std::int64_t value) {
        if (dtype == VEC_I64) store(flat, value);
        if (dtype == VEC_I32) store(flat, static_cast<std::int32_t>(value));
        if (dtype == VEC_U8) store(flat, static_cast<std::uint8_t>(value));
    }

    /// The view, through which the library may also write.
    ols::tensor tensor() {
        ols_tensor_t raw = ols_tensor_0d(first(), dtypes[dtype]);
        raw.ndim = view.ndim;
        std::memcpy(raw.shape, view.shape, sizeof raw.shape);
        std::memcpy(raw.strides, view.strides, sizeof raw.strides);
        return ols::tensor(raw);
    }

    int dtype = VEC_F32;
    vec_view view = {};
    std::vector<unsigned char> bytes;
};

inline Block block_of(const vec_numbers &numbers) {
    Block block(numbers.dtype, numbers.view);
    for (std::size_t i = 0; i < numbers.n; i++) block.put(static_cast<std::int64_t>(i), numbers.values[i]);
    return block;
}
inline Block block_of(const vec_targets &targets) {
    Block block(targets.dtype, targets.view);
    for (std::size_t i = 0; i < targets.n; i++) block.put_integer(static_cast<std::int64_t>(i), targets.values[i]);
    return block;
}
inline Block block_of(const vec_logits &logits) {
    Block block(logits.dtype, logits.view);
    for (std::int64_t i = 0; i < block.count(); i++) block.put(i, vec_logit(&logits, i));
    return block;
}

/// A batch in memory. Tensors that are not given have no bytes.
struct Blocks {
    explicit Blocks(const vec_batch &given) : logits(block_of(given.logits)), targets(block_of(given.targets)) {
        if (given.sample_weights.present) sample_weights = block_of(given.sample_weights);
        if (given.targets2.present) targets2 = block_of(given.targets2);
        if (given.lam.present) lam = block_of(given.lam);
        if (given.grad_loss.present) grad_loss = block_of(given.grad_loss);
    }
    Block logits, targets, sample_weights, targets2, lam, grad_loss;
};

/// Compares the expected values with `get(flat index)`.
template <class Get>
void compare(const char *what, const vec_values &expect, std::int64_t count, const Get &get) {
    if (!expect.present) return;
    if (!expect.at) same(what, static_cast<double>(count), static_cast<double>(expect.n));
    for (std::size_t i = 0; i < expect.n; i++) {
        const std::int64_t at = expect.at ? expect.at[i] : static_cast<std::int64_t>(i);
        same(what, get(at), expect.values[i], expect.atol + expect.rtol * std::fabs(expect.values[i]));
    }
}

template <class Get>
void compare_gradient(const vec_expect &expect, std::int64_t count, const Get &get) {
    compare("grad", expect.grad, count, get);
    if (!expect.grad_abs_sum.present) return;
    double sum = 0;
    for (std::int64_t i = 0; i < count; i++) sum += std::fabs(get(i));
    const vec_values &want = expect.grad_abs_sum;
    same("grad_abs_sum", sum, *want.values, want.atol + want.rtol * std::fabs(*want.values));
}

inline void compare_report(const ols_report_t &report, const vec_expect &expect) {
    if (expect.samples_skipped != -1) same("samples_skipped", static_cast<double>(report.running_samples_skipped), static_cast<double>(expect.samples_skipped));
    if (!expect.has_report) return;
    const vec_report &want = expect.report;
#define SAME(field) same(#field, static_cast<double>(report.field), static_cast<double>(want.field))
    VEC_REPORT_FIELDS(SAME);
#undef SAME
}

/// Statistics as functions of flat indices.
template <class Counts, class Sums>
void compare_statistics(const vec_expect &expect, const Counts &counts, const Sums &sums) {
    for (std::size_t i = 0; expect.counts && i < expect.n_counts; i++) {
        same("counts", static_cast<double>(counts(i)), static_cast<double>(expect.counts[i]));
    }
    for (std::size_t i = 0; expect.sums.present && i < expect.sums.n; i++) {
        const auto at = expect.sums.at ? static_cast<std::size_t>(expect.sums.at[i]) : i;
        const auto want = static_cast<double>(expect.sums.values[i]);
        same("sums", static_cast<double>(sums(at)), want, static_cast<double>(expect.sums.atol) + expect.sums.rtol * std::fabs(want));
    }
}

inline ols::options options_of(const vec_options &given) {
    ols::options options(given.classes);
    options.alpha(given.alpha).empty_class(static_cast<ols::empty_class>(given.empty_class)).min_count(given.min_count).momentum(given.momentum);
    options.ignore_index(given.ignore_index).reduction(static_cast<ols::reduction>(given.reduction)).mode(static_cast<ols::mode>(given.mode));
    if (given.initial == VEC_SMOOTHING) options.smoothing(given.smoothing);
    if (given.has_freeze_above) options.freeze_above(given.freeze_above);
    if (given.class_weights) options.class_weights(std::vector<double>(given.class_weights, given.class_weights + given.n_class_weights));
    if (given.initial == VEC_MATRIX) options.initial_soft_labels(std::vector<float>(given.matrix, given.matrix + given.n_matrix));
    return options.initial(static_cast<ols::initial>(given.initial));
}

/// Runs `call`, which must return the status, with a message that contains `message`. Returns whether it succeeded.
template <class Call>
bool ends_with(int error, const char *message, const Call &call) {
    try {
        call();
    } catch (const ols::error &thrown) {
        same("status", thrown.code(), static_cast<double>(statuses[error]));
        test::checks++;
        if (message && !std::strstr(thrown.what(), message)) wrong(std::string("the message should hold \"") + message + "\": " + thrown.what());
        return false;
    }
    same("status", OLS_STATUS_OK, static_cast<double>(statuses[error]));
    return true;
}

/// Runs a case on a `Subject`, which is created from its options and has a function for each action.
template <class Subject>
void run_case(const vec_case &c) {
    case_name = c.name;
    step_number = 0;
    std::unique_ptr<Subject> subject;
    if (!ends_with(c.error, c.message, [&] { subject = std::make_unique<Subject>(c.options); })) return;
    for (std::size_t i = 0; i < c.n_steps; i++) {
        const vec_step &step = c.steps[i];
        step_number = i;
        const auto ends = [&](const auto &call) { ends_with(step.expect.error, step.expect.message, call); };
        switch (step.action) {
        case VEC_NEXT_EPOCH: ends([&] { subject->next_epoch(); }); break;
        case VEC_SET_MODE: ends([&] { subject->set_mode(static_cast<ols::mode>(step.mode)); }); break;
        case VEC_SET_ALPHA: ends([&] { subject->set_alpha(step.alpha); }); break;
        case VEC_SET_SOFT_LABELS: ends([&] { subject->set_soft_labels(std::vector<float>(step.values, step.values + step.n_values)); }); break;
        case VEC_SAVE_LOAD: subject->save_load(c.options); break;
        default: subject->run(c.batches[step.batch], step);
        }
        subject->check_state(step.expect);
    }
}

/// Checks that the runner detects a wrong number.
template <class Subject>
void see_it_fail(const vec_case &c) {
    std::vector<vec_step> steps(c.steps, c.steps + c.n_steps);
    vec_values &loss = steps.at(0).expect.loss;
    std::vector<double> values(loss.values, loss.values + loss.n);
    values.at(0) += 0.01;
    loss.values = values.data();
    vec_case changed = c;
    changed.steps = steps.data();
    const int before = std::exchange(test::failures, 1000); // suppresses the output
    run_case<Subject>(changed);
    const int found = std::exchange(test::failures, before) - 1000;
    if (found != 1) wrong("a changed number was found " + std::to_string(found) + " times");
}

/// Runs every case except those that `skip(case)` returns a reason for. The file of a case is the part of its name before '/'.
template <class Subject, class Skip>
void run_all(const Skip &skip) {
    // First the formula of the inputs.
    EXPECT(vec_splitmix64(0, 0) == UINT64_C(0xe220a8397b1dcdaf));
    see_it_fail<Subject>(vec_cases[0]);
    std::map<std::string, int> files = {{"errors", 0}, {"epochs", 0}, {"layouts", 0}, {"options", 0}, {"sizes", 0}, {"special", 0}, {"targets", 0}, {"weights", 0}};
    int ran = 0, skipped = 0;
    for (const vec_case &c : vec_cases) {
        const std::string name = c.name;
        const auto file = files.find(name.substr(0, name.find('/')));
        case_name = c.name;
        if (file == files.end()) {
            wrong("a file that this runner does not know");
        } else if (const char *const reason = skip(c)) {
            std::printf("skipped %s: %s\n", c.name, reason);
            skipped++;
        } else {
            run_case<Subject>(c);
            file->second++;
            ran++;
        }
    }
    for (const auto &[file, cases] : files) {
        if (cases == 0) wrong("no case of " + file + " was run");
    }
    std::printf("%d cases run, %d skipped\n", ran, skipped);
}

} // namespace vectors

#endif
