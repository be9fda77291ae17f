// The conformance cases, run through ols/ols.hpp.
#include "vectors.hpp"

namespace {

using namespace vectors;

ols::const_tensor given(Block &block) { return block.bytes.empty() ? ols::const_tensor() : block.tensor(); }

/// Checks that memory outside an output's view is unchanged; after an error, all of it.
void check_untouched(const char *what, Block &block, const std::vector<unsigned char> &before, bool all) {
    std::vector<bool> named(block.bytes.size());
    for (std::int64_t i = 0; !all && i < block.count(); i++) {
        const auto from = static_cast<std::size_t>(block.at(i) - block.bytes.data());
        for (std::size_t byte = 0; byte < sizes[block.dtype]; byte++) named[from + byte] = true;
    }
    for (std::size_t i = 0; i < before.size(); i++) {
        if (!named[i] && block.bytes[i] != before[i]) return wrong(std::string(what) + " was touched outside of its view");
    }
}

class Subject {
public:
    explicit Subject(const vec_options &options) : criterion_(options_of(options)) {}

    void next_epoch() { criterion_.next_epoch(); }
    void set_mode(ols::mode mode) { criterion_.set_mode(mode); }
    void set_alpha(double alpha) { criterion_.set_alpha(alpha); }
    void set_soft_labels(const std::vector<float> &values) {
        const std::int64_t k = criterion_.num_classes();
        criterion_.set_soft_labels(ols::view(values.data(), k, static_cast<std::int64_t>(values.size()) / k));
    }
    void save_load(const vec_options &options) {
        ols::criterion other(ols::options(options.classes).reduction(criterion_.options().reduction()).mode(criterion_.mode()));
        other.load(criterion_.save());
        criterion_ = std::move(other);
    }

    void run(const vec_batch &from, const vec_step &step) {
        Blocks blocks(from);
        ols::batch batch(given(blocks.logits), given(blocks.targets));
        batch.sample_weights(given(blocks.sample_weights)).mix(given(blocks.targets2), given(blocks.lam)).grad_loss(given(blocks.grad_loss));
        batch.target_offset(from.target_offset).update(updates[step.update]);
        const bool has_grad = step.action == VEC_BACKWARD || step.has_grad;
        Block loss(from.logits.dtype == VEC_F64 ? VEC_F64 : VEC_F32, step.loss), separate;
        if (has_grad) separate = Block(from.logits.dtype, step.grad);
        Block &grad = step.in_place ? blocks.logits : separate;
        const auto state_before = criterion_.save();
        const auto loss_before = loss.bytes, grad_before = grad.bytes;
        const bool succeeded = ends_with(step.expect.error, step.expect.message, [&] {
            switch (step.action) {
            case VEC_FORWARD:
                return criterion_.forward(batch, step.has_loss ? loss.tensor() : ols::tensor(), has_grad || step.in_place ? grad.tensor() : ols::tensor());
            case VEC_BACKWARD: return criterion_.backward(batch, grad.tensor());
            default: return criterion_.accumulate(batch);
            }
        });
        if (!succeeded && criterion_.save() != state_before) wrong("the state has changed in spite of an error");
        if (step.has_loss) check_untouched("loss", loss, loss_before, !succeeded);
        if (has_grad || step.in_place) check_untouched("grad", grad, grad_before, !succeeded);
        if (!succeeded) return;
        compare("loss", step.expect.loss, loss.count(), [&](std::int64_t i) { return loss.get(i); });
        if (has_grad || step.in_place) compare_gradient(step.expect, grad.count(), [&](std::int64_t i) { return grad.get(i); });
    }

    void check_state(const vec_expect &expect) {
        const auto statistics = criterion_.statistics();
        const auto labels = criterion_.soft_labels();
        const std::size_t k = labels.columns();
        compare_statistics(expect, [&](std::size_t i) { return statistics.counts[i]; }, [&](std::size_t i) { return statistics.sums(i / k, i % k); });
        compare("soft_labels", expect.soft_labels, static_cast<std::int64_t>(k * k), [&](std::int64_t flat) {
            const auto i = static_cast<std::size_t>(flat);
            return static_cast<double>(labels(i / k, i % k));
        });
        if (expect.epoch != -1) same("epoch", static_cast<double>(criterion_.epoch()), static_cast<double>(expect.epoch));
        compare_report(criterion_.report(), expect);
    }

private:
    ols::criterion criterion_;
};

} // namespace

int main() {
    test::begin("r08 r16 r17 r19 r27 r28 the conformance cases");
    run_all<Subject>([](const vec_case &) -> const char * { return nullptr; });
    return test::finish("conformance");
}
