// What an ols::torch module is told at its creation, and at a call.
#ifndef OLS_TORCH_OPTIONS_HPP
#define OLS_TORCH_OPTIONS_HPP

#include <ols/ols.hpp>

#include <torch/arg.h>
#include <torch/enum.h>
#include <torch/nn/options/loss.h>
#include <torch/types.h>

namespace ols::torch {

// The macros of LibTorch say torch::nn, which would be looked for in here.
namespace nn = ::torch::nn;

namespace detail {

/// The values of a small tensor of any device and floating dtype, row-major.
template <class T>
std::vector<T> values_of(const char *name, const at::Tensor &tensor, std::int64_t dimensions) {
    if (tensor.dim() != dimensions) {
        throw error(OLS_STATUS_INVALID_SHAPE,
                    std::string("ols::torch: ") + name + " has " + std::to_string(tensor.dim()) + " dimensions instead of " + std::to_string(dimensions));
    }
    const at::Tensor host = tensor.detach().to(at::kCPU, c10::CppTypeToScalarType<T>::value).contiguous();
    const T *const data = host.template data_ptr<T>();
    return std::vector<T>(data, data + host.numel());
}

/// A tensor of its own with the values of a view in host memory.
template <class T>
at::Tensor tensor_of(const const_tensor &view) {
    if (!view.is_given()) return {};
    const auto dimensions = static_cast<std::size_t>(view.dimensions());
    return at::from_blob(view.raw().data, at::IntArrayRef(view.raw().shape, dimensions), at::IntArrayRef(view.raw().strides, dimensions),
                         at::TensorOptions(c10::CppTypeToScalarType<T>::value))
        .clone();
}

} // namespace detail

/// Options of `OnlineLabelSmoothing`, with the library's defaults; ols.h describes each of them. Checked where the module is made.
///
///     ols::torch::OnlineLabelSmoothingOptions(10).alpha(0.5).reduction(torch::kSum)
struct OnlineLabelSmoothingOptions {
    /// `torch::kNone`, `torch::kMean` or `torch::kSum`.
    using reduction_t = ::torch::nn::CrossEntropyLossOptions::reduction_t;

    // NOLINTNEXTLINE: from a number, as LibTorch's own options are.
    OnlineLabelSmoothingOptions(std::int64_t num_classes) { take_over(ols::options(num_classes)); }

    /// K, at least 2.
    TORCH_ARG(std::int64_t, num_classes);
    /// Weight of the hard label, in [0, 1].
    TORCH_ARG(double, alpha);
    /// For `ols::initial::smoothing`, in [0, 1].
    TORCH_ARG(double, smoothing);
    /// Share of the old soft label in the new one, in [0, 1).
    TORCH_ARG(double, momentum);
    /// A class whose largest soft label is at least this keeps its row for good; greater than 0, infinity: never.
    TORCH_ARG(double, freeze_above);
    /// Samples of a class in an epoch that make it measured, at least 1.
    TORCH_ARG(std::int64_t, min_count);
    /// A sample with this target takes no part.
    TORCH_ARG(std::int64_t, ignore_index);
    /// The soft labels of the first epoch.
    TORCH_ARG(ols::initial, initial);
    /// The soft label of a class that was not measured in an epoch.
    TORCH_ARG(ols::empty_class, empty_class);
    /// How the losses of a batch become one number.
    TORCH_ARG(reduction_t, reduction);
    /// The most threads that a call may use; 0: as many as the process may run on.
    TORCH_ARG(std::int32_t, threads);
    /// w: (K), finite and >= 0, of any floating dtype and device; copied. Undefined: 1 each.
    TORCH_ARG(::torch::Tensor, class_weights);
    /// S of the first epoch, with `ols::initial::matrix`: (K, K), a row per class, finite and >= 0; copied.
    TORCH_ARG(::torch::Tensor, initial_soft_labels);

public:
    /// Sets `initial`, `smoothing` and `empty_class` to what others do.
    OnlineLabelSmoothingOptions &preset(ols::preset value) {
        const ols::options named = ols::options(num_classes_).preset(value);
        initial_ = named.initial();
        smoothing_ = named.smoothing();
        empty_class_ = named.empty_class();
        return *this;
    }

    /// The same for the library, which checks them where a criterion is made.
    ols::options to_library() const {
        ols::options options(num_classes_);
        options.alpha(alpha_).smoothing(smoothing_).momentum(momentum_).freeze_above(freeze_above_).min_count(min_count_);
        options.ignore_index(ignore_index_).empty_class(empty_class_).threads(threads_);
        if (class_weights_.defined()) options.class_weights(detail::values_of<double>("class_weights", class_weights_, 1));
        if (initial_soft_labels_.defined()) options.initial_soft_labels(detail::values_of<float>("initial_soft_labels", initial_soft_labels_, 2));
        return options.initial(initial_).reduction(library_reduction());
    }

    /// `reduction` as the library has it.
    ols::reduction library_reduction() const {
        switch (::torch::enumtype::reduction_get_enum(reduction_)) {
        case at::Reduction::None: return ols::reduction::none;
        case at::Reduction::Sum: return ols::reduction::sum;
        default: return ols::reduction::mean;
        }
    }

    /// Takes over what the library has.
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

/// What a call may be given besides logits and targets.
struct CallOptions {
    /// v: f32 or f64 of the shape of the targets, finite and >= 0. A sample that weighs 0 takes no part. Gets no gradient.
    TORCH_ARG(::torch::Tensor, sample_weights);
    /// The second targets of Mixup and CutMix, as the targets; with `lam`.
    TORCH_ARG(::torch::Tensor, targets2);
    /// The weight of the first target in [0, 1], f32 or f64: of the shape of the targets, or one value. Gets no gradient.
    TORCH_ARG(::torch::Tensor, lam);
    /// The class is `target - target_offset`: 1 for labels that count from 1.
    TORCH_ARG(std::int64_t, target_offset) = 0;
    /// What a forward pass in training mode does to the statistics.
    TORCH_ARG(ols::update, update) = ols::update::add;

public:
    /// The second targets with one weight for all samples.
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
