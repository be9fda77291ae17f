// Replaces PyTorch's CPU allocator by one that, while told to, allocates from the stand-in for the CUDA driver: to
// PyTorch such a tensor is on the host, to libols it is on the device.
#include <cstring>

#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>

namespace {

void *driver, *context;
bool on_device;

template <class... Arguments>
int call(const char *name, Arguments... arguments) {
    using function = int (*)(Arguments...);
    const auto found = reinterpret_cast<function>(dlsym(driver, name));
    TORCH_CHECK(found != nullptr, "the stand-in has no ", name);
    return found(arguments...);
}

// Like PyTorch's own allocator on a device, allocates and frees in relaxed capture mode: an allocation is not part of a graph.
class RelaxedCapture {
public:
    RelaxedCapture() { exchange(); }
    ~RelaxedCapture() { exchange(); }

private:
    void exchange() { call("cuThreadExchangeStreamCaptureMode", &mode); }
    int mode = 2; // CU_STREAM_CAPTURE_MODE_RELAXED
};

void release(void *memory) {
    call("cuCtxSetCurrent", context);
    const RelaxedCapture relaxed;
    call("cuMemFree_v2", reinterpret_cast<unsigned long long>(memory));
}

class Allocator final : public c10::Allocator {
public:
    explicit Allocator(c10::Allocator *host) : host(host) {}
    c10::DataPtr allocate(std::size_t bytes) override {
        if (!on_device) return host->allocate(bytes);
        unsigned long long address = 0;
        call("cuCtxSetCurrent", context);
        const RelaxedCapture relaxed;
        TORCH_CHECK(call("cuMemAlloc_v2", &address, bytes == 0 ? std::size_t(1) : bytes) == 0, "CUDA out of memory: ", bytes, " bytes");
        void *const memory = reinterpret_cast<void *>(address);
        return {memory, memory, &release, c10::Device(c10::kCPU)};
    }
    void copy_data(void *to, const void *from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }

private:
    c10::Allocator *host;
};

} // namespace

extern "C" {

// Replaces PyTorch's allocator. `of_device` is the retained primary context of the first device.
void pretend_begin(void *of_driver, void *of_device) {
    driver = of_driver;
    context = of_device;
    c10::SetCPUAllocator(new Allocator(c10::GetCPUAllocator()), 255);
}

// Selects whether memory is allocated on the device from now on; returns the previous setting.
int pretend_on_device(int wanted) {
    const bool before = on_device;
    on_device = wanted != 0;
    return before;
}
}
