// The criterion as a LibTorch module.
#ifndef OLS_TORCH_MODULE_HPP
#define OLS_TORCH_MODULE_HPP

#include <ols/torch/function.hpp>

#include <torch/nn/cloneable.h>
#include <torch/nn/modules/common.h>
#include <torch/nn/pimpl.h>
#include <torch/serialize.h>

#include <cstring>
#include <ostream>

namespace ols::torch {

namespace detail {

template <class Method>
struct argument;
template <class Result, class Class, class Argument>
struct argument<Result (Class::*)(Argument) const> {
    using type = Argument;
};
/// `const std::optional<torch::Device> &`, or its equivalent in older versions of LibTorch.
using clone_argument = argument<decltype(&::torch::nn::Module::clone)>::type;

/// The criterion of a module. To clone a module, LibTorch copies it and replaces its tensors afterwards. A copy
/// therefore has no criterion at first, and keeps the epoch for the one that it will get.
struct Binding {
    Binding() = default;
    Binding(const Binding &other) : epoch_without_core(other.epoch()) {}
    Binding &operator=(const Binding &other) {
        if (this != &other) {
            epoch_without_core = other.epoch();
            core = nullptr;
        }
        return *this;
    }
    ~Binding() = default;

    std::int64_t epoch() const { return core ? core->criterion.epoch() : epoch_without_core; }

    std::shared_ptr<Core> core;
    std::int64_t epoch_without_core = 0;
};

} // namespace detail

/// Online Label Smoothing as a LibTorch loss: accepts logits (N, K), (N, K, d1, ...) or (K) and targets of the same
/// shape without K, like `torch::nn::CrossEntropyLoss`, and learns soft labels from the batches of training mode. Its
/// state is in four buffers, which move with `to(device)` and keep their dtypes. Errors are `ols::error`, and leave the
/// state unchanged. Calls on batches are thread-safe; as with any module, moving, cloning and loading are not.
class OnlineLabelSmoothingImpl : public ::torch::nn::Cloneable<OnlineLabelSmoothingImpl> {
public:
    explicit OnlineLabelSmoothingImpl(std::int64_t num_classes) : OnlineLabelSmoothingImpl(OnlineLabelSmoothingOptions(num_classes)) {}
    // NOLINTNEXTLINE: reset() initialises a member of the base, as in LibTorch's own modules.
    explicit OnlineLabelSmoothingImpl(OnlineLabelSmoothingOptions options_) : options(std::move(options_)) {
        // reset(), clone() and to() read the options again, so later changes of the caller's tensors must not reach them.
        for (at::Tensor *const tensor : {&options.class_weights(), &options.initial_soft_labels()}) {
            if (tensor->defined()) *tensor = tensor->detach().clone();
        }
        OnlineLabelSmoothingImpl::reset();
    }

    /// Resets to the initial state given by the options. If the library rejects them, the module is unchanged.
    void reset() override {
        // With too few classes, the library reports a better error than the allocation would.
        if (options.num_classes() < 2) ols::criterion refused(options.to_library());
        const std::int64_t k = options.num_classes();
        const at::Device device = soft_labels.defined() ? soft_labels.device() : at::Device(at::kCPU);
        const auto empty = [&](at::IntArrayRef shape, at::ScalarType type) { return at::empty(shape, at::TensorOptions(type).device(device)); };
        auto core = make_core({empty({k, k}, at::kFloat), empty({k, k}, at::kLong), empty({k}, at::kLong), empty({OLS_COUNTERS}, at::kLong)}, false, 0);
        at::Tensor *const members[] = {&soft_labels, &sums, &counts, &counters};
        auto registered = named_buffers(/*recurse=*/false);
        for (std::size_t i = 0; i < names.size(); i++) {
            const at::Tensor memory = core->state[i].detach();
            if (at::Tensor *const known = registered.find(names[i])) {
                known->set_data(memory);
            } else {
                *members[i] = register_buffer(names[i], memory);
            }
        }
        binding_.core = std::move(core);
    }

