// The state of a module: modes and dtypes, clones, torch::save, two modules as one, threads.
#include "torch_module.hpp"

#include <torch/nn/modules.h>

#include <thread>

namespace torch_module {

namespace {

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

} // namespace

void state(const std::string &folder) {
    modules(folder);
    in_parallel(folder);
}

} // namespace torch_module
