// A pass over a batch, as an operation of LibTorch's autograd.
#ifndef OLS_TORCH_FUNCTION_HPP
#define OLS_TORCH_FUNCTION_HPP

#include <ols/torch/tensors.hpp>

#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/custom_class.h>

#include <atomic>

namespace ols::torch::detail {

/// A criterion whose state is in tensors, which it keeps alive.
struct Core {
    Core(const ols::options &options, std::vector<at::Tensor> tensors) : criterion(options), state(std::move(tensors)) {}

    ols::criterion criterion;
    const std::vector<at::Tensor> state;
    /// Incremented by changes that affect gradients: of the soft labels or alpha.
    std::atomic<std::uint64_t> version{0};
};

/// One batch and its criterion. A node of the graph keeps it if the gradient is to be recomputed.
struct Pass : ::torch::CustomClassHolder {
    std::shared_ptr<Core> core;
    at::Tensor targets, sample_weights, targets2, lam;
    std::int64_t target_offset = 0;
    ols::update update = ols::update::add;
    bool has_loss_per_sample = false;
    std::uint64_t version = 0;

    ols::batch batch(const at::Tensor &logits) const {
        ols::batch batch(view_of("logits", logits, OLS_DLPACK_CLASS_SECOND), view_of("targets", targets, OLS_DLPACK_SAMPLES));
        batch.sample_weights(view_of("sample_weights", sample_weights, OLS_DLPACK_SAMPLES));
        batch.mix(view_of("targets2", targets2, OLS_DLPACK_SAMPLES), view_of("lam", lam, OLS_DLPACK_SAMPLES));
        batch.target_offset(target_offset).update(update).stream(current_stream(logits.device()));
        return batch;
    }

    at::Tensor empty_loss(const at::Tensor &logits) const {
        const auto options = logits.options().dtype(logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat).requires_grad(false);
        return has_loss_per_sample ? at::empty(targets.sizes(), options) : at::empty({}, options);
    }
};

/// Creates a gradient with the dtype and the strides of the logits; row-major if these repeat elements.
inline at::Tensor empty_gradient(const at::Tensor &logits) {
    at::Tensor gradient = at::empty_like(logits);
    ols_tensor_t view;
    return collapses("grad", gradient, OLS_DLPACK_CLASS_SECOND, &view) ? gradient : at::empty_like(logits, at::MemoryFormat::Contiguous);
}

/// The loss as a node of the graph. For f32 and f64, one pass computes loss and gradient; the gradient is kept, and
/// multiplied by the upstream gradient in the backward pass. For 16-bit logits, the gradient is recomputed from the
/// logits with the upstream gradient applied before the single rounding; otherwise a loss scale would have no effect.
class Loss : public ::torch::autograd::Function<Loss> {
public:
    static at::Tensor forward(::torch::autograd::AutogradContext *context, const at::Tensor &logits, const c10::intrusive_ptr<Pass> &pass) {
        const at::Tensor loss = pass->empty_loss(logits);
        context->saved_data["pass"] = c10::IValue::make_capsule(pass);
        if (at::elementSize(logits.scalar_type()) == 2) {
            pass->core->criterion.forward(pass->batch(logits), view_of("loss", loss, OLS_DLPACK_SAMPLES));
            context->save_for_backward({logits, pass->targets, pass->sample_weights, pass->targets2, pass->lam});
            // For the backward pass, which never updates the statistics.
            pass->update = ols::update::no_update;
        } else {
            const at::Tensor gradient = empty_gradient(logits);
            pass->core->criterion.forward(pass->batch(logits), view_of("loss", loss, OLS_DLPACK_SAMPLES), view_of("grad", gradient, OLS_DLPACK_CLASS_SECOND));
            context->save_for_backward({gradient});
        }
        return loss;
    }

    static ::torch::autograd::variable_list backward(::torch::autograd::AutogradContext *context, ::torch::autograd::variable_list incoming) {
        const auto saved = context->get_saved_variables();
        at::Tensor gradient;
        {
            const at::AutoGradMode no_graph(false);
            const auto pass = c10::static_intrusive_pointer_cast<Pass>(context->saved_data["pass"].toCapsule());
            gradient = saved.size() == 1 ? scaled(saved[0], incoming[0], *pass) : recomputed(saved[0], incoming[0], *pass);
        }
        if (at::GradMode::is_enabled()) {
            // If the gradient were a constant, second derivatives would be silently wrong.
            const auto refusal = std::make_shared<::torch::autograd::DelayedError>("ols::torch: second derivatives of OnlineLabelSmoothing are not supported", 1);
            gradient = (*refusal)({gradient.detach().requires_grad_()})[0];
        }
        return {gradient, at::Tensor()};
    }

private:
    static at::Tensor scaled(const at::Tensor &gradient, const at::Tensor &incoming, const Pass &pass) {
        return gradient * (pass.has_loss_per_sample ? incoming.unsqueeze(1) : incoming);
    }

    static at::Tensor recomputed(const at::Tensor &logits, const at::Tensor &incoming, const Pass &pass) {
        if (pass.core->version != pass.version) {
            throw error(OLS_STATUS_INVALID_STATE, "ols::torch: the soft labels or alpha have changed since the forward pass; with 16-bit logits, call "
                                                  "backward before next_epoch, set_alpha, set_soft_labels and load");
        }
        const at::Tensor gradient = empty_gradient(logits);
        const at::Tensor factor = readable("grad_loss", incoming, OLS_DLPACK_SAMPLES);
        pass.core->criterion.backward(pass.batch(logits), view_of("grad", gradient, OLS_DLPACK_CLASS_SECOND), view_of("grad_loss", factor, OLS_DLPACK_SAMPLES));
        return gradient;
    }
};

/// Returns whether this code runs inside a backward pass, as does the recomputation of activation checkpointing.
inline bool is_inside_backward() { return ::torch::autograd::get_current_graph_task_exec_info() != nullptr; }

} // namespace ols::torch::detail

#endif
