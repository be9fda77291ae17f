// What a criterion is told at its creation.
#ifndef OLS_OPTIONS_HPP
#define OLS_OPTIONS_HPP

#include <ols/tensor.hpp>

#include <memory>
#include <utility>
#include <vector>

namespace ols {

// The numbers are those of ols.h, under names that do not mix.

/// The soft labels of the first epoch.
enum class initial : std::int32_t {
    smoothing = OLS_INITIAL_SMOOTHING,
    uniform = OLS_INITIAL_UNIFORM,
    zero = OLS_INITIAL_ZERO,
    one_hot = OLS_INITIAL_ONE_HOT,
    matrix = OLS_INITIAL_MATRIX,
};

/// The soft label of a class that was not measured in an epoch.
enum class empty_class : std::int32_t {
    keep = OLS_EMPTY_CLASS_KEEP,
    uniform = OLS_EMPTY_CLASS_UNIFORM,
    initial = OLS_EMPTY_CLASS_INITIAL,
    one_hot = OLS_EMPTY_CLASS_ONE_HOT,
    zero = OLS_EMPTY_CLASS_ZERO,
};

/// How the losses of a batch become one number.
enum class reduction : std::int32_t {
    none = OLS_REDUCTION_NONE,
    mean = OLS_REDUCTION_MEAN,
    sum = OLS_REDUCTION_SUM,
};

/// Whether a forward pass adds to the statistics.
enum class mode : std::int32_t {
    train = OLS_MODE_TRAIN,
    eval = OLS_MODE_EVAL,
};

/// Options that reproduce what others do.
enum class preset : std::int32_t {
    reference = OLS_PRESET_REFERENCE,
    paper = OLS_PRESET_PAPER,
};

/// The names of these, as in every language of libols; "unknown" for a number that is none of them.
constexpr const char *to_string(initial value) noexcept {
    switch (value) {
    case initial::smoothing: return "smoothing";
    case initial::uniform: return "uniform";
    case initial::zero: return "zero";
    case initial::one_hot: return "one_hot";
    case initial::matrix: return "matrix";
    }
    return "unknown";
}
constexpr const char *to_string(empty_class value) noexcept {
    switch (value) {
    case empty_class::keep: return "keep";
    case empty_class::uniform: return "uniform";
    case empty_class::initial: return "initial";
    case empty_class::one_hot: return "one_hot";
    case empty_class::zero: return "zero";
    }
    return "unknown";
}
constexpr const char *to_string(reduction value) noexcept {
    switch (value) {
    case reduction::none: return "none";
    case reduction::mean: return "mean";
    case reduction::sum: return "sum";
    }
    return "unknown";
}

/// Options with the library's defaults, which `ols_options_t` in ols.h describes field by field. Each name sets with an argument, and returns the options
/// for the next one; without an argument it gets. Values are checked where a criterion is made. Copies are independent.
class options {
public:
    /// K >= 2 classes.
    explicit options(std::int64_t num_classes) {
        detail::require_library();
        check(ols_options_init(&raw_, sizeof raw_));
        raw_.num_classes = num_classes;
    }
    /// Of the C interface, as they are; their tensors stay views of the caller's memory.
    explicit options(const ols_options_t &raw) : raw_(raw) { detail::require_library(); }

    const ols_options_t &raw() const noexcept { return raw_; }

    std::int64_t num_classes() const noexcept { return raw_.num_classes; }

    /// Weight of the hard label, in [0, 1].
    options &alpha(double value) noexcept { return set(raw_.alpha, value); }
    double alpha() const noexcept { return raw_.alpha; }

    /// For `initial::smoothing`, in [0, 1].
    options &smoothing(double value) noexcept { return set(raw_.smoothing, value); }
    double smoothing() const noexcept { return raw_.smoothing; }

    /// Share of the old soft label in the new one, in [0, 1).
    options &momentum(double value) noexcept { return set(raw_.momentum, value); }
    double momentum() const noexcept { return raw_.momentum; }

    /// A class whose largest soft label is at least this keeps its row for good; greater than 0, infinity: never.
    options &freeze_above(double value) noexcept { return set(raw_.freeze_above, value); }
    double freeze_above() const noexcept { return raw_.freeze_above; }

    /// Samples of a class in an epoch that make it measured, at least 1.
    options &min_count(std::int64_t value) noexcept { return set(raw_.min_count, value); }
    std::int64_t min_count() const noexcept { return raw_.min_count; }

    /// A sample with this target takes no part.
    options &ignore_index(std::int64_t value) noexcept { return set(raw_.ignore_index, value); }
    std::int64_t ignore_index() const noexcept { return raw_.ignore_index; }

    options &initial(ols::initial value) noexcept { return set(raw_.initial, static_cast<std::int32_t>(value)); }
    ols::initial initial() const noexcept { return static_cast<ols::initial>(raw_.initial); }

