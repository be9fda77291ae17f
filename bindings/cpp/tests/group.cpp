// For group.py: trains with a process group created in Python, and writes the state to a file.
#include <ols/torch.hpp>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/library.h>

namespace {

/// Trains for one epoch, and for a second one up to its all-reduce, so that the file contains the soft labels of the first and the statistics of the second.
/// This rank processes every `ranks`-th of the eight batches of an epoch.
void train(const c10::intrusive_ptr<c10d::ProcessGroup> &group, std::int64_t rank, std::int64_t ranks, const std::string &path) {
    constexpr std::int64_t samples = 16, classes = 7;
    ols::torch::OnlineLabelSmoothing criterion(ols::torch::OnlineLabelSmoothingOptions(classes).momentum(0.125));
    for (int epoch = 0; epoch < 2; epoch++) {
        for (std::int64_t step = rank; step < 8; step += ranks) {
            const at::Tensor angles = at::arange(samples * classes, at::kDouble).mul(12.9898).add(78.233 * static_cast<double>(8 * epoch + step));
            const at::Tensor logits = angles.sin().mul(3).to(at::kFloat).view({samples, classes});
            const at::Tensor targets = at::where(at::arange(samples).remainder(2) == 0, logits.argmax(1), at::arange(samples).remainder(classes));
            // One ignored target, and one row that is skipped and counted.
            targets[3] = -100;
            logits[5] = std::numeric_limits<float>::quiet_NaN();
            criterion(logits.requires_grad_(), targets).backward();
        }
        if (epoch == 0 && ranks > 1) {
            criterion->next_epoch(*group);
        } else if (epoch == 0) {
            criterion->next_epoch();
        } else if (ranks > 1) {
            criterion->all_reduce(*group);
        }
    }
    TORCH_CHECK(criterion->counters[OLS_COUNTER_SKIPPED_NON_FINITE].item<std::int64_t>() == 8, "one row of each batch is skipped");
    criterion->save_file(path);
}

} // namespace

TORCH_LIBRARY(ols_test, library) {
    library.def("train(__torch__.torch.classes.c10d.ProcessGroup group, int rank, int ranks, str path) -> ()", train);
}
