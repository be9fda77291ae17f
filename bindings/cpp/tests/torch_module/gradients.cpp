// Autograd: gradients by finite differences and against LibTorch's own loss, graphs that are used twice, what is counted, checkpointing.
#include "torch_module.hpp"

#include <torch/autograd.h>
#include <torch/nn/modules.h>

namespace torch_module {

namespace {

/// Compares the gradient with finite differences of the loss in f64, as gradcheck does.
void check_gradient(OnlineLabelSmoothing module, const Tensor &logits, const Tensor &targets, const CallOptions &call = {}) {
    const Tensor z = logits.detach().clone().requires_grad_();
    const Tensor weights = at::linspace(0.5, 2, module(z, targets, call).numel(), at::kDouble).view_as(module(z, targets, call));
    const auto value = [&](const Tensor &at) { return (module(at, targets, call) * weights).sum(); };
    value(z).backward();
    const torch::NoGradGuard no_graph;
    const Tensor flat = z.detach().clone().contiguous(), gradient = z.grad().contiguous();
    constexpr double step = 1e-6;
    double worst = 0;
    for (std::int64_t i = 0; i < flat.numel(); i++) {
        double &entry = flat.data_ptr<double>()[i];
        const double before = entry;
        entry = before + step;
        const double above = value(flat).item<double>();
        entry = before - step;
        const double below = value(flat).item<double>();
        entry = before;
        worst = std::max(worst, std::fabs((above - below) / (2 * step) - gradient.data_ptr<double>()[i]));
    }
    EXPECT(worst < 1e-7);
}

/// Activation checkpointing in C++: the forward pass runs without a graph, and is repeated with one in the backward pass.
struct Checkpoint : torch::autograd::Function<Checkpoint> {
    static Tensor forward(torch::autograd::AutogradContext *context, const Tensor &input, OnlineLabelSmoothing *module, const Tensor &targets) {
        context->save_for_backward({input, targets});
        context->saved_data["module"] = reinterpret_cast<std::int64_t>(module);
        return (*module)(input * 2, targets);
    }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context, torch::autograd::variable_list incoming) {
        auto &module = *reinterpret_cast<OnlineLabelSmoothing *>(context->saved_data["module"].toInt());
        const auto saved = context->get_saved_variables();
        const torch::AutoGradMode with_graph(true);
        const Tensor input = saved[0].detach().requires_grad_();
        module(input * 2, saved[1]).backward(incoming[0]);
        return {input.grad(), Tensor(), Tensor()};
    }
};

void by_differences() {
    const Tensor weights = at::tensor({1.0, 0.5, 2.0, 0.0, 1.5});
    Tensor targets = targets_for(0);
    targets[4] = -100;
    using reduction_t = OnlineLabelSmoothingOptions::reduction_t;
    for (const reduction_t reduction : {reduction_t(torch::kNone), reduction_t(torch::kMean), reduction_t(torch::kSum)}) {
        OnlineLabelSmoothing module(OnlineLabelSmoothingOptions(K).alpha(0.3).reduction(reduction).class_weights(weights));
        train(module, 1);
        module->next_epoch();
        const Tensor v = at::linspace(0, 3, N, at::kDouble);
        check_gradient(module, logits_for(0, {N, K}, at::kDouble), targets);
        check_gradient(module, logits_for(0, {N, K}, at::kDouble), targets, CallOptions().sample_weights(v).mix(targets_for(2), 0.3));
        check_gradient(module, logits_for(0, {K, N}, at::kDouble).t(), targets, CallOptions().mix(targets_for(2), at::linspace(0, 1, N, at::kDouble)));
        check_gradient(module, logits_for(0, {2, K, 2, 3}, at::kDouble), targets.view({2, 2, 3}));
        check_gradient(module, logits_for(0, {2, K, 2, 3}, at::kDouble).contiguous(at::MemoryFormat::ChannelsLast), targets.view({2, 2, 3}));
        check_gradient(module, logits_for(0, {K}, at::kDouble), targets[0]);
    }
}

void like_cross_entropy() {
    // LibTorch as an independent reference: alpha 1 is cross entropy, and uniform soft labels are its label smoothing.
    const Tensor weights = at::tensor({1.0f, 0.5f, 2.0f, 0.25f, 1.5f});
    Tensor targets = targets_for(3).view({2, 2, 3});
    targets.view(-1)[7] = -100;
    for (const double smoothing : {0.0, 0.2}) {
        OnlineLabelSmoothing ours(OnlineLabelSmoothingOptions(K).alpha(1 - smoothing).initial(ols::initial::uniform).class_weights(weights));
        torch::nn::CrossEntropyLoss theirs(torch::nn::CrossEntropyLossOptions().weight(weights).label_smoothing(smoothing));
        const Tensor a = logits_for(3, {2, K, 2, 3}).requires_grad_(), b = logits_for(3, {2, K, 2, 3}).requires_grad_();
        const Tensor x = ours(a, targets), y = theirs(b, targets);
        (x * 3).backward();
        (y * 3).backward();
        EXPECT(at::allclose(x, y, 1e-5, 1e-6));
        EXPECT(at::allclose(a.grad(), b.grad(), 1e-5, 1e-7));
    }
}

void graphs() {
    OnlineLabelSmoothing module(OnlineLabelSmoothingOptions(K).alpha(0.4));
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
        test::begin("r23 a second backward pass through a retained graph is correct; second derivatives are rejected");
        const Tensor z = logits_for(0, {N, K}, type).requires_grad_();
        const Tensor loss = module(z, targets_for(0), CallOptions().update(ols::update::no_update));
        loss.backward({}, true);
        const Tensor once = z.grad().clone();
        z.mutable_grad().zero_();
        loss.backward({}, true);
        EXPECT(at::equal(z.grad(), once));
        const Tensor gradient = torch::autograd::grad({loss}, {z}, {}, true, true)[0];
        EXPECT(at::equal(gradient, once));
        bool is_refused = false;
        try {
            gradient.sum().backward();
        } catch (const std::exception &error) {
            is_refused = std::string(error.what()).find("second derivatives") != std::string::npos;
        }
        EXPECT(is_refused);
    }
    // The loss scale is applied before the single rounding; otherwise the gradient 2^-26 would be 0 in f16.
    const Tensor small = logits_for(0, {1 << 12, K}, at::kHalf), target = small.argmax(1), z = small.detach().requires_grad_();
    (module(z, target) * 65536).backward();
    const Tensor exact = small.to(at::kFloat).requires_grad_();
    (module(exact, target) * 65536).backward();
    EXPECT(at::allclose(z.grad().to(at::kFloat), exact.grad(), 2e-3, 1e-4) && z.grad().count_nonzero().item<std::int64_t>() == z.numel());
    // For f32 the gradient is kept across the end of an epoch; a recomputed 16-bit gradient would use other soft labels.
    const Tensor single = logits_for(1).requires_grad_(), half = logits_for(1, {N, K}, at::kBFloat16).requires_grad_();
    const Tensor losses[] = {module(single, targets_for(1)), module(half, targets_for(1))};
    module->next_epoch();
    losses[0].backward();
    EXPECT(single.grad().defined());
    THROWS(OLS_STATUS_INVALID_STATE, "next_epoch", losses[1].backward());

