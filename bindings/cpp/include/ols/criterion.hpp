// The loss with the soft labels that it learns.
#ifndef OLS_CRITERION_HPP
#define OLS_CRITERION_HPP

#include <ols/batch.hpp>
#include <ols/options.hpp>

namespace ols {

/// Views of the statistics of the running epoch, in place: for an all-reduce (sum) of the three before `next_epoch`. They hold as long as the
/// criterion, and must not be used while another thread is in a call on it.
struct statistics {
    /// A: summed probabilities in units of 2^-OLS_FRACTION_BITS, a row per class.
    matrix<std::int64_t> sums;
    /// c: samples that were summed.
    span<std::int64_t> counts;
    /// `counters[OLS_COUNTER_...]`.
    span<std::int64_t> counters;
};

/// Online Label Smoothing: loss, gradient and statistics of batches, and the soft labels that `next_epoch` makes of these. Owns an
/// `ols_criterion_t`; can be moved, not copied (`clone` makes a second one). Any thread may use it; calls on one criterion wait for each other. What
/// fails throws `ols::error` and has changed nothing.
class criterion {
public:
    /// With the library's defaults, for K classes.
    explicit criterion(std::int64_t num_classes) : criterion(ols::options(num_classes)) {}
    explicit criterion(const ols::options &options) {
        check(ols_create(&options.raw(), &handle_));
    }
    /// Takes over what `ols_create` made.
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

    /// Ends the criterion before its scope does; once more is fine. Every other call on it throws `OLS_STATUS_INVALID_STATE` from then on, as on one that
    /// was moved from.
    void close() noexcept { ols_destroy(std::exchange(handle_, nullptr)); }
    bool is_open() const noexcept { return handle_ != nullptr; }
    /// The handle, still owned; NULL after `close`.
    ols_criterion_t *get() const noexcept { return handle_; }
    /// Gives the handle away: whoever takes it calls `ols_destroy`.
    [[nodiscard]] ols_criterion_t *release() noexcept { return std::exchange(handle_, nullptr); }

    /// A second criterion of its own memory with equal options, mode, state and epoch. `stream`: a `cudaStream_t`, here and below; the CPU does not look at
    /// it.
    criterion clone(void *stream = nullptr) const {
        criterion copy(options());
        copy.load(save_memory(stream), stream);
        return copy;
    }

    /// Loss, gradient, and in training mode the statistics, in one pass over the logits. `loss`: f32 (f64 for f64 logits), one value, or with
    /// `reduction::none` of the shape of the targets. `grad`: of the logits' shape and dtype, and it may be the logits themselves. What is not given is
    /// not computed.
    void forward(const batch &batch, const tensor &loss, const tensor &grad = {}) {
        check(ols_forward(open(), &batch.raw(), loss.raw_or_null(), grad.raw_or_null()));
    }

    /// The loss as one number, for `reduction::mean` and `reduction::sum`; counts the batch in training mode.
    double loss(const batch &batch) { return loss_and_gradient(batch, tensor()); }

    /// The loss as one number and the gradient, in one pass.
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

    /// The gradient alone, recomputed from the logits: bit for bit that of `forward`. Touches no state. `grad_loss`: as in the batch.
    void backward(const batch &batch, const tensor &grad, const const_tensor &grad_loss = {}) {
        check(ols_backward(open(), &batch.raw(), grad_loss.raw_or_null(), grad.raw_or_null()));
    }

    /// Adds to the statistics from given probabilities: the logits of the batch are p, in [0, 1].
    void accumulate(const batch &batch) { check(ols_accumulate(open(), &batch.raw())); }

    /// Ends the epoch: makes the soft labels of the next one from the statistics, and clears these.
    void next_epoch(void *stream = nullptr) { check(ols_next_epoch(open(), stream)); }

    /// What happened in the epoch that ended last, and so far in the running one.
    ols_report_t report(void *stream = nullptr) const {
        ols_report_t out = {};
        out.struct_size = sizeof out;
        check(ols_report(open(), stream, &out));
        return out;
    }

