// What one call works on.
#ifndef OLS_BATCH_HPP
#define OLS_BATCH_HPP

#include <ols/tensor.hpp>

namespace ols {

/// What a forward pass does to the statistics in training mode.
enum class update : std::uint32_t {
    /// Adds to them.
    add = 0,
    /// Leaves them: for a second pass over a batch that was counted before.
    no_update = OLS_BATCH_NO_UPDATE,
    /// Takes a batch back that was added before, exactly; in both modes.
    take_back = OLS_BATCH_TAKE_BACK,
};

/// Logits and targets of N samples over K classes, and what else a call may be given; `ols_batch_t` in ols.h describes all. Views, not copies: the memory
/// must stay until the call returns (on CUDA: until the enqueued work has run). The setters return the batch for the next one.
class batch {
public:
    /// `logits`: f32, f64, f16 or bf16 of shape (N, K) or (N, K, inner), with any strides. `targets`: i64, i32 or u8 of shape (N) or (N, inner).
    batch(const const_tensor &logits, const const_tensor &targets) {
        detail::require_library();
        check(ols_batch_init(&raw_, sizeof raw_));
        raw_.logits = logits.raw();
        raw_.targets = targets.raw();
    }

    // Single values lie in the batch itself, so that a copy must look at its own.
    batch(const batch &other) noexcept { *this = other; }
    batch &operator=(const batch &other) noexcept {
        raw_ = other.raw_;
        lam_ = other.lam_;
        grad_loss_ = other.grad_loss_;
        if (raw_.lam.data == &other.lam_) raw_.lam.data = &lam_;
        if (raw_.grad_loss.data == &other.grad_loss_) raw_.grad_loss.data = &grad_loss_;
        return *this;
    }
    ~batch() = default;

    const ols_batch_t &raw() const noexcept { return raw_; }

    /// v: f32 or f64 of the shape of the targets, finite and >= 0. A sample that weighs 0 takes no part.
    batch &sample_weights(const const_tensor &values) noexcept {
        raw_.sample_weights = values.raw();
        return *this;
    }

    /// The second targets of Mixup and CutMix, and the weights of the first ones in [0, 1]: f32 or f64 of the shape of the targets, or one value.
    batch &mix(const const_tensor &targets2, const const_tensor &lam) noexcept {
        raw_.targets2 = targets2.raw();
        raw_.lam = lam.raw();
        return *this;
    }
    /// The same with one weight for all samples.
    batch &mix(const const_tensor &targets2, double lam) noexcept {
        lam_ = lam;
        return mix(targets2, scalar(lam_));
    }

    /// The gradient of the whole with respect to the loss: f32 or f64, one value, or with `reduction::none` of the shape of the targets. A loss scale
    /// belongs here.
    batch &grad_loss(const const_tensor &values) noexcept {
        raw_.grad_loss = values.raw();
        return *this;
    }
    batch &grad_loss(double value) noexcept {
        grad_loss_ = value;
        return grad_loss(scalar(grad_loss_));
    }

    /// The class is `target - target_offset`: 1 for labels that count from 1. The ignore index is compared before.
    batch &target_offset(std::int64_t value) noexcept {
        raw_.target_offset = value;
        return *this;
    }

    batch &update(ols::update value) noexcept {
        raw_.flags = static_cast<std::uint32_t>(value);
        return *this;
    }

    /// A `cudaStream_t`; the CPU does not look at it.
    batch &stream(void *value) noexcept {
        raw_.stream = value;
        return *this;
    }

private:
    ols_batch_t raw_;
    double lam_ = 0, grad_loss_ = 0;
};

} // namespace ols

#endif