    // Without a gradient there is no graph, but the batch is counted; evaluation counts nothing.
    OnlineLabelSmoothing counting(K);
    {
        const torch::NoGradGuard no_graph;
        EXPECT(!counting(logits_for(0).requires_grad_(), targets_for(0)).requires_grad());
    }
    const Tensor counts = counting->counts.clone();
    EXPECT(counts.sum().item<std::int64_t>() == 4);
    counting->eval();
    counting(logits_for(0).requires_grad_(), targets_for(0)).backward();
    EXPECT(at::equal(counting->counts, counts));
    counting->train();
    // A counted batch can be taken back, also by the update option of a call.
    train(counting, 5);
    EXPECT(!at::equal(counting->counts, counts));
    counting->take_back(logits_for(5), targets_for(5));
    EXPECT(at::equal(counting->counts, counts));
    THROWS(OLS_STATUS_INVALID_STATE, "take", counting->take_back(logits_for(6), targets_for(6)), counting->take_back(logits_for(6), targets_for(6)));
    counting->accumulate(logits_for(7).softmax(1), targets_for(7));
    EXPECT(counting->counts.sum().item<std::int64_t>() == 8);
}

void checkpointing() {
    OnlineLabelSmoothing plain(K), checkpointed(K);
    const Tensor a = logits_for(0).requires_grad_(), b = logits_for(0).requires_grad_();
    plain(a * 2, targets_for(0)).backward();
    Checkpoint::apply(b, &checkpointed, targets_for(0)).backward();
    EXPECT(at::equal(a.grad(), b.grad()));
    EXPECT(at::equal(plain->counts, checkpointed->counts) && at::equal(plain->sums, checkpointed->sums));
}

} // namespace

void gradients() {
    by_differences();
    like_cross_entropy();
    graphs();
    checkpointing();
}

} // namespace torch_module
