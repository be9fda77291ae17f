// Device tensors, with the stand-in for the driver.
#include "torch_module.hpp"
#include "../torch_cuda.hpp"

namespace torch_module {

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

} // namespace torch_module
