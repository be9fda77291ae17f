// The options of a criterion.
#ifndef OLS_OPTIONS_HPP
#define OLS_OPTIONS_HPP

#include <ols/tensor.hpp>

#include <memory>
#include <utility>
#include <vector>

namespace ols {

// The values are those of ols.h, as scoped enumerations.

/// How the soft labels of the first epoch are initialised.
enum class initial : std::int32_t {
    smoothing = OLS_INITIAL_SMOOTHING,
    uniform = OLS_INITIAL_UNIFORM,
    zero = OLS_INITIAL_ZERO,
    one_hot = OLS_INITIAL_ONE_HOT,
    matrix = OLS_INITIAL_MATRIX,
};

/// Which soft label a class gets at the end of an epoch in which it was not measured.
enum class empty_class : std::int32_t {
    keep = OLS_EMPTY_CLASS_KEEP,
    uniform = OLS_EMPTY_CLASS_UNIFORM,
    initial = OLS_EMPTY_CLASS_INITIAL,
    one_hot = OLS_EMPTY_CLASS_ONE_HOT,
    zero = OLS_EMPTY_CLASS_ZERO,
};

/// How the losses of a batch are reduced.
enum class reduction : std::int32_t {
    none = OLS_REDUCTION_NONE,
    mean = OLS_REDUCTION_MEAN,
    sum = OLS_REDUCTION_SUM,
};

/// Whether forward passes update the statistics.
enum class mode : std::int32_t {
    train = OLS_MODE_TRAIN,
    eval = OLS_MODE_EVAL,
};

/// Sets of options that reproduce other implementations.
enum class preset : std::int32_t {
    reference = OLS_PRESET_REFERENCE,
    paper = OLS_PRESET_PAPER,
};

/// Returns the name of the value, which is the same in every language, or "unknown" if it is not a valid value.
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

/// The options of a criterion, initialised with the library's defaults; each is described by `ols_options_t` in ols.h.
/// A name with an argument sets the option and returns the options, so that calls can be chained; without an argument
/// it returns the value. Values are checked when a criterion is created. Copies are independent.
class options {
public:
    /// Creates options for K >= 2 classes.
    explicit options(std::int64_t num_classes) {
        detail::require_library();
        check(ols_options_init(&raw_, sizeof raw_));
        raw_.num_classes = num_classes;
    }
    /// Copies the struct of the C interface; its tensors remain views of the caller's memory.
    explicit options(const ols_options_t &raw) : raw_(raw) { detail::require_library(); }

    // No moves: `raw_` of the source would keep pointing to values that it no longer owns.
    options(const options &) = default;
    options &operator=(const options &) = default;
    ~options() = default;

    const ols_options_t &raw() const noexcept { return raw_; }

    std::int64_t num_classes() const noexcept { return raw_.num_classes; }

    /// The weight of the hard label, in [0, 1].
    options &alpha(double value) noexcept { return set(raw_.alpha, value); }
    double alpha() const noexcept { return raw_.alpha; }

    /// The smoothing of `initial::smoothing`, in [0, 1].
    options &smoothing(double value) noexcept { return set(raw_.smoothing, value); }
    double smoothing() const noexcept { return raw_.smoothing; }

    /// The fraction of the old soft label that is kept in the new one, in [0, 1).
    options &momentum(double value) noexcept { return set(raw_.momentum, value); }
    double momentum() const noexcept { return raw_.momentum; }

    /// A threshold, greater than 0: a class whose largest soft label is at least this value keeps its row from then on.
    /// Infinity means never.
    options &freeze_above(double value) noexcept { return set(raw_.freeze_above, value); }
    double freeze_above() const noexcept { return raw_.freeze_above; }

    /// The number of samples per epoch from which on a class counts as measured, at least 1.
    options &min_count(std::int64_t value) noexcept { return set(raw_.min_count, value); }
    std::int64_t min_count() const noexcept { return raw_.min_count; }

    /// Samples with this target are ignored.
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

    /// The maximum number of threads that a call uses, including the calling one; 0 means as many as the process may
    /// run on.
    options &threads(std::int32_t value) noexcept { return set(raw_.n_threads, value); }
    std::int32_t threads() const noexcept { return raw_.n_threads; }

    /// The device of the criterion, on which all tensors of its calls must be: one of `OLS_DEVICE_...`, and its index.
    options &device(std::int32_t type, std::int32_t id = 0) noexcept {
        raw_.device_id = id;
        return set(raw_.device_type, type);
    }
    std::int32_t device_type() const noexcept { return raw_.device_type; }
    std::int32_t device_id() const noexcept { return raw_.device_id; }

    /// Sets `initial`, `smoothing` and `empty_class` as in another implementation.
    options &preset(ols::preset value) {
        check(ols_options_preset(&raw_, static_cast<std::int32_t>(value)));
        return *this;
    }

    /// Sets the class weights w (K), finite and >= 0. The options own the values; any length other than K, including 0,
    /// is an error.
    options &class_weights(std::vector<double> values) {
        const auto size = static_cast<std::int64_t>(values.size());
        class_weights_ = std::make_shared<const std::vector<double>>(std::move(values));
        raw_.class_weights = ols_tensor_1d(class_weights_->data(), OLS_DTYPE_F64, size);
        return *this;
    }
    /// Sets w as a view of f32 or f64 values, which must remain valid until the criterion is created.
    options &class_weights(const const_tensor &values) noexcept { return set(raw_.class_weights, values.raw()); }
    const_tensor class_weights() const noexcept { return const_tensor(raw_.class_weights); }

    /// Sets the initial soft labels, K*K values, row-major, and `initial::matrix`. The options own the values. Throws
    /// `OLS_STATUS_INVALID_SHAPE` if their number is not K*K.
    options &initial_soft_labels(std::vector<float> values) {
        const std::int64_t k = num_classes();
        const auto count = static_cast<double>(values.size());
        if (count != static_cast<double>(k) * static_cast<double>(k)) {
            throw error(OLS_STATUS_INVALID_SHAPE, "ols::options: initial_soft_labels has " + std::to_string(values.size()) +
                                                      " values, but K*K with K = " + std::to_string(k) + " are required");
        }
        initial_soft_labels_ = std::make_shared<const std::vector<float>>(std::move(values));
        return initial_soft_labels(view(initial_soft_labels_->data(), k, k));
    }
    /// Sets the initial soft labels as a view of f32 or f64 values of shape (K, K), which must remain valid until the
    /// criterion is created, and `initial::matrix`.
    options &initial_soft_labels(const const_tensor &values) noexcept {
        raw_.initial_soft_labels = values.raw();
        return initial(ols::initial::matrix);
    }
    const_tensor initial_soft_labels() const noexcept { return const_tensor(raw_.initial_soft_labels); }

    /// Sets memory of the caller for the state, which must remain valid as long as the criterion: S f32 (K, K), sums
    /// i64 (K, K), counts i64 (K), counters i64 (OLS_COUNTERS). The library allocates whatever is not given.
    options &state_memory(const tensor &soft_labels, const tensor &sums = {}, const tensor &counts = {}, const tensor &counters = {}) noexcept {
        raw_.soft_labels = soft_labels.raw();
        raw_.sums = sums.raw();
        raw_.counts = counts.raw();
        raw_.counters = counters.raw();
        return *this;
    }
    /// Sets whether that memory already holds a state, which is then used as it is.
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

    ols_options_t raw_ = {};
    // Shared by copies and never modified.
    std::shared_ptr<const std::vector<double>> class_weights_ = {};
    std::shared_ptr<const std::vector<float>> initial_soft_labels_ = {};
};

} // namespace ols

#endif
