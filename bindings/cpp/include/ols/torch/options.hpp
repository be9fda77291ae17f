// The options of an ols::torch module, and of a call.
#ifndef OLS_TORCH_OPTIONS_HPP
#define OLS_TORCH_OPTIONS_HPP

#include <ols/ols.hpp>

#include <torch/arg.h>
#include <torch/enum.h>
#include <torch/nn/options/loss.h>
#include <torch/types.h>

namespace ols::torch {

// LibTorch's macros refer to torch::nn, which would otherwise be looked up here.
namespace nn = ::torch::nn;

namespace detail {

/// Returns the values of a small tensor of any device and floating-point dtype, row-major.
template <class T>
std::vector<T> values_of(const char *name, const at::Tensor &tensor, std::int64_t dimensions) {
    if (tensor.dim() != dimensions) {
        throw error(OLS_STATUS_INVALID_SHAPE,
                    std::string("ols::torch: ") + name + " has " + std::to_string(tensor.dim()) + " dimensions instead of " + std::to_string(dimensions));
    }
    if (!tensor.is_floating_point()) {
        throw error(OLS_STATUS_INVALID_DTYPE, std::string("ols::torch: ") + name + " has dtype " + c10::toString(tensor.scalar_type()) +
                                                  ", which is not a floating-point dtype");
    }
    const at::Tensor host = tensor.detach().to(at::kCPU, c10::CppTypeToScalarType<T>::value).contiguous();
    const T *const data = host.template data_ptr<T>();
    return std::vector<T>(data, data + host.numel());
}

/// Returns a new tensor with the values of a view in host memory.
template <class T>
at::Tensor tensor_of(const const_tensor &view) {
    if (!view.is_given()) return {};
    const auto dimensions = static_cast<std::size_t>(view.dimensions());
    return at::from_blob(view.raw().data, at::IntArrayRef(view.raw().shape, dimensions), at::IntArrayRef(view.raw().strides, dimensions),
                         at::TensorOptions(c10::CppTypeToScalarType<T>::value))
        .clone();
}

} // namespace detail

/// The options of `OnlineLabelSmoothing`, initialised with the library's defaults; each is described in ols.h. Values
/// are checked when the module is created.
///
///     ols::torch::OnlineLabelSmoothingOptions(10).alpha(0.5).reduction(torch::kSum)
struct OnlineLabelSmoothingOptions {
    /// `torch::kNone`, `torch::kMean` or `torch::kSum`.
    using reduction_t = ::torch::nn::CrossEntropyLossOptions::reduction_t;

    // NOLINTNEXTLINE: implicit conversion from a number, as with LibTorch's own options.
    OnlineLabelSmoothingOptions(std::int64_t num_classes) { take_over(ols::options(num_classes)); }

    /// The number of classes K, at least 2.
    TORCH_ARG(std::int64_t, num_classes);
    /// The weight of the hard label, in [0, 1].
    TORCH_ARG(double, alpha);
    /// The smoothing of `ols::initial::smoothing`, in [0, 1].
    TORCH_ARG(double, smoothing);
    /// The fraction of the old soft label that is kept in the new one, in [0, 1).
    TORCH_ARG(double, momentum);
    /// A threshold, greater than 0: a class whose largest soft label is at least this value keeps its row from then on.
    /// Infinity means never.
    TORCH_ARG(double, freeze_above);
    /// The number of samples per epoch from which on a class counts as measured, at least 1.
    TORCH_ARG(std::int64_t, min_count);
    /// Samples with this target are ignored.
    TORCH_ARG(std::int64_t, ignore_index);
    /// How the soft labels of the first epoch are initialised.
    TORCH_ARG(ols::initial, initial);
    /// Which soft label a class gets at the end of an epoch in which it was not measured.
    TORCH_ARG(ols::empty_class, empty_class);
    /// How the losses of a batch are reduced.
    TORCH_ARG(reduction_t, reduction);
    /// The maximum number of threads that a call uses; 0 means as many as the process may run on.
    TORCH_ARG(std::int32_t, threads);
    /// The class weights w: (K), finite and >= 0, of any floating-point dtype and device; copied. The default is 1 for
    /// every class.
    TORCH_ARG(::torch::Tensor, class_weights);
    /// The initial soft labels, for `ols::initial::matrix`: (K, K), one row per class, finite and >= 0; copied.
    TORCH_ARG(::torch::Tensor, initial_soft_labels);

public:
    /// Sets `initial`, `smoothing` and `empty_class` as in another implementation.
    OnlineLabelSmoothingOptions &preset(ols::preset value) {
        const ols::options named = ols::options(num_classes_).preset(value);
        initial_ = named.initial();
        smoothing_ = named.smoothing();
        empty_class_ = named.empty_class();
        return *this;
    }

