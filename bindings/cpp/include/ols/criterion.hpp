// The criterion: the loss function together with the soft labels that it learns.
#ifndef OLS_CRITERION_HPP
#define OLS_CRITERION_HPP

#include <ols/batch.hpp>
#include <ols/options.hpp>

namespace ols {

/// Views of the statistics of the current epoch, in place. For an all-reduce, sum all three before `next_epoch`. The
/// views are valid as long as the criterion, and must not be accessed while another thread is in a call on it.
struct statistics {
    /// The sums A: summed probabilities in units of 2^-OLS_FRACTION_BITS, one row per class.
    matrix<std::int64_t> sums;
    /// The counts c: the number of samples in each row of A.
    span<std::int64_t> counts;
    /// The counters, indexed by the `OLS_COUNTER_` constants.
    span<std::int64_t> counters;
};

/// Online Label Smoothing: computes loss, gradient and statistics of batches, and from the statistics the soft labels
/// of the next epoch (`next_epoch`). Owns an `ols_criterion_t`; can be moved but not copied (`clone` creates a second
/// one). Thread-safe: calls on the same criterion are serialised. A call that fails throws `ols::error` and has no
/// effect.
class criterion {
public:
    /// Creates a criterion for K classes with the library's defaults.
    explicit criterion(std::int64_t num_classes) : criterion(ols::options(num_classes)) {}
    explicit criterion(const ols::options &options) {
        check(ols_create(&options.raw(), &handle_));
    }
    /// Takes ownership of a handle that `ols_create` returned.
    static criterion own(ols_criterion_t *handle) {
        detail::require_library();
        return criterion(handle);
    }