    /// S (K, K), a row per class, in place. The view holds as long as the criterion, shows S as it is, and must not be used while another thread is in a
    /// call on the criterion. Throws `OLS_STATUS_INVALID_DEVICE` where S is not in host memory: `soft_labels_tensor` is for that.
    matrix<const float> soft_labels() const {
        const tensor labels = soft_labels_tensor();
        return in_host_memory<const float>("soft_labels", "soft_labels_tensor", labels.raw());
    }
    /// S as a tensor of its device.
    tensor soft_labels_tensor() const {
        ols_tensor_t out;
        check(ols_soft_labels(open(), &out));
        return tensor(out);
    }
    /// Replaces S: f32 or f64 (K, K), finite and >= 0. The values are copied.
    void set_soft_labels(const const_tensor &soft_labels, void *stream = nullptr) {
        check(ols_set_soft_labels(open(), &soft_labels.raw(), stream));
    }

    /// The statistics of the running epoch, which may be written. Throws `OLS_STATUS_INVALID_DEVICE` where they are not in host memory.
    ols::statistics statistics() {
        const ols_statistics_t raw = statistics_tensors();
        const auto vector = [](const ols_tensor_t &tensor) {
            check_host("statistics", "statistics_tensors", tensor);
            return span<std::int64_t>(static_cast<std::int64_t *>(tensor.data), static_cast<std::size_t>(tensor.shape[0]));
        };
        return {in_host_memory<std::int64_t>("statistics", "statistics_tensors", raw.sums), vector(raw.counts), vector(raw.counters)};
    }
    /// The statistics as tensors of their device.
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

    /// Sets the weight of the hard label, in [0, 1]: for schedules.
    void set_alpha(double alpha) { check(ols_set_alpha(open(), alpha)); }

    /// Epochs that have ended.
    std::int64_t epoch() const {
        std::int64_t epoch = 0;
        check(ols_epoch(open(), &epoch));
        return epoch;
    }
    /// For those who keep and restore a state themselves.
    void set_epoch(std::int64_t epoch) { check(ols_set_epoch(open(), epoch)); }

    /// The options as they are now: alpha and mode as set last, and what a load replaced. A copy, with a state of its own in mind: without the memory that
    /// this criterion was given.
    ols::options options() const {
        ols_options_t raw = {};
        raw.struct_size = sizeof raw;
        check(ols_get_options(open(), &raw));
        ols::options copy(raw);
        // These are views of the criterion's own, which end with it or with its next load.
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

    /// Writes state, epoch, and the options that shape the result to a file, which any language of libols opens. Atomic: the name stands for the old
    /// file or for the whole new one.
    void save(const std::string &path, void *stream = nullptr) const { check(ols_save(open(), c_path("save", path), stream)); }
    /// Replaces them by what a file holds. Mode, reduction, device and threads stay.
    void load(const std::string &path, void *stream = nullptr) { check(ols_load(open(), c_path("load", path), stream)); }

    /// The bytes that the file would hold.
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
            // Another thread may have made the state longer in between; anything else is an error, and so is a state that fits.
            const std::string message = ols_last_error();
            std::size_t now = 0;
            check(ols_save_memory(open(), nullptr, 0, stream, &now));
            if (now <= bytes.size()) throw error(status, message);
        }
    }
    void load(const void *bytes, std::size_t size, void *stream = nullptr) { check(ols_load_memory(open(), bytes, size, stream)); }
    void load(const std::vector<std::uint8_t> &bytes, void *stream = nullptr) { load(bytes.data(), bytes.size(), stream); }

    friend void swap(criterion &a, criterion &b) noexcept { std::swap(a.handle_, b.handle_); }

private:
    explicit criterion(ols_criterion_t *handle) noexcept : handle_(handle) {}

    ols_criterion_t *open() const {
        if (handle_ == nullptr) throw error(OLS_STATUS_INVALID_STATE, "ols::criterion: it was closed, released or moved from");
        return handle_;
    }

    static void check_host(const char *name, const char *elsewhere, const ols_tensor_t &tensor) {
        if (tensor.device_type != OLS_DEVICE_CPU && tensor.device_type != OLS_DEVICE_CUDA_HOST) {
            throw error(OLS_STATUS_INVALID_DEVICE, std::string("ols::criterion::") + name + ": the memory is of device type " +
                                                       std::to_string(tensor.device_type) + ", not the host's; use " + elsewhere);
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
            throw error(OLS_STATUS_INVALID_ARGUMENT, std::string("ols::criterion::") + function + ": path has a zero byte in it");
        }
        return path.c_str();
    }

    ols_criterion_t *handle_ = nullptr;
};

} // namespace ols

#endif