    /// Converts to the options of the library, which are checked when a criterion is created.
    ols::options to_library() const {
        ols::options options(num_classes_);
        options.alpha(alpha_).smoothing(smoothing_).momentum(momentum_).freeze_above(freeze_above_).min_count(min_count_);
        options.ignore_index(ignore_index_).empty_class(empty_class_).threads(threads_);
        if (class_weights_.defined()) options.class_weights(detail::values_of<double>("class_weights", class_weights_, 1));
        if (initial_soft_labels_.defined()) options.initial_soft_labels(detail::values_of<float>("initial_soft_labels", initial_soft_labels_, 2));
        return options.initial(initial_).reduction(library_reduction());
    }

    /// Returns `reduction` as the library's value.
    ols::reduction library_reduction() const {
        switch (::torch::enumtype::reduction_get_enum(reduction_)) {
        case at::Reduction::None: return ols::reduction::none;
        case at::Reduction::Sum: return ols::reduction::sum;
        default: return ols::reduction::mean;
        }
    }

    /// Copies the options of the library.
    void take_over(const ols::options &options) {
        num_classes_ = options.num_classes();
        alpha_ = options.alpha();
        smoothing_ = options.smoothing();
        momentum_ = options.momentum();
        freeze_above_ = options.freeze_above();
        min_count_ = options.min_count();
        ignore_index_ = options.ignore_index();
        initial_ = options.initial();
        empty_class_ = options.empty_class();
        threads_ = options.threads();
        class_weights_ = detail::tensor_of<double>(options.class_weights());
        initial_soft_labels_ = detail::tensor_of<float>(options.initial_soft_labels());
        switch (options.reduction()) {
        case ols::reduction::none: reduction_ = ::torch::kNone; break;
        case ols::reduction::sum: reduction_ = ::torch::kSum; break;
        case ols::reduction::mean: reduction_ = ::torch::kMean; break;
        }
    }
};

/// The optional inputs of a call.
struct CallOptions {
    /// The sample weights v: f32 or f64, of the shape of the targets, finite and >= 0. A sample of weight 0 is ignored.
    /// No gradient is computed for them.
    TORCH_ARG(::torch::Tensor, sample_weights);
    /// The second targets of Mixup and CutMix, with the shape and dtypes of the targets. They require `lam`.
    TORCH_ARG(::torch::Tensor, targets2);
    /// The weight of the first target, in [0, 1]: f32 or f64, of the shape of the targets or a single value for all
    /// samples. No gradient is computed for it.
    TORCH_ARG(::torch::Tensor, lam);
    /// The target of the first class: the class is `target - target_offset`, so use 1 for one-based labels.
    TORCH_ARG(std::int64_t, target_offset) = 0;
    /// How a forward pass in training mode affects the statistics.
    TORCH_ARG(ols::update, update) = ols::update::add;

public:
    /// Sets the second targets, with one weight of the first ones for all samples.
    CallOptions &mix(const ::torch::Tensor &targets2, double lam) {
        targets2_ = targets2;
        lam_ = at::scalar_tensor(lam, targets2.options().dtype(at::kDouble));
        return *this;
    }
    CallOptions &mix(const ::torch::Tensor &targets2, const ::torch::Tensor &lam) {
        targets2_ = targets2;
        lam_ = lam;
        return *this;
    }
};

} // namespace ols::torch

#endif
