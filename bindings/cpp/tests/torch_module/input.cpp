// Tensors that are read in place and those that are copied, shapes, and input that is refused.
#include "torch_module.hpp"

namespace torch_module {

namespace {

class Warnings : public c10::WarningHandler {
public:
    void process(const c10::Warning &warning) override { messages.push_back(warning.msg()); }
    std::vector<std::string> messages;
};

void shapes() {
    test::begin("r16 tensors that collapse are read in place; others are copied with a warning");
    using ols::torch::detail::readable;
    const auto is_read_in_place = [](const Tensor &tensor) { return readable("logits", tensor, OLS_DLPACK_CLASS_SECOND).is_same(tensor); };
    const Tensor image = logits_for(0, {2, K, 2, 3});
    EXPECT(is_read_in_place(image) && is_read_in_place(image.contiguous(at::MemoryFormat::ChannelsLast)));
    EXPECT(is_read_in_place(logits_for(0, {2, 6, K}).transpose(1, 2)) && is_read_in_place(logits_for(0, {K, N}).t()));
    EXPECT(is_read_in_place(logits_for(0, {N, 2 * K}).slice(1, 0, K)) && is_read_in_place(logits_for(0, {1, K}).expand({N, K})));
    const Tensor crossed = logits_for(0, {2, K, 3, 2}).transpose(2, 3), targets = targets_for(0).view({2, 2, 3});
    OnlineLabelSmoothing module(K);
    Warnings warnings;
    {
        const c10::WarningUtils::WarningHandlerGuard guard(&warnings);
        EXPECT(!is_read_in_place(crossed));
        const Tensor a = crossed.detach().requires_grad_(), b = crossed.contiguous().detach().requires_grad_();
        const Tensor x = module(a, targets), y = module(b, targets);
        x.backward();
        y.backward();
        EXPECT(at::equal(x, y) && at::equal(a.grad(), b.grad()));
    }
    EXPECT(warnings.messages.size() == 1 && warnings.messages[0].find("strides of logits") != std::string::npos);

    // The shape must match, not only the number of elements.
    THROWS(OLS_STATUS_INVALID_SHAPE, "targets.shape = [2, 3, 2]|[2, 2, 3]", module(image, targets_for(0).view({2, 3, 2})));
    THROWS(OLS_STATUS_INVALID_SHAPE, "targets", module(logits_for(0), targets_for(0).view({3, 4})));
    THROWS(OLS_STATUS_INVALID_SHAPE, "logits", module(at::tensor(1.0f), targets_for(0)));
    // Dimensions are merged only with those of logits that have as many.
    const Tensor flat = logits_for(0, {2, K, 6});
    THROWS(OLS_STATUS_INVALID_SHAPE, "targets.shape = [2, 2, 3]|[2, 6]", module(flat, targets));
    THROWS(OLS_STATUS_INVALID_SHAPE, "targets.shape = [2, 6, 1]|[2, 6]", module(flat, targets.view({2, 6, 1})));
    THROWS(OLS_STATUS_INVALID_SHAPE, "targets.shape = [1, 1, 1]|[]", module(logits_for(0)[0], targets_for(0)[0].view({1, 1, 1})));
    THROWS(OLS_STATUS_INVALID_SHAPE, "sample_weights.shape = [2, 2, 3]|[2, 6]",
           module(flat, targets.view({2, 6}), CallOptions().sample_weights(at::ones({2, 2, 3}))));
    // One lam for all samples may have a dimension.
    const auto one_lam = [&](const Tensor &lam) { return module(image, targets, CallOptions().mix(targets, lam).update(ols::update::no_update)); };
    EXPECT(at::equal(one_lam(at::tensor(0.25f)), one_lam(at::tensor({0.25f}))));
    for (const Tensor &negated : {at::tensor(-0.25f), at::tensor({-0.25f})}) EXPECT(at::equal(one_lam(at::_neg_view(negated)), one_lam(at::tensor(0.25f))));
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "lam has layout Sparse", one_lam(at::tensor({0.25f}).to_sparse()));
    // A single sample, and an empty batch.
    OnlineLabelSmoothing each(OnlineLabelSmoothingOptions(K).reduction(torch::kNone));
    const Tensor one = each(logits_for(0)[0], targets_for(0)[0]), all = each(logits_for(0), targets_for(0));
    EXPECT(one.dim() == 0 && all.dim() == 1 && at::equal(one, all[0]));
    EXPECT(at::equal(each(image, targets), each(image.contiguous(), targets)) && each(image, targets).sizes() == targets.sizes());
    const Tensor nothing = at::empty({0, K}).requires_grad_();
    const Tensor zero = module(nothing, at::empty({0}, at::kLong));
    zero.backward();
    EXPECT(zero.item<float>() == 0 && nothing.grad().numel() == 0 && each(nothing, at::empty({0}, at::kLong)).numel() == 0);
    EXPECT(at::equal(module(logits_for(0), targets_for(0) + 1, CallOptions().target_offset(1)), module(logits_for(0), targets_for(0).to(at::kByte))));
}

void bad_input(const std::string &folder) {
    OnlineLabelSmoothing module(K);
    train(module, 0);
    const auto before = bytes_of(module, folder);
    const Tensor z = logits_for(0), y = targets_for(0);
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "logits is an undefined", module(Tensor(), y));
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "targets is an undefined", module(z, Tensor()));
    THROWS(OLS_STATUS_TARGET_OUT_OF_RANGE, "target[2] = 9", module(z, y.index_put({at::tensor(2)}, at::tensor(9, at::kLong))));
    THROWS(OLS_STATUS_INVALID_DTYPE, "targets|Bool", module(z, y.to(at::kBool)));
    THROWS(OLS_STATUS_INVALID_DTYPE, "targets", module(z, y.to(at::kShort)));
    THROWS(OLS_STATUS_INVALID_DTYPE, "logits", module(z.to(at::kLong), y));
    THROWS(OLS_STATUS_INVALID_DTYPE, "logits|ComplexFloat", module(z.to(at::kComplexFloat), y));
    THROWS(OLS_STATUS_INVALID_DEVICE, "logits|meta", module(z.to(at::kMeta), y));
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "logits has layout Sparse", module(z.to_sparse(), y));
    THROWS(OLS_STATUS_INVALID_SHAPE, "logits", module(logits_for(0, {N, K + 1}), y));
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "sample_weights requires a gradient", module(z, y, CallOptions().sample_weights(at::ones(N).requires_grad_())));
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "lam", module(z, y, CallOptions().targets2(y)));
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "lam[0] = 1.5", module(z, y, CallOptions().mix(y, 1.5)));
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "alpha = 7", module->set_alpha(7));
    THROWS(OLS_STATUS_INVALID_SHAPE, "soft_labels", module->set_soft_labels(at::ones({K, K + 1})));
    THROWS(OLS_STATUS_INVALID_SHAPE, "soft_labels has 4 dimensions", module->set_soft_labels(at::ones({1, 1, K, K})));
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "soft_labels is an undefined", module->set_soft_labels(Tensor()));
    THROWS(OLS_STATUS_IO, "missing", module->save_file(folder + "/missing/file"));
    THROWS(OLS_STATUS_INVALID_DEVICE, "meta", module->to(torch::Device(at::kMeta)));
    EXPECT(bytes_of(module, folder) == before && module->options.alpha() == 0.5 && module->soft_labels.device().is_cpu());
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "num_classes", OnlineLabelSmoothing(1));
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "num_classes", OnlineLabelSmoothing(-1));
    THROWS(OLS_STATUS_INVALID_SHAPE, "class_weights", OnlineLabelSmoothing(OnlineLabelSmoothingOptions(K).class_weights(at::ones(K - 1))));
    THROWS(OLS_STATUS_INVALID_SHAPE, "class_weights has 2 dimensions", OnlineLabelSmoothing(OnlineLabelSmoothingOptions(K).class_weights(at::ones({K, 1}))));
    THROWS(OLS_STATUS_INVALID_DTYPE, "class_weights|Long", OnlineLabelSmoothing(OnlineLabelSmoothingOptions(K).class_weights(at::ones(K, at::kLong))));
    // A reset that fails changes nothing.
    module->options.alpha(3);
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "alpha", module->reset());
    EXPECT(bytes_of(module, folder) == before);
    module->options.alpha(0.5);
    module->reset();
    EXPECT(module->epoch() == 0 && module->counts.sum().item<std::int64_t>() == 0);
}

} // namespace

void input(const std::string &folder) {
    shapes();
    bad_input(folder);
}

} // namespace torch_module
