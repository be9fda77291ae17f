// The stand-in for the CUDA driver (cuda/tests), loaded instead of libcuda: device memory and streams without a GPU.
#ifndef STAND_IN_HPP
#define STAND_IN_HPP

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <dlfcn.h>

namespace stand_in {

inline void *driver = nullptr;

template <class... Arguments>
int call(const char *name, Arguments... arguments) {
    using function = int (*)(Arguments...);
    const auto found = reinterpret_cast<function>(dlsym(driver, name));
    if (found == nullptr) std::fprintf(stderr, "the stand-in has no %s\n", name), std::abort();
    return found(arguments...);
}

inline void demand(int status) {
    if (status != 0) std::fprintf(stderr, "the stand-in returns %d\n", status), std::abort();
}

/// Loads it before libols loads libcuda.so, which finds it under that name.
inline void open(const char *path) {
    driver = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (driver == nullptr) std::fprintf(stderr, "%s\n", dlerror()), std::abort();
}

/// Makes the primary context of a device current in this thread.
inline void enter(int device) {
    void *context = nullptr;
    demand(call("cuInit", 0u));
    demand(call("cuDevicePrimaryCtxRetain", &context, device));
    demand(call("cuCtxSetCurrent", context));
}

inline void *allocate(int device, std::size_t bytes) {
    enter(device);
    unsigned long long address = 0;
    demand(call("cuMemAlloc_v2", &address, bytes == 0 ? std::size_t(1) : bytes));
    return reinterpret_cast<void *>(address);
}

inline void free(int device, void *memory) {
    enter(device);
    demand(call("cuMemFree_v2", reinterpret_cast<unsigned long long>(memory)));
}

inline void *stream(int device) {
    enter(device);
    void *out = nullptr;
    demand(call("cuStreamCreate", &out, 1u));
    return out;
}

/// Runs all enqueued work.
inline void wait() {
    enter(0);
    demand(call("cuCtxSynchronize"));
}

/// Returns a counter of the stand-in, such as "synchronisations".
inline long long get(const char *name) {
    return reinterpret_cast<long long (*)(const char *)>(dlsym(driver, "standin_get"))(name);
}

/// Copies values to device memory, which is actually host memory and is never freed.
template <class T>
T *put(int device, const std::vector<T> &values) {
    void *const memory = allocate(device, values.size() * sizeof(T));
    std::memcpy(memory, values.data(), values.size() * sizeof(T));
    return static_cast<T *>(memory);
}

/// Returns the values after all enqueued work has run.
template <class T>
std::vector<T> read(const T *memory, std::size_t count) {
    wait();
    return std::vector<T>(memory, memory + count);
}

} // namespace stand_in

#endif