    /// Computes the loss of a batch, with a gradient if the logits require one. In training mode the batch is counted,
    /// even if no gradient is recorded, but not again when activation checkpointing recomputes the pass. Logits are
    /// f32, f64, f16 or bf16; targets are i64, i32 or u8.
    ::torch::Tensor forward(const ::torch::Tensor &logits, const ::torch::Tensor &targets, const CallOptions &call = {}) {
        at::Tensor ready_logits = logits;
        const auto pass = prepare(ready_logits, targets, call);
        if (pass->update == ols::update::add && detail::is_inside_backward()) pass->update = ols::update::no_update;
        at::Tensor loss;
        if (at::GradMode::is_enabled() && ready_logits.requires_grad()) {
            loss = detail::Loss::apply(ready_logits, pass);
        } else {
            loss = pass->empty_loss(ready_logits);
            pass->core->criterion.forward(pass->batch(ready_logits), detail::view_of("loss", loss, OLS_DLPACK_SAMPLES));
        }
        return pass->has_loss_per_sample && logits.dim() == 1 ? loss.squeeze(0) : loss;
    }

    /// Subtracts the statistics of a batch, exactly, for a step that was skipped. All arguments must be the same as in
    /// `forward`.
    void take_back(const ::torch::Tensor &logits, const ::torch::Tensor &targets, const CallOptions &call = {}) {
        const ::torch::NoGradGuard no_graph;
        at::Tensor ready_logits = logits;
        const auto pass = prepare(ready_logits, targets, call);
        pass->update = ols::update::take_back;
        pass->core->criterion.forward(pass->batch(ready_logits), tensor());
    }

    /// Updates the statistics from given probabilities, which have the shape of logits.
    void accumulate(const ::torch::Tensor &probabilities, const ::torch::Tensor &targets, const CallOptions &call = {}) {
        const ::torch::NoGradGuard no_graph;
        at::Tensor ready = probabilities;
        const auto pass = prepare(ready, targets, call);
        pass->core->criterion.accumulate(pass->batch(ready));
    }

    /// Ends the epoch: computes the soft labels of the next epoch from the statistics, then resets the statistics.
    void next_epoch() {
        detail::Core &core = bound();
        core.criterion.next_epoch(stream());
        core.version++;
    }

    /// Ends the epoch in data-parallel training: first sums the statistics over the processes of `group`, a
    /// `c10d::ProcessGroup` (Gloo, NCCL, MPI). All processes must call it, and all get the soft labels of a single
    /// process that has seen every batch, bit for bit.
    template <class ProcessGroup>
    void next_epoch(ProcessGroup &group) {
        all_reduce(group);
        next_epoch();
    }

    /// Sums the statistics over the processes of `group`, in place. If a collective fails, the statistics are invalid:
    /// load a checkpoint.
    template <class ProcessGroup>
    void all_reduce(ProcessGroup &group) {
        bound();
        for (const at::Tensor &tensor : {counts, counters, sums}) {
            std::vector<at::Tensor> tensors = {tensor};
            group.allreduce(tensors)->wait();
        }
    }

    /// Returns a summary of the last completed epoch (all 0 after `to` another device, `clone` and `load`), and of the
    /// current epoch so far.
    ols_report_t report() { return bound().criterion.report(stream()); }

    /// Returns the number of completed epochs.
    std::int64_t epoch() const { return binding_.epoch(); }

    /// Sets the weight of the hard label, in [0, 1], for example to follow a schedule.
    void set_alpha(double alpha) {
        detail::Core &core = bound();
        core.criterion.set_alpha(alpha);
        core.version++;
        options.alpha(alpha);
    }

    /// Replaces S by a tensor of shape (K, K), f32 or f64, finite and >= 0, on the device of the module.
    void set_soft_labels(const ::torch::Tensor &values) {
        detail::Core &core = bound();
        if (!values.defined()) throw error(OLS_STATUS_INVALID_ARGUMENT, "ols::torch: soft_labels is an undefined tensor");
        const at::Tensor ready = detail::readable("soft_labels", values.detach(), OLS_DLPACK_PLAIN);
        core.criterion.set_soft_labels(detail::view_of("soft_labels", ready, OLS_DLPACK_PLAIN), stream());
        core.version++;
    }

    /// Saves the state to a file in the format that all languages share; `torch::save` writes the same bytes into an
    /// archive.
    void save_file(const std::string &path) { bound().criterion.save(path, stream()); }
    /// Restores the state, the epoch, and the options that affect the results from a file.
    void load_file(const std::string &path) {
        load_with([&](ols::criterion &criterion) { criterion.load(path, stream()); });
    }

