// The criterion as a module of LibTorch.
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
/// `const std::optional<torch::Device> &`, or what the LibTorch at hand had before it.
using clone_argument = argument<decltype(&::torch::nn::Module::clone)>::type;

/// The criterion of a module. LibTorch copies modules when it clones them and exchanges the tensors soon after: a copy has no criterion yet, and knows
/// the epoch for the one that it will have.
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

/// Online Label Smoothing as a loss of LibTorch: takes logits (N, K), (N, K, d1, ...) or (K) and targets of the same shape without K, as
/// `torch::nn::CrossEntropyLoss` does, and learns its soft labels from what it sees in training mode. Its state are four buffers, which move with
/// `to(device)` and keep their dtypes. Errors are `ols::error` and leave the state as it was. Any thread may call what works on batches; moving, cloning and
/// loading, as of every module, are not for several threads at once.
class OnlineLabelSmoothingImpl : public ::torch::nn::Cloneable<OnlineLabelSmoothingImpl> {
public:
    explicit OnlineLabelSmoothingImpl(std::int64_t num_classes) : OnlineLabelSmoothingImpl(OnlineLabelSmoothingOptions(num_classes)) {}
    // NOLINTNEXTLINE: a member of the base is made in reset(), as in LibTorch's own modules.
    explicit OnlineLabelSmoothingImpl(OnlineLabelSmoothingOptions options_) : options(std::move(options_)) { OnlineLabelSmoothingImpl::reset(); }