    options &empty_class(ols::empty_class value) noexcept { return set(raw_.empty_class, static_cast<std::int32_t>(value)); }
    ols::empty_class empty_class() const noexcept { return static_cast<ols::empty_class>(raw_.empty_class); }

    options &reduction(ols::reduction value) noexcept { return set(raw_.reduction, static_cast<std::int32_t>(value)); }
    ols::reduction reduction() const noexcept { return static_cast<ols::reduction>(raw_.reduction); }

    options &mode(ols::mode value) noexcept { return set(raw_.mode, static_cast<std::int32_t>(value)); }
    ols::mode mode() const noexcept { return static_cast<ols::mode>(raw_.mode); }

    /// The most threads that a call may use, the caller's own included; 0: as many as the process may run on.
    options &threads(std::int32_t value) noexcept { return set(raw_.n_threads, value); }
    std::int32_t threads() const noexcept { return raw_.n_threads; }

    /// Where the tensors of a call live: one of `OLS_DEVICE_...`, and which of them.
    options &device(std::int32_t type, std::int32_t id = 0) noexcept {
        raw_.device_id = id;
        return set(raw_.device_type, type);
    }
    std::int32_t device_type() const noexcept { return raw_.device_type; }
    std::int32_t device_id() const noexcept { return raw_.device_id; }

    /// Sets `initial`, `smoothing` and `empty_class` to what others do.
    options &preset(ols::preset value) {
        check(ols_options_preset(&raw_, static_cast<std::int32_t>(value)));
        return *this;
    }

    /// w[K], finite and >= 0. These options keep the values; an empty vector is an error, as every other wrong length.
    options &class_weights(std::vector<double> values) {
        const auto size = static_cast<std::int64_t>(values.size());
        class_weights_ = std::make_shared<const std::vector<double>>(std::move(values));
        raw_.class_weights = ols_tensor_1d(class_weights_->data(), OLS_DTYPE_F64, size);
        return *this;
    }
    /// w as a view of f32 or f64 values, which must stay until the criterion is made.
    options &class_weights(const const_tensor &values) noexcept { return set(raw_.class_weights, values.raw()); }
    const_tensor class_weights() const noexcept { return const_tensor(raw_.class_weights); }

    /// S of the first epoch, K*K values row-major, and with it `initial::matrix`. These options keep the values. Throws `OLS_STATUS_INVALID_SHAPE` where
    /// they are not K*K.
    options &initial_soft_labels(std::vector<float> values) {
        const std::int64_t k = num_classes();
        const auto count = static_cast<double>(values.size());
        if (count != static_cast<double>(k) * static_cast<double>(k)) {
            throw error(OLS_STATUS_INVALID_SHAPE, "ols::options: initial_soft_labels has " + std::to_string(values.size()) +
                                                      " values instead of K*K with K = " + std::to_string(k));
        }
        initial_soft_labels_ = std::make_shared<const std::vector<float>>(std::move(values));
        return initial_soft_labels(view(initial_soft_labels_->data(), k, k));
    }
    /// S of the first epoch as a view of f32 or f64 values (K, K), which must stay until the criterion is made, and with it `initial::matrix`.
    options &initial_soft_labels(const const_tensor &values) noexcept {
        raw_.initial_soft_labels = values.raw();
        return initial(ols::initial::matrix);
    }
    const_tensor initial_soft_labels() const noexcept { return const_tensor(raw_.initial_soft_labels); }

    /// Memory of the caller's for the state, which must live as long as the criterion: S f32 (K, K), sums i64 (K, K), counts i64 (K), counters i64
    /// (OLS_COUNTERS). What is not given is the library's own.
    options &state_memory(const tensor &soft_labels, const tensor &sums = {}, const tensor &counts = {}, const tensor &counters = {}) noexcept {
        raw_.soft_labels = soft_labels.raw();
        raw_.sums = sums.raw();
        raw_.counts = counts.raw();
        raw_.counters = counters.raw();
        return *this;
    }
    /// Whether that memory holds a state already, which is taken over as it is.
    options &adopt_state(bool value = true) noexcept {
        constexpr std::uint32_t flag = OLS_OPTIONS_ADOPT_STATE;
        return set(raw_.flags, value ? raw_.flags | flag : raw_.flags & ~flag);
    }
    bool adopt_state() const noexcept { return (raw_.flags & OLS_OPTIONS_ADOPT_STATE) != 0; }

private:
    template <class T>
    options &set(T &field, const T &value) noexcept {
        field = value;
        return *this;
    }

    ols_options_t raw_;
    // Shared by copies, never written again.
    std::shared_ptr<const std::vector<double>> class_weights_;
    std::shared_ptr<const std::vector<float>> initial_soft_labels_;
};

} // namespace ols

#endif