    /// Implements `torch::save`: one tensor of bytes, with the state and the options that affect the results.
    void save(::torch::serialize::OutputArchive &archive) const override {
        // Binding the criterion does not change the observable state.
        const auto bytes = const_cast<OnlineLabelSmoothingImpl *>(this)->bound().criterion.save_memory(stream());
        const at::Tensor tensor = at::empty({static_cast<std::int64_t>(bytes.size())}, at::kByte);
        std::memcpy(tensor.data_ptr(), bytes.data(), bytes.size());
        archive.write("ols_state", tensor, /*is_buffer=*/true);
    }
    /// Implements `torch::load`.
    void load(::torch::serialize::InputArchive &archive) override {
        at::Tensor tensor;
        archive.read("ols_state", tensor, /*is_buffer=*/true);
        tensor = tensor.to(at::kCPU).contiguous();
        load_with([&](ols::criterion &criterion) { criterion.load(tensor.data_ptr(), tensor.nbytes(), stream()); });
    }

    void train(bool on = true) override {
        Cloneable::train(on);
        if (binding_.core) binding_.core->criterion.set_mode(on ? ols::mode::train : ols::mode::eval);
    }

    using ::torch::nn::Module::to;
    /// Moves the state. If the library cannot use that device, the state stays where it is and `ols::error` is thrown.
    void to(::torch::Device device, bool non_blocking = false) override {
        detail::device_type_of("soft_labels", device);
        const at::Device before = soft_labels.device();
        bound();
        try {
            Cloneable::to(device, non_blocking);
            bound();
        } catch (...) {
            Cloneable::to(before, false);
            throw;
        }
    }
    /// Moves the state; its dtypes are fixed by the library.
    void to(::torch::Device device, ::torch::Dtype /*dtype*/, bool non_blocking = false) override { to(device, non_blocking); }
    /// A no-op: the dtypes of the state are fixed by the library.
    void to(::torch::Dtype /*dtype*/, bool /*non_blocking*/ = false) override {}

    std::shared_ptr<::torch::nn::Module> clone(detail::clone_argument device = {}) const override {
        auto copy = Cloneable::clone(device);
        // reset() has created a criterion for the first epoch, on tensors that no longer exist.
        auto &impl = dynamic_cast<OnlineLabelSmoothingImpl &>(*copy);
        impl.binding_ = binding_;
        impl.bound();
        return copy;
    }

    void pretty_print(std::ostream &stream) const override {
        stream << "ols::torch::OnlineLabelSmoothing(num_classes=" << options.num_classes() << ", alpha=" << options.alpha()
               << ", initial=" << to_string(options.initial());
        if (options.initial() == ols::initial::smoothing) stream << ", smoothing=" << options.smoothing();
        stream << ", empty_class=" << to_string(options.empty_class()) << ", min_count=" << options.min_count()
               << ", momentum=" << options.momentum() << ", freeze_above=" << options.freeze_above() << ", ignore_index=" << options.ignore_index()
               << ", reduction=" << to_string(options.library_reduction()) << ", epoch=" << epoch() << ")";
    }

    /// The current options. Change them with `set_alpha` or by loading a state; assignments here do not reach the
    /// existing criterion.
    OnlineLabelSmoothingOptions options;

    /// S: f32 (K, K), one row per class.
    ::torch::Tensor soft_labels;
    /// A: i64 (K, K), summed probabilities of the current epoch in units of 2^-OLS_FRACTION_BITS.
    ::torch::Tensor sums;
    /// c: i64 (K), the number of samples in each row of A.
    ::torch::Tensor counts;
    /// The counters: i64 (OLS_COUNTERS), indexed by the `OLS_COUNTER_` constants.
    ::torch::Tensor counters;

protected:
    using AnyValue = ::torch::nn::AnyValue;
    FORWARD_HAS_DEFAULT_ARGS({2, AnyValue(CallOptions())})

private:
    /// The names of the buffers, in the order of `detail::Core::state`.
    static constexpr std::array<const char *, 4> names = {"soft_labels", "sums", "counts", "counters"};

    void *stream() const { return detail::current_stream(soft_labels.device()); }

    /// Creates a criterion whose state is in the given tensors. With `adopt` they already hold a state, of epoch
    /// `epoch`.
    std::shared_ptr<detail::Core> make_core(std::vector<at::Tensor> state, bool adopt, std::int64_t epoch) const {
        ols::options library = options.to_library();
        library.mode(is_training() ? ols::mode::train : ols::mode::eval);
        const at::Device device = state[0].device();
        library.device(detail::device_type_of("soft_labels", device), device.is_cuda() ? device.index() : 0);
        const auto view = [&](std::size_t i) { return detail::view_of(names[i], state[i], OLS_DLPACK_PLAIN); };
        library.state_memory(view(0), view(1), view(2), view(3)).adopt_state(adopt);
        auto core = std::make_shared<detail::Core>(library, std::move(state));
        core->criterion.set_epoch(epoch);
        return core;
    }