    criterion(const criterion &) = delete;
    criterion &operator=(const criterion &) = delete;
    criterion(criterion &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    criterion &operator=(criterion &&other) noexcept {
        if (this != &other) {
            close();
            handle_ = std::exchange(other.handle_, nullptr);
        }
        return *this;
    }
    ~criterion() { ols_destroy(handle_); }

    /// Destroys the criterion before the end of its scope; closing it twice is a no-op. All other calls on it then
    /// throw `OLS_STATUS_INVALID_STATE`, as on a criterion that was moved from.
    void close() noexcept { ols_destroy(std::exchange(handle_, nullptr)); }
    bool is_open() const noexcept { return handle_ != nullptr; }
    /// Returns the handle, which remains owned by this object; NULL after `close`.
    ols_criterion_t *get() const noexcept { return handle_; }
    /// Releases ownership of the handle; the caller must pass it to `ols_destroy`.
    [[nodiscard]] ols_criterion_t *release() noexcept { return std::exchange(handle_, nullptr); }

    /// Creates an independent criterion with the same options, mode, state and epoch, in memory of its own. `stream` is
    /// a `cudaStream_t`, here and below; ignored on the CPU.
    criterion clone(void *stream = nullptr) const {
        criterion copy(options());
        copy.load(save_memory(stream), stream);
        return copy;
    }

    /// Computes loss and gradient and, in training mode, updates the statistics, all in one pass over the logits.
    /// `loss` is f32 (f64 for f64 logits): a single value or, with `reduction::none`, of the shape of the targets.
    /// `grad` has the shape and dtype of the logits, and may be the logits themselves. An output that is not given is
    /// not computed.
    void forward(const batch &batch, const tensor &loss, const tensor &grad = {}) {
        check(ols_forward(open(), &batch.raw(), loss.raw_or_null(), grad.raw_or_null()));
    }

    /// Returns the loss as a number, for `reduction::mean` and `reduction::sum`. Counts the batch in training mode.
    double loss(const batch &batch) { return loss_and_gradient(batch, tensor()); }

    /// Computes the gradient and returns the loss as a number, in one pass.
    double loss_and_gradient(const batch &batch, const tensor &grad) {
        if (batch.raw().logits.dtype_bits == 64) {
            double loss = 0;
            forward(batch, scalar(loss), grad);
            return loss;
        }
        float loss = 0;
        forward(batch, scalar(loss), grad);
        return static_cast<double>(loss);
    }

    /// Computes only the gradient, from the logits; it is bitwise identical to that of `forward`. No state is changed.
    /// `grad_loss` is the upstream gradient, as in the batch; it is an error to give both.
    void backward(const batch &batch, const tensor &grad, const const_tensor &grad_loss = {}) {
        check(ols_backward(open(), &batch.raw(), grad_loss.raw_or_null(), grad.raw_or_null()));
    }

    /// Updates the statistics from probabilities that the caller has computed already: the logits of the batch hold p,
    /// in [0, 1].
    void accumulate(const batch &batch) { check(ols_accumulate(open(), &batch.raw())); }

    /// Ends the epoch: computes the soft labels of the next epoch from the statistics, then resets the statistics.
    void next_epoch(void *stream = nullptr) { check(ols_next_epoch(open(), stream)); }

    /// Returns a summary of the last completed epoch, and of the current epoch so far.
    ols_report_t report(void *stream = nullptr) const {
        ols_report_t out = {};
        out.struct_size = sizeof out;
        check(ols_report(open(), stream, &out));
        return out;
    }

    /// Returns S (K, K), one row per class, in place. The view is valid as long as the criterion, always shows the
    /// current S, and must not be accessed while another thread is in a call on the criterion. Throws
    /// `OLS_STATUS_INVALID_DEVICE` if S is not in host memory; use `soft_labels_tensor` then.
    matrix<const float> soft_labels() const {
        const tensor labels = soft_labels_tensor();
        return in_host_memory<const float>("soft_labels", "soft_labels_tensor", labels.raw());
    }
    /// Returns S as a tensor on its device.
    tensor soft_labels_tensor() const {
        ols_tensor_t out;
        check(ols_soft_labels(open(), &out));
        return tensor(out);
    }
    /// Replaces S by f32 or f64 values of shape (K, K), finite and >= 0, which are copied.
    void set_soft_labels(const const_tensor &soft_labels, void *stream = nullptr) {
        check(ols_set_soft_labels(open(), &soft_labels.raw(), stream));
    }

    /// Returns the statistics of the current epoch, which may be modified. Throws `OLS_STATUS_INVALID_DEVICE` if they
    /// are not in host memory.
    ols::statistics statistics() {
        const ols_statistics_t raw = statistics_tensors();
        const auto vector = [](const ols_tensor_t &tensor) {
            check_host("statistics", "statistics_tensors", tensor);
            return span<std::int64_t>(static_cast<std::int64_t *>(tensor.data), static_cast<std::size_t>(tensor.shape[0]));
        };
        return {in_host_memory<std::int64_t>("statistics", "statistics_tensors", raw.sums), vector(raw.counts), vector(raw.counters)};
    }
    /// Returns the statistics as tensors on their device.
    ols_statistics_t statistics_tensors() {
        ols_statistics_t raw = {};
        raw.struct_size = sizeof raw;
        check(ols_statistics(open(), &raw));
        return raw;
    }

    void train() { set_mode(ols::mode::train); }
    void eval() { set_mode(ols::mode::eval); }
    void set_mode(ols::mode mode) { check(ols_set_mode(open(), static_cast<std::int32_t>(mode))); }
    ols::mode mode() const {
        std::int32_t mode = 0;
        check(ols_mode(open(), &mode));
        return static_cast<ols::mode>(mode);
    }

    /// Sets the weight of the hard label, in [0, 1], for example to follow a schedule.
    void set_alpha(double alpha) { check(ols_set_alpha(open(), alpha)); }

    /// Returns the number of completed epochs.
    std::int64_t epoch() const {
        std::int64_t epoch = 0;
        check(ols_epoch(open(), &epoch));
        return epoch;
    }
    /// Sets the number of completed epochs, for callers that save and restore the state themselves.
    void set_epoch(std::int64_t epoch) { check(ols_set_epoch(open(), epoch)); }

    /// Returns the current options: alpha and mode as set last, and the options that a load has replaced. They are a
    /// copy without state memory, so that a criterion created from them has a state of its own.
    ols::options options() const {
        ols_options_t raw = {};
        raw.struct_size = sizeof raw;
        check(ols_get_options(open(), &raw));
        ols::options copy(raw);
        // These are views of the criterion's own memory, which are valid until it is destroyed or loads a state.
        if (const const_tensor weights = copy.class_weights(); weights.is_given()) {
            std::vector<double> values(static_cast<std::size_t>(weights.size(0)));
            for (std::size_t k = 0; k < values.size(); k++) {
                values[k] = static_cast<const double *>(weights.raw().data)[static_cast<std::int64_t>(k) * weights.stride(0)];
            }
            copy.class_weights(std::move(values));
        }
        if (copy.initial_soft_labels().is_given()) {
            const auto rows = in_host_memory<const float>("options", "initial_soft_labels as a tensor", raw.initial_soft_labels);
            std::vector<float> values;
            for (std::size_t row = 0; row < rows.rows(); row++) values.insert(values.end(), rows.row(row).begin(), rows.row(row).end());
            copy.initial_soft_labels(std::move(values));
        }
        return copy;
    }
    std::int64_t num_classes() const { return soft_labels_tensor().size(0); }

    /// Saves the state, the epoch, and the options that affect the results to a file, which libols can load in any
    /// language. Saving is atomic: at any moment, `path` names either the old file or the complete new one.
    void save(const std::string &path, void *stream = nullptr) const { check(ols_save(open(), c_path("save", path), stream)); }
    /// Restores what `save` has written. Mode, reduction, device and number of threads are not changed.
    void load(const std::string &path, void *stream = nullptr) { check(ols_load(open(), c_path("load", path), stream)); }

    /// Returns the contents of the file that `save(path)` would write.
    std::vector<std::uint8_t> save() const { return save_memory(); }
    std::vector<std::uint8_t> save_memory(void *stream = nullptr) const {
        std::vector<std::uint8_t> bytes;
        for (;;) {
            std::size_t size = 0;
            check(ols_save_memory(open(), nullptr, 0, stream, &size));
            bytes.resize(size);
            const ols_status_t status = ols_save_memory(open(), bytes.data(), bytes.size(), stream, &size);
            if (status == OLS_STATUS_OK) {
                bytes.resize(size);
                return bytes;
            }
            // Another thread may have made the state longer in between; then try again. Anything else is an error.
            const std::string message = ols_last_error();
            std::size_t now = 0;
            check(ols_save_memory(open(), nullptr, 0, stream, &now));
            if (now <= bytes.size()) throw error(status, message);
        }
    }
    void load(const void *bytes, std::size_t size, void *stream = nullptr) { check(ols_load_memory(open(), bytes, size, stream)); }
    void load(const std::vector<std::uint8_t> &bytes, void *stream = nullptr) {
        // data() may be NULL, which the library would report instead of an empty file.
        load(bytes.empty() ? static_cast<const void *>("") : bytes.data(), bytes.size(), stream);
    }

    friend void swap(criterion &a, criterion &b) noexcept { std::swap(a.handle_, b.handle_); }

private:
    explicit criterion(ols_criterion_t *handle) noexcept : handle_(handle) {}

    ols_criterion_t *open() const {
        if (handle_ == nullptr) throw error(OLS_STATUS_INVALID_STATE, "ols::criterion: this criterion was closed, released or moved from");
        return handle_;
    }

    static void check_host(const char *name, const char *elsewhere, const ols_tensor_t &tensor) {
        if (tensor.device_type != OLS_DEVICE_CPU && tensor.device_type != OLS_DEVICE_CUDA_HOST) {
            throw error(OLS_STATUS_INVALID_DEVICE, std::string("ols::criterion::") + name + ": device_type = " + std::to_string(tensor.device_type) +
                                                       " is not host memory; use " + elsewhere);
        }
    }

    template <class T>
    static matrix<T> in_host_memory(const char *name, const char *elsewhere, const ols_tensor_t &tensor) {
        check_host(name, elsewhere, tensor);
        return matrix<T>(static_cast<T *>(tensor.data), static_cast<std::size_t>(tensor.shape[0]), static_cast<std::size_t>(tensor.shape[1]),
                         static_cast<std::size_t>(tensor.strides[0]));
    }

    static const char *c_path(const char *function, const std::string &path) {
        if (path.find('\0') != std::string::npos) {
            throw error(OLS_STATUS_INVALID_ARGUMENT, std::string("ols::criterion::") + function + ": path contains a zero byte");
        }
        return path.c_str();
    }

    ols_criterion_t *handle_ = nullptr;
};

} // namespace ols

#endif
