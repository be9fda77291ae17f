// The module of ols/torch.hpp: the conformance cases, then what users of LibTorch rely on; each test names its rules of bindings/RULES.md. Arguments: a
// folder for files, the stand-in for the CUDA driver.
#include "torch_conformance.hpp"
#include "torch_cuda.hpp"

#include <torch/autograd.h>
#include <torch/nn/modules.h>

#include <fstream>
#include <thread>

namespace {

using ols::torch::CallOptions;
using ols::torch::OnlineLabelSmoothing;
using ols::torch::OnlineLabelSmoothingOptions;
using torch::Tensor;

constexpr std::int64_t N = 12, K = 5;

Tensor logits_for(int step, at::IntArrayRef shape = {N, K}, at::ScalarType type = at::kFloat) {
    return at::arange(c10::multiply_integers(shape), at::kDouble).mul(12.9898).add(78.233 * step).sin().mul(3).view(shape).to(type);
}
Tensor targets_for(int step) {
    // Every third sample is classified correctly.
    const Tensor guess = logits_for(step).argmax(1);
    return at::where(at::arange(N).remainder(3) == 0, guess, (guess + 1).remainder(K));
}
void train(OnlineLabelSmoothing &module, int step) { module(logits_for(step), targets_for(step)); }

std::vector<std::uint8_t> bytes_of(OnlineLabelSmoothing &module, const std::string &folder) {
    module->save_file(folder + "/module.ols");
    std::ifstream file(folder + "/module.ols", std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

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

void gradients() {
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

void autograd() {
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

void checkpointing() {
    OnlineLabelSmoothing plain(K), checkpointed(K);
    const Tensor a = logits_for(0).requires_grad_(), b = logits_for(0).requires_grad_();
    plain(a * 2, targets_for(0)).backward();
    Checkpoint::apply(b, &checkpointed, targets_for(0)).backward();
    EXPECT(at::equal(a.grad(), b.grad()));
    EXPECT(at::equal(plain->counts, checkpointed->counts) && at::equal(plain->sums, checkpointed->sums));
}

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

/// A model that contains its loss.
struct ModelImpl : torch::nn::Cloneable<ModelImpl> {
    ModelImpl() { reset(); }
    void reset() override {
        network = register_module("network", torch::nn::Linear(3, K));
        const auto options = OnlineLabelSmoothingOptions(K).alpha(0.3).momentum(0.25).class_weights(at::linspace(1, 2, K));
        criterion = register_module("criterion", OnlineLabelSmoothing(options));
    }
    torch::nn::Linear network{nullptr};
    OnlineLabelSmoothing criterion{nullptr};
};
TORCH_MODULE(Model);

void modules(const std::string &folder) {
    Model model;
    OnlineLabelSmoothing criterion = model->criterion;
    EXPECT(model->parameters().size() == 2 && model->buffers().size() == 4 && model->named_buffers().contains("criterion.soft_labels"));
    train(criterion, 0);
    criterion->next_epoch();
    train(criterion, 1);
    const auto state = bytes_of(criterion, folder);
    // Mode and dtype of the whole model; the dtypes of the state do not change.
    model->eval();
    train(criterion, 2);
    EXPECT(bytes_of(criterion, folder) == state);
    model->train();
    model->to(at::kDouble);
    model->to(at::kHalf);
    model->to(torch::Device(at::kCPU), at::kFloat);
    EXPECT(criterion->soft_labels.scalar_type() == at::kFloat && criterion->sums.scalar_type() == at::kLong && bytes_of(criterion, folder) == state);

    test::begin("r12 a clone is an independent criterion with the same state, epoch and mode");
    model->eval();
    Model copy(std::dynamic_pointer_cast<ModelImpl>(model->clone()));
    EXPECT(bytes_of(copy->criterion, folder) == state && copy->criterion->epoch() == 1 && !copy->criterion->is_training());
    EXPECT(copy->criterion->soft_labels.data_ptr() != criterion->soft_labels.data_ptr());
    copy->train();
    train(copy->criterion, 2);
    EXPECT(bytes_of(criterion, folder) == state && bytes_of(copy->criterion, folder) != state);
    // The tensors of the options are copied: later changes by the caller reach neither the module nor its clones.
    const Tensor weights = at::ones(K), matrix = at::full({K, K}, 0.2);
    OnlineLabelSmoothing weighted(OnlineLabelSmoothingOptions(K).class_weights(weights).initial(ols::initial::matrix).initial_soft_labels(matrix));
    const auto weighted_state = bytes_of(weighted, folder);
    weights.mul_(at::arange(K));
    matrix.zero_();
    OnlineLabelSmoothing twin(std::dynamic_pointer_cast<ols::torch::OnlineLabelSmoothingImpl>(weighted->clone()));
    EXPECT(bytes_of(twin, folder) == weighted_state);
    weighted->reset();
    EXPECT(bytes_of(weighted, folder) == weighted_state);
    OnlineLabelSmoothing alone(std::dynamic_pointer_cast<ols::torch::OnlineLabelSmoothingImpl>(copy->criterion->clone()));
    copy->criterion->next_epoch();
    alone->next_epoch();
    EXPECT(bytes_of(alone, folder) == bytes_of(copy->criterion, folder) && alone->epoch() == 2);
    // If the memory of the buffers is replaced, the criterion continues with the new memory.
    alone->counts.set_data(alone->counts.clone());
    train(alone, 3);
    train(copy->criterion, 3);
    EXPECT(bytes_of(alone, folder) == bytes_of(copy->criterion, folder));

    test::begin("r25 torch::save of a model and torch::load into one with other options; the run continues bitwise identically");
    model->train();
    std::stringstream archive;
    torch::save(model, archive);
    Model resumed;
    resumed->criterion->set_alpha(0.9);
    torch::load(resumed, archive);
    EXPECT(resumed->criterion->options.alpha() == 0.3 && resumed->criterion->epoch() == 1 && bytes_of(resumed->criterion, folder) == state);
    EXPECT(at::allclose(resumed->criterion->options.class_weights(), at::linspace(1, 2, K, at::kDouble)));
    for (auto *each : {&criterion, &resumed->criterion}) {
        train(*each, 4);
        (*each)->next_epoch();
    }
    EXPECT(bytes_of(criterion, folder) == bytes_of(resumed->criterion, folder));
    // With a criterion of ols/ols.hpp, without LibTorch.
    ols::criterion plain(K);
    plain.load(bytes_of(criterion, folder));
    EXPECT(plain.epoch() == 2 && plain.soft_labels()(1, 2) == criterion->soft_labels[1][2].item<float>());
    plain.next_epoch();
    plain.save(folder + "/plain.ols");
    criterion->load_file(folder + "/plain.ols");
    EXPECT(criterion->epoch() == 3);
    std::stringstream other;
    torch::save(OnlineLabelSmoothing(K + 1), other);
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "num_classes", torch::load(criterion, other));

    test::begin("r26 the buffers are the state");
    EXPECT(at::equal(criterion->soft_labels.sum(1).round(), at::ones(K)));
    criterion->set_soft_labels(at::full({K, K}, 0.5, at::kDouble));
    EXPECT(criterion->soft_labels[4][4].item<float>() == 0.5f);
    criterion->set_alpha(0);
    EXPECT(criterion->options.alpha() == 0 && criterion->report().epoch == 0);

    std::ostringstream printed;
    printed << OnlineLabelSmoothing(OnlineLabelSmoothingOptions(K).preset(ols::preset::paper).reduction(torch::kSum));
    EXPECT(printed.str() == "ols::torch::OnlineLabelSmoothing(num_classes=5, alpha=0.5, initial=zero, empty_class=uniform, min_count=1, momentum=0, "
                           "freeze_above=inf, ignore_index=-100, reduction=sum, epoch=0)");
    torch::nn::AnyModule any(OnlineLabelSmoothing{K});
    EXPECT(any.forward(logits_for(0), targets_for(0)).item<float>() > 0);
}

/// Two "processes" in one, with the interface of c10d::ProcessGroup.
struct Pair {
    struct Work {
        bool wait() { return true; }
    };
    explicit Pair(OnlineLabelSmoothing &other_) : other({other_->counts, other_->counters, other_->sums}) {}
    std::shared_ptr<Work> allreduce(std::vector<Tensor> &tensors) {
        tensors.at(0).add_(other.at(calls++));
        return std::make_shared<Work>();
    }
    std::vector<Tensor> other;
    std::size_t calls = 0;
};

void in_parallel(const std::string &folder) {
    test::begin("r26 statistics summed over two modules equal those of one");
    OnlineLabelSmoothing alone(K), first(K), second(K), shared(K);
    for (int step = 0; step < 8; step++) {
        train(alone, step);
        train(step % 2 == 0 ? first : second, step);
    }
    const auto summed_by_one = bytes_of(alone, folder);
    Pair pair(second);
    EXPECT(bytes_of(first, folder) != summed_by_one);
    first->all_reduce(pair);
    EXPECT(pair.calls == 3 && bytes_of(first, folder) == summed_by_one);
    first->next_epoch();
    test::begin("r14 several threads on one module give the same statistics as one");
    std::vector<std::thread> threads;
    for (int worker = 0; worker < 2; worker++) {
        threads.emplace_back([&shared, worker] {
            for (int step = worker * 4; step < worker * 4 + 4; step++) train(shared, step);
        });
    }
    for (auto &thread : threads) thread.join();
    alone->next_epoch();
    shared->next_epoch();
    EXPECT(bytes_of(first, folder) == bytes_of(alone, folder) && bytes_of(shared, folder) == bytes_of(alone, folder));
}

void device_tensors(const char *stand_in_path, const std::string &folder) {
    test::begin("r21 r17 device tensors are passed on LibTorch's stream, a forward pass does not synchronise, and results equal those on the host");
    pretended_cuda::begin(stand_in_path);
    const torch::Device cuda(at::kCUDA, 1), cpu(at::kCPU);
    const auto options = OnlineLabelSmoothingOptions(K).alpha(0.3).class_weights(at::linspace(1, 2, K));
    OnlineLabelSmoothing host(options), there(options);
    train(there, 7);
    there->next_epoch();
    host->load_file((there->save_file(folder + "/device.ols"), folder + "/device.ols"));
    there->to(cuda);
    EXPECT(there->soft_labels.device() == cuda && there->sums.device() == cuda && there->counts.device() == cuda && there->epoch() == 1);
    for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16}) {
        const Tensor a = logits_for(0, {N, K}, type).requires_grad_(), b = logits_for(0, {N, K}, type).to(cuda).requires_grad_(), y = targets_for(0).to(cuda);
        const Tensor expected = host(a, targets_for(0));
        stand_in::wait();
        const long long waits = stand_in::get("synchronisations");
        const Tensor loss = there(b, y);
        EXPECT(stand_in::get("synchronisations") == waits && stand_in::get("queued") > 0);
        EXPECT(stand_in::get("last_stream") == reinterpret_cast<long long>(pretended_cuda::streams[1]));
        (expected * 1024).backward();
        (loss * 1024).backward();
        const double within = type == at::kHalf ? 2e-3 : type == at::kBFloat16 ? 2e-2 : 1e-5;
        EXPECT(loss.device() == cuda && b.grad().device() == cuda && b.grad().scalar_type() == type);
        EXPECT(at::allclose(loss.to(cpu), expected, 1e-5, 1e-6) && at::allclose(b.grad().to(cpu), a.grad(), within, 1024 * 1e-6));
        EXPECT(at::equal(there->counts.to(cpu), host->counts));
    }
    // Images in two layouts, Mixup, sample weights, taking back.
    const Tensor image = logits_for(1, {2, K, 2, 3}), targets = targets_for(1).view({2, 2, 3}), v = at::linspace(0, 2, N).view({2, 2, 3});
    const auto mixed = [&](const torch::Device &device) {
        return CallOptions().sample_weights(v.to(device)).mix(targets_for(2).view({2, 2, 3}).to(device), 0.25);
    };
    for (const at::MemoryFormat format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
        const Tensor expected = host(image, targets, mixed(cpu)), loss = there(image.to(cuda).contiguous(format), targets.to(cuda), mixed(cuda));
        EXPECT(at::allclose(loss.to(cpu), expected, 1e-5, 1e-6));
    }
    there->take_back(image.to(cuda), targets.to(cuda), mixed(cuda));
    host->take_back(image, targets, mixed(cpu));
    EXPECT(at::equal(there->counts.to(cpu), host->counts));

    // The end of an epoch, a clone, torch::save on the module's stream, and back to the host.
    there->next_epoch();
    host->next_epoch();
    EXPECT(there->report().epoch == 1 + 1 && there->report().rows_measured == host->report().rows_measured);
    EXPECT(at::allclose(there->soft_labels.to(cpu), host->soft_labels, 0, 1e-6));
    OnlineLabelSmoothing copy(std::dynamic_pointer_cast<ols::torch::OnlineLabelSmoothingImpl>(there->clone()));
    std::stringstream archive;
    torch::save(there, archive);
    OnlineLabelSmoothing loaded(K);
    torch::load(loaded, archive);
    EXPECT(copy->soft_labels.device() == cuda && copy->epoch() == 2 && bytes_of(copy, folder) == bytes_of(there, folder));
    EXPECT(bytes_of(loaded, folder) == bytes_of(there, folder) && at::equal(loaded->soft_labels, there->soft_labels.to(cpu)));
    // Tensors on other devices are errors of the library.
    THROWS(OLS_STATUS_INVALID_DEVICE, "logits.device = cpu|cuda:1", there(logits_for(0), targets_for(0)));
    THROWS(OLS_STATUS_INVALID_DEVICE, "targets.device = cpu", there(logits_for(0).to(cuda), targets_for(0)));
    THROWS(OLS_STATUS_INVALID_DEVICE, "logits.device = cuda:1|cpu", host(logits_for(0).to(cuda), targets_for(0).to(cuda)));
    const auto state = bytes_of(there, folder);
    there->to(cpu);
    EXPECT(there->soft_labels.device() == cpu && there->epoch() == 2 && bytes_of(there, folder) == state);
}

} // namespace

int main(int, char **arguments) {
    const std::string folder = arguments[1];
    torch::manual_seed(0);
    test::begin("r08 r16 r17 r19 r27 r28 the conformance cases");
    vectors::run_all<torch_conformance::Subject>(torch_conformance::reason_to_skip);
    gradients();
    like_cross_entropy();
    autograd();
    checkpointing();
    shapes();
    bad_input(folder);
    modules(folder);
    in_parallel(folder);
    device_tensors(arguments[2], folder);
    return test::finish("torch module");
}