    /// Returns a criterion bound to the current buffers: LibTorch replaces their memory when it moves or clones a
    /// module.
    detail::Core &bound() {
        const std::array<const at::Tensor *, 4> buffers = {&soft_labels, &sums, &counts, &counters};
        bool is_bound = binding_.core != nullptr;
        for (std::size_t i = 0; is_bound && i < buffers.size(); i++) is_bound = binding_.core->state[i].data_ptr() == buffers[i]->data_ptr();
        if (!is_bound) {
            // These are separate tensors on the same memory, which are not affected if that of the buffers is replaced.
            std::vector<at::Tensor> state;
            for (const at::Tensor *buffer : buffers) state.push_back(buffer->detach());
            binding_.core = make_core(std::move(state), true, epoch());
        }
        return *binding_.core;
    }

    template <class Load>
    void load_with(const Load &load) {
        detail::Core &core = bound();
        load(core.criterion);
        core.version++;
        options.take_over(core.criterion.options());
    }

    /// Prepares a pass over `logits`, which are brought into a form that the library can read, by operations with
    /// autograd.
    c10::intrusive_ptr<detail::Pass> prepare(at::Tensor &logits, const at::Tensor &targets, const CallOptions &call) {
        bound();
        const auto refuse = [](ols_status_t status, const std::string &what) { throw error(status, "ols::torch: " + what); };
        if (!logits.defined()) refuse(OLS_STATUS_INVALID_ARGUMENT, "logits is an undefined tensor");
        if (!targets.defined()) refuse(OLS_STATUS_INVALID_ARGUMENT, "targets is an undefined tensor");
        if (logits.dim() == 0) refuse(OLS_STATUS_INVALID_SHAPE, "logits.shape = [] is not (K), (N, K) or (N, K, d1, ...)");
        const bool is_unbatched = logits.dim() == 1;
        const auto batched = [&](const char *name, const at::Tensor &tensor, bool one_for_all = false) {
            if (!tensor.defined()) return tensor;
            if (tensor.requires_grad() && at::GradMode::is_enabled()) {
                refuse(OLS_STATUS_INVALID_ARGUMENT, std::string(name) + " requires a gradient, but none is computed for it; pass a detached tensor");
            }
            if (one_for_all && tensor.dim() <= 1 && tensor.numel() == 1) return detail::readable(name, tensor, OLS_DLPACK_SAMPLES);
            const at::Tensor whole = is_unbatched && tensor.dim() == 0 ? tensor.unsqueeze(0) : tensor;
            // More dimensions than the library supports are merged into one, so (2, 3) and (3, 2) would be
            // indistinguishable from each other, and from (6).
            if (logits.dim() > 3 || whole.dim() > 2) {
                std::vector<std::int64_t> shape = logits.sizes().vec();
                shape.erase(shape.begin() + (is_unbatched ? 0 : 1));
                if (whole.sizes() != at::IntArrayRef(shape)) {
                    std::ostringstream text;
                    text << name << ".shape = " << whole.sizes() << " differs from " << at::IntArrayRef(shape) << ", the shape of the logits without K";
                    refuse(OLS_STATUS_INVALID_SHAPE, text.str());
                }
            }
            return detail::readable(name, whole, OLS_DLPACK_SAMPLES);
        };
        auto pass = c10::make_intrusive<detail::Pass>();
        pass->core = binding_.core;
        pass->version = pass->core->version;
        pass->targets = batched("targets", targets);
        pass->sample_weights = batched("sample_weights", call.sample_weights());
        pass->targets2 = batched("targets2", call.targets2());
        pass->lam = batched("lam", call.lam(), true);
        pass->target_offset = call.target_offset();
        pass->update = call.update();
        pass->has_loss_per_sample = options.library_reduction() == ols::reduction::none;
        logits = detail::readable("logits", is_unbatched ? logits.unsqueeze(0) : logits, OLS_DLPACK_CLASS_SECOND);
        return pass;
    }

    detail::Binding binding_;
};

/// A `ModuleHolder` for `OnlineLabelSmoothingImpl`, which has the documentation:
///
///     ols::torch::OnlineLabelSmoothing criterion(ols::torch::OnlineLabelSmoothingOptions(10).alpha(0.5));
///     auto loss = criterion(logits, targets);
TORCH_MODULE(OnlineLabelSmoothing);

} // namespace ols::torch

#endif
