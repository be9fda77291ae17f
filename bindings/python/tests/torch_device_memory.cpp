// CUDA tensors for PyTorch where there is no GPU: those of the C++ tests, in the place of what the real libtorch_cuda has registered.
#include <torch/torch.h>

#include "../../cpp/tests/torch_cuda.hpp"

#include <ATen/core/dispatch/Dispatcher.h>

#include <set>
#include <string>

extern "C" {

/// Opens the stand-in for the driver. From now on the host runs every operator that has a kernel for CUDA, on the same memory.
void begin(const char *stand_in_path) {
    pretended_cuda::begin(stand_in_path);
    static const std::set<std::string> own = {"aten::empty.memory_format", "aten::empty_strided", "aten::as_strided", "aten::view", "aten::copy_"};
    static auto *const library = new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::CUDA, __FILE__, __LINE__);
    c10::Dispatcher &dispatcher = c10::Dispatcher::singleton();
    for (const c10::OperatorName &name : dispatcher.getAllOpNames()) {
        const std::string full = c10::toString(name), space = "aten::";
        if (full.rfind(space, 0) != 0 || own.count(full) || !dispatcher.findOp(name)->hasKernelForDispatchKey(c10::DispatchKey::CUDA)) continue;
        library->impl(full.c_str() + space.size(), torch::CppFunction::makeFromBoxedFunction<&pretended_cuda::by_the_host>());
    }
}

void *stream(int device) { return pretended_cuda::streams[device]; }
}
