// The conformance cases, run through the LibTorch module: every forward pass with autograd, every state through torch::save.
#ifndef TORCH_CONFORMANCE_HPP
#define TORCH_CONFORMANCE_HPP

#include "vectors.hpp"

#include <ols/torch.hpp>

namespace torch_conformance {

using namespace vectors;

inline constexpr at::ScalarType scalar_types[] = {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kByte};

/// A tensor that views a block's memory; undefined if there is none.
inline at::Tensor tensor_of(Block &block) {
    if (block.bytes.empty()) return {};
    const auto dimensions = static_cast<std::size_t>(block.view.ndim);
    return at::from_blob(block.first(), at::IntArrayRef(block.view.shape, dimensions), at::IntArrayRef(block.view.strides, dimensions),
                         at::TensorOptions(scalar_types[block.dtype]));
}

inline at::Tensor tensor_of(const double *values, std::size_t n) {
    return values ? at::tensor(at::ArrayRef<double>(values, n), at::kDouble) : at::Tensor();
}

inline ols::torch::OnlineLabelSmoothingOptions options_of(const vec_options &given) {
    ols::torch::OnlineLabelSmoothingOptions options(given.classes);
    options.alpha(given.alpha).empty_class(static_cast<ols::empty_class>(given.empty_class)).min_count(given.min_count).momentum(given.momentum);
    options.ignore_index(given.ignore_index).initial(static_cast<ols::initial>(given.initial)).class_weights(tensor_of(given.class_weights, given.n_class_weights));
    if (given.initial == VEC_SMOOTHING) options.smoothing(given.smoothing);
    if (given.has_freeze_above) options.freeze_above(given.freeze_above);
    if (given.reduction == VEC_REDUCTION_NONE) options.reduction(::torch::kNone);
    if (given.reduction == VEC_REDUCTION_SUM) options.reduction(::torch::kSum);
    if (given.initial == VEC_MATRIX) {
        at::Tensor matrix = tensor_of(given.matrix, given.n_matrix);
        const std::int64_t k = given.classes;
        options.initial_soft_labels(k > 0 && matrix.numel() % k == 0 ? matrix.view({-1, k}) : matrix);
    }
    return options;
}

class Subject {
public:
    explicit Subject(const vec_options &options) : module_(options_of(options)) { module_->train(options.mode == VEC_TRAIN); }

    void next_epoch() { module_->next_epoch(); }
    void set_mode(ols::mode mode) { module_->train(mode == ols::mode::train); }
    void set_alpha(double alpha) { module_->set_alpha(alpha); }
    void set_soft_labels(const std::vector<float> &values) {
        module_->set_soft_labels(at::tensor(values).view({module_->options.num_classes(), -1}));
    }
    void save_load(const vec_options &options) {
        std::stringstream stream;
        ::torch::save(module_, stream);
        ols::torch::OnlineLabelSmoothing other(ols::torch::OnlineLabelSmoothingOptions(options.classes).reduction(module_->options.reduction()));
        other->train(module_->is_training());
        ::torch::load(other, stream);
        module_ = other;
    }

    void run(const vec_batch &from, const vec_step &step) {
        Blocks blocks(from);
        ols::torch::CallOptions call;
        call.sample_weights(tensor_of(blocks.sample_weights)).target_offset(from.target_offset).update(updates[step.update]);
        call.mix(tensor_of(blocks.targets2), tensor_of(blocks.lam));
        const bool has_grad = step.action == VEC_BACKWARD || step.has_grad || step.in_place;
        const at::Tensor logits = tensor_of(blocks.logits).detach().requires_grad_(has_grad), targets = tensor_of(blocks.targets);
        const auto before = bytes();
        at::Tensor loss;
        const bool succeeded = ends_with(step.expect.error, step.expect.message, [&] {
            if (step.action == VEC_ACCUMULATE) return module_->accumulate(logits, targets, call);
            if (step.action == VEC_BACKWARD) call.update(ols::update::no_update);
            loss = module_(logits, targets, call);
            if (!has_grad) return;
            const at::Tensor given = tensor_of(blocks.grad_loss);
            const at::Tensor incoming = given.defined() ? given.to(loss.dtype()) : at::ones_like(loss);
            // The library accepts a single value; autograd requires one per sample.
            loss.backward(incoming.numel() == 1 ? incoming.reshape({}).expand_as(loss) : incoming);
        });
        if (!succeeded && bytes() != before) wrong("the state has changed in spite of an error");
        if (!succeeded || step.action == VEC_ACCUMULATE) return;
        const at::Tensor losses = loss.detach().to(at::kDouble).contiguous();
        if (step.has_loss) compare("loss", step.expect.loss, losses.numel(), [&](std::int64_t i) { return losses.data_ptr<double>()[i]; });
        if (!has_grad) return;
        const at::Tensor grad = logits.grad().to(at::kDouble).contiguous();
        same("grad's dtype", static_cast<double>(logits.grad().scalar_type()), static_cast<double>(logits.scalar_type()));
        compare_gradient(step.expect, grad.numel(), [&](std::int64_t i) { return grad.data_ptr<double>()[i]; });
    }

    void check_state(const vec_expect &expect) {
        compare_statistics(expect, [&](std::size_t i) { return module_->counts.data_ptr<std::int64_t>()[i]; },
                           [&](std::size_t i) { return module_->sums.data_ptr<std::int64_t>()[i]; });
        compare("soft_labels", expect.soft_labels, module_->soft_labels.numel(),
                [&](std::int64_t i) { return static_cast<double>(module_->soft_labels.data_ptr<float>()[i]); });
        if (expect.epoch != -1) same("epoch", static_cast<double>(module_->epoch()), static_cast<double>(expect.epoch));
        compare_report(module_->report(), expect);
    }

private:
    std::string bytes() const {
        std::stringstream stream;
        ::torch::save(module_, stream);
        return stream.str();
    }

    ols::torch::OnlineLabelSmoothing module_;
};

/// Returns why LibTorch cannot express a case, or NULL if it can.
inline const char *reason_to_skip(const vec_case &c) {
    const auto is_negative = [](const vec_view &view) { return view.strides[0] < 0 || view.strides[1] < 0 || view.strides[2] < 0; };
    for (std::size_t i = 0; i < c.n_steps; i++) {
        const vec_step &step = c.steps[i];
        if (step.action != VEC_FORWARD && step.action != VEC_BACKWARD && step.action != VEC_ACCUMULATE) continue;
        const vec_batch &batch = c.batches[step.batch];
        const char *const message = step.expect.message;
        if (message && std::strstr(message, "grad_loss")) return "LibTorch checks the incoming gradient itself";
        if (is_negative(batch.logits.view) || is_negative(batch.targets.view) || is_negative(batch.sample_weights.view) || is_negative(batch.lam.view)) {
            return "LibTorch has no negative strides";
        }
    }
    return nullptr;
}

} // namespace torch_conformance

#endif