    /// Begins anew, with the state that the options say. Where the library refuses them the module is as before.
    void reset() override {
        // Of too few classes the library knows more to say than an allocation.
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

    /// The loss of a batch, with a gradient for the logits where these require one, and in training mode its statistics, counted also where no gradient is
    /// recorded; not counted again where activation checkpointing computes it a second time. Logits: f32, f64, f16 or bf16; targets: i64, i32 or u8.
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

    /// Takes the statistics of a batch back, exactly: a step that was skipped. Everything given must be as it was in `forward`.
    void take_back(const ::torch::Tensor &logits, const ::torch::Tensor &targets, const CallOptions &call = {}) {
        const ::torch::NoGradGuard no_graph;
        at::Tensor ready_logits = logits;
        const auto pass = prepare(ready_logits, targets, call);
        pass->update = ols::update::take_back;
        pass->core->criterion.forward(pass->batch(ready_logits), tensor());
    }

    /// Adds to the statistics from given probabilities, of the shapes of logits.
    void accumulate(const ::torch::Tensor &probabilities, const ::torch::Tensor &targets, const CallOptions &call = {}) {
        const ::torch::NoGradGuard no_graph;
        at::Tensor ready = probabilities;
        const auto pass = prepare(ready, targets, call);
        pass->core->criterion.accumulate(pass->batch(ready));
    }

    /// Ends the epoch: makes the soft labels of the next one from the statistics, and clears these.
    void next_epoch() {
        detail::Core &core = bound();
        core.criterion.next_epoch(stream());
        core.version++;
    }

    /// The same for data-parallel training: sums the statistics over the processes of `group`, a `c10d::ProcessGroup` (Gloo, NCCL, MPI), before. All of
    /// them must call it; all get the same soft labels, bit for bit, as one process that saw every batch.
    template <class ProcessGroup>
    void next_epoch(ProcessGroup &group) {
        all_reduce(group);
        next_epoch();
    }

    /// Sums the statistics over the processes of `group`, in place. Where a collective fails they are no sum of anything: load a checkpoint.
    template <class ProcessGroup>
    void all_reduce(ProcessGroup &group) {
        bound();
        for (const at::Tensor &tensor : {counts, counters, sums}) {
            std::vector<at::Tensor> tensors = {tensor};
            group.allreduce(tensors)->wait();
        }
    }

    /// What happened in the epoch that ended last (all 0 after `to` another device, `clone` and `load`), and so far in the running one.
    ols_report_t report() { return bound().criterion.report(stream()); }

    /// Epochs that have ended.
    std::int64_t epoch() const { return binding_.epoch(); }

    /// Sets the weight of the hard label, in [0, 1]: for schedules.
    void set_alpha(double alpha) {
        detail::Core &core = bound();
        core.criterion.set_alpha(alpha);
        core.version++;
        options.alpha(alpha);
    }

    /// Replaces S by a (K, K) tensor of f32 or f64, finite and >= 0, on the module's device.
    void set_soft_labels(const ::torch::Tensor &values) {
        detail::Core &core = bound();
        const at::Tensor ready = detail::readable("soft_labels", values.detach(), OLS_DLPACK_PLAIN);
        core.criterion.set_soft_labels(detail::view_of("soft_labels", ready, OLS_DLPACK_PLAIN), stream());
        core.version++;
    }

    /// Writes the state to a file that every language of libols opens; `torch::save` puts the same bytes into an archive.
    void save_file(const std::string &path) { bound().criterion.save(path, stream()); }
    /// Replaces state, epoch, and the options that shape the result by what a file holds.
    void load_file(const std::string &path) {
        load_with([&](ols::criterion &criterion) { criterion.load(path, stream()); });
    }

    /// For `torch::save`: one tensor of bytes, state and the options that shape it.
    void save(::torch::serialize::OutputArchive &archive) const override {
        // Binding changes nothing that can be seen.
        const auto bytes = const_cast<OnlineLabelSmoothingImpl *>(this)->bound().criterion.save_memory(stream());
        const at::Tensor tensor = at::empty({static_cast<std::int64_t>(bytes.size())}, at::kByte);
        std::memcpy(tensor.data_ptr(), bytes.data(), bytes.size());
        archive.write("ols_state", tensor, /*is_buffer=*/true);
    }
    /// For `torch::load`.
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
    /// Moves the state. Where the library cannot work on that device it stays where it was, and an `ols::error` says so.
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
    /// Moves the state; its dtypes are the library's, and stay.
    void to(::torch::Device device, ::torch::Dtype /*dtype*/, bool non_blocking = false) override { to(device, non_blocking); }
    /// Does nothing: the state's dtypes are the library's.
    void to(::torch::Dtype /*dtype*/, bool /*non_blocking*/ = false) override {}

    std::shared_ptr<::torch::nn::Module> clone(detail::clone_argument device = {}) const override {
        auto copy = Cloneable::clone(device);
        // reset() has made a criterion of the first epoch, over tensors that are gone.
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

    /// The options, as they are now. To change one later is without effect, but for `set_alpha` and what a load replaces.
    OnlineLabelSmoothingOptions options;

    /// S: f32 (K, K), a row per class.
    ::torch::Tensor soft_labels;
    /// A: i64 (K, K), summed probabilities of the running epoch in units of 2^-OLS_FRACTION_BITS.
    ::torch::Tensor sums;
    /// c: i64 (K), the samples that were summed.
    ::torch::Tensor counts;
    /// i64 (OLS_COUNTERS), at `OLS_COUNTER_...`.
    ::torch::Tensor counters;

protected:
    using AnyValue = ::torch::nn::AnyValue;
    FORWARD_HAS_DEFAULT_ARGS({2, AnyValue(CallOptions())})

private:
    /// The buffers, in the order of `detail::Core::state`.
    static constexpr std::array<const char *, 4> names = {"soft_labels", "sums", "counts", "counters"};

    void *stream() const { return detail::current_stream(soft_labels.device()); }

    /// A criterion over tensors for its state; with `adopt` they hold one already, of `epoch`.
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

    /// The criterion over the buffers as they are now: LibTorch exchanges their memory when it moves or clones a module.
    detail::Core &bound() {
        const std::array<const at::Tensor *, 4> buffers = {&soft_labels, &sums, &counts, &counters};
        bool is_bound = binding_.core != nullptr;
        for (std::size_t i = 0; is_bound && i < buffers.size(); i++) is_bound = binding_.core->state[i].data_ptr() == buffers[i]->data_ptr();
        if (!is_bound) {
            // Tensors of their own over the same memory, which an exchange of the buffers' does not reach.
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

    /// A pass over `logits`, which become what the library can read, by operations that autograd knows.
    c10::intrusive_ptr<detail::Pass> prepare(at::Tensor &logits, const at::Tensor &targets, const CallOptions &call) {
        bound();
        const auto refuse = [](ols_status_t status, const std::string &what) { throw error(status, "ols::torch: " + what); };
        if (!logits.defined()) refuse(OLS_STATUS_INVALID_ARGUMENT, "logits is an undefined tensor");
        if (!targets.defined()) refuse(OLS_STATUS_INVALID_ARGUMENT, "targets is an undefined tensor");
        if (logits.dim() == 0) refuse(OLS_STATUS_INVALID_SHAPE, "logits has no dimension; it must have (K), (N, K) or (N, K, d1, ...)");
        const bool is_unbatched = logits.dim() == 1;
        const auto batched = [&](const char *name, const at::Tensor &tensor, bool one_for_all = false) {
            if (!tensor.defined()) return tensor;
            if (tensor.requires_grad() && at::GradMode::is_enabled()) {
                refuse(OLS_STATUS_INVALID_ARGUMENT, std::string(name) + " requires a gradient, and gets none; detach() it");
            }
            if (one_for_all && tensor.dim() == 0) return tensor;
            const at::Tensor whole = is_unbatched && tensor.dim() == 0 ? tensor.unsqueeze(0) : tensor;
            // More dimensions than the library has become one, in which (2, 3) and (3, 2) are the same.
            if (logits.dim() > 3) {
                std::vector<std::int64_t> shape = logits.sizes().vec();
                shape.erase(shape.begin() + 1);
                if (whole.sizes() != at::IntArrayRef(shape)) {
                    std::ostringstream text;
                    text << name << ".shape = " << whole.sizes() << " differs from " << at::IntArrayRef(shape) << ", the logits' without the classes";
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

/// A `ModuleHolder` for `OnlineLabelSmoothingImpl`, which describes everything:
///
///     ols::torch::OnlineLabelSmoothing criterion(ols::torch::OnlineLabelSmoothingOptions(10).alpha(0.5));
///     auto loss = criterion(logits, targets);
TORCH_MODULE(OnlineLabelSmoothing);

} // namespace ols::torch

#endif
