// The inputs of a call.
#ifndef OLS_BATCH_HPP
#define OLS_BATCH_HPP

#include <ols/tensor.hpp>

namespace ols {

/// How a call on a batch affects the statistics.
enum class update : std::uint32_t {
    /// Adds the correctly classified samples in training mode.
    add = 0,
    /// Leaves the statistics unchanged; for a second pass over a batch that has been counted already.
    no_update = OLS_BATCH_NO_UPDATE,
    /// Subtracts a batch that was added earlier, exactly undoing its effect on the statistics. Works in both modes.
    take_back = OLS_BATCH_TAKE_BACK,
};

/// A batch of N samples of K classes: logits, targets and the optional inputs of a call, which are described by
/// `ols_batch_t` in ols.h. A batch holds views, not copies: the memory must remain valid until the call returns (on
/// CUDA: until the enqueued work has completed). Setters return the batch, so that they can be chained.
class batch {
public:
    /// Creates a batch from logits and targets.
    /// `logits`: f32, f64, f16 or bf16 of shape (N, K) or (N, K, inner), with any strides. `targets`: i64, i32 or u8 of
    /// shape (N) or (N, inner).
    batch(const const_tensor &logits, const const_tensor &targets) {
        detail::require_library();
        check(ols_batch_init(&raw_, sizeof raw_));
        raw_.logits = logits.raw();
        raw_.targets = targets.raw();
    }

    // Single values are stored in the batch itself, so a copy must refer to its own.
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

    /// Sets the sample weights v: f32 or f64, of the shape of the targets, finite and >= 0. A sample of weight 0 is
    /// ignored.
    batch &sample_weights(const const_tensor &values) noexcept {
        raw_.sample_weights = values.raw();
        return *this;
    }

    /// Sets the second targets of Mixup and CutMix, and the weights of the first ones, in [0, 1]: f32 or f64, of the
    /// shape of the targets or a single value for all samples.
    batch &mix(const const_tensor &targets2, const const_tensor &lam) noexcept {
        raw_.targets2 = targets2.raw();
        raw_.lam = lam.raw();
        return *this;
    }
    /// Sets the second targets, with one weight of the first ones for all samples.
    batch &mix(const const_tensor &targets2, double lam) noexcept {
        lam_ = lam;
        return mix(targets2, scalar(lam_));
    }

    /// Sets the upstream gradient: f32 or f64, a single value or, with `reduction::none`, of the shape of the targets.
    /// A loss scale belongs here, because it is applied before a 16-bit gradient is rounded.
    batch &grad_loss(const const_tensor &values) noexcept {
        raw_.grad_loss = values.raw();
        return *this;
    }
    batch &grad_loss(double value) noexcept {
        grad_loss_ = value;
        return grad_loss(scalar(grad_loss_));
    }

    /// Sets the target of the first class: the class is `target - target_offset`, so use 1 for one-based labels. The
    /// ignore index is compared with the target as given.
    batch &target_offset(std::int64_t value) noexcept {
        raw_.target_offset = value;
        return *this;
    }

    batch &update(ols::update value) noexcept {
        raw_.flags = static_cast<std::uint32_t>(value);
        return *this;
    }

    /// Sets the `cudaStream_t` on which the work is enqueued; ignored on the CPU.
    batch &stream(void *value) noexcept {
        raw_.stream = value;
        return *this;
    }

private:
    ols_batch_t raw_ = {};
    double lam_ = 0, grad_loss_ = 0;
};

} // namespace ols

#endif
