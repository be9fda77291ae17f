// CUDA tensors without CUDA: registers with LibTorch what libtorch_cuda would (allocator, streams, operators), using memory and streams of the stand-in
// for the driver. The CPU's operators do the arithmetic, as that memory is actually host memory.
#ifndef TORCH_CUDA_HPP
#define TORCH_CUDA_HPP

#include "stand_in.hpp"

#include <ATen/EmptyTensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <map>
#include <mutex>

namespace pretended_cuda {

constexpr c10::DeviceIndex DEVICES = 2;
inline thread_local c10::DeviceIndex current = 0;
inline void *streams[DEVICES] = {};

class Allocator final : public c10::Allocator {
public:
    c10::DataPtr allocate(std::size_t bytes) override {
        void *const memory = stand_in::allocate(current, bytes);
        const std::lock_guard<std::mutex> guard(lock());
        owners()[memory] = current;
        return {memory, memory, &release, c10::Device(c10::kCUDA, current)};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &release; }
    void copy_data(void *to, const void *from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }

private:
    static std::map<void *, int> &owners() {
        static auto *const all = new std::map<void *, int>();
        return *all;
    }
    static std::mutex &lock() {
        static auto *const mutex = new std::mutex();
        return *mutex;
    }
    static void release(void *memory) {
        const std::lock_guard<std::mutex> guard(lock());
        stand_in::free(owners()[memory], memory);
        owners().erase(memory);
    }
};

inline Allocator &allocator() {
    static auto *const one = new Allocator();
    return *one;
}

/// Devices and streams. A stream's id is its handle.
class Guard final : public c10::impl::DeviceGuardImplInterface {
public:
    c10::DeviceType type() const override { return c10::kCUDA; }
    c10::Device exchangeDevice(c10::Device device) const override {
        const c10::Device before = getDevice();
        setDevice(device);
        return before;
    }
    c10::Device getDevice() const override { return {c10::kCUDA, current}; }
    void setDevice(c10::Device device) const override { uncheckedSetDevice(device); }
    void uncheckedSetDevice(c10::Device device) const noexcept override {
        if (device.has_index()) current = device.index();
    }
    c10::Stream getStream(c10::Device device) const override {
        return c10::Stream(c10::Stream::UNSAFE, device, reinterpret_cast<c10::StreamId>(streams[device.index()]));
    }
    c10::Stream getDefaultStream(c10::Device device) const override { return getStream(device); }
    c10::Stream exchangeStream(c10::Stream stream) const override {
        const c10::Stream before = getStream(stream.device());
        streams[stream.device_index()] = reinterpret_cast<void *>(stream.id());
        return before;
    }
    void *getStreamNativeHandle(const c10::Stream stream) const override { return reinterpret_cast<void *>(stream.id()); }
    c10::DeviceIndex deviceCount() const noexcept override { return DEVICES; }
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

/// LibTorch asks this whether there is a device; there is none before `begin`.
struct CUDAHooks final : at::CUDAHooksInterface {
    explicit CUDAHooks(at::CUDAHooksArgs) {}
    void init() const override {}
    bool isBuilt() const override { return true; }
    bool isAvailable() const override { return true; }
    bool hasCUDA() const override { return streams[0] != nullptr; }
    bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
    c10::DeviceIndex deviceCount() const override { return hasCUDA() ? DEVICES : c10::DeviceIndex(0); }
    c10::DeviceIndex getCurrentDevice() const override { return current; }
};
using at::CUDAHooksRegistry;
using at::RegistererCUDAHooksRegistry;
C10_REGISTER_CLASS_WITH_PRIORITY(CUDAHooksRegistry, CUDAHooks, c10::REGISTRY_PREFERRED, CUDAHooks)

inline at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> type, std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>,
                        std::optional<at::MemoryFormat> format) {
    const c10::DeviceGuard guard(device.value_or(at::Device(at::kCUDA)));
    return at::detail::empty_generic(size, &allocator(), c10::DispatchKeySet(c10::DispatchKey::CUDA), at::dtype_or_default(type), format);
}

inline at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> type, std::optional<at::Layout>,
                                std::optional<at::Device> device, std::optional<bool>) {
    const c10::DeviceGuard guard(device.value_or(at::Device(at::kCUDA)));
    return at::detail::empty_strided_generic(size, stride, &allocator(), c10::DispatchKeySet(c10::DispatchKey::CUDA), at::dtype_or_default(type));
}

/// Returns the same memory as a host tensor, after all enqueued work has run.
inline at::Tensor on_host(const at::Tensor &tensor) {
    if (!tensor.is_cuda()) return tensor;
    stand_in::wait();
    return at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(), tensor.options().device(at::kCPU).requires_grad(false));
}

inline at::Tensor &copy(at::Tensor &self, const at::Tensor &source, bool) {
    on_host(self).copy_(on_host(source));
    return self;
}

/// Runs any other operator on the CPU, on the same memory.
inline void by_the_host(const c10::OperatorHandle &op, torch::jit::Stack *stack) {
    std::vector<std::pair<at::Tensor, at::Tensor>> known; // on the device, on the host
    for (std::size_t i = stack->size() - op.schema().arguments().size(); i < stack->size(); i++) {
        c10::IValue &value = (*stack)[i];
        if (!value.isTensor() || !value.toTensor().defined() || !value.toTensor().is_cuda()) continue;
        known.emplace_back(value.toTensor(), on_host(value.toTensor()));
        value = known.back().second;
    }
    op.callBoxed(stack);
    for (std::size_t i = stack->size() - op.schema().returns().size(); i < stack->size(); i++) {
        c10::IValue &value = (*stack)[i];
        if (!value.isTensor() || !value.toTensor().defined()) continue;
        const at::Tensor result = value.toTensor();
        at::Tensor there;
        for (const auto &[device, host] : known) {
            if (host.is_same(result)) there = device;
        }
        if (!there.defined()) {
            there = at::empty_strided(result.sizes(), result.strides(), result.options().device(known.at(0).first.device()));
            on_host(there).copy_(result);
        }
        value = there;
    }
}

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
    library.impl("empty.memory_format", &empty);
    library.impl("empty_strided", &empty_strided);
    library.impl("as_strided", &at::native::as_strided_tensorimpl);
    library.impl("view", &at::native::view);
    library.impl("copy_", &copy);
}
TORCH_LIBRARY_IMPL(_, CUDA, library) { library.fallback(torch::CppFunction::makeFromBoxedFunction<&by_the_host>()); }

/// Loads the stand-in.
inline void begin(const char *path) {
    stand_in::open(path);
    for (int device = 0; device < DEVICES; device++) streams[device] = stand_in::stream(device);
}

} // namespace pretended_cuda

#endif
