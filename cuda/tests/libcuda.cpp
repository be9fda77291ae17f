// A stand-in for libcuda.so.1: two devices whose memory is host memory, and whose kernels run in the block emulator.
// Like the driver, it is asynchronous: work is queued, with arguments copied at the call, and runs when somebody
// synchronises. It records what tests ask about (calls, streams, contexts) and, while a stream is being captured,
// rejects what the driver rejects.
#define OLS_EMULATED
#include "emulator.h"
// After the emulator; includes all kernels.
#include "../kernels/hopper.cu"

#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

namespace {

typedef int Result;
typedef unsigned long long Pointer;
enum {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201, NO_BINARY = 209, INVALID_HANDLE = 400, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901, CAPTURE_IMPLICIT = 906,
};
enum { CAPTURE_GLOBAL = 0, CAPTURE_RELAXED = 2 };
void *const LEGACY_HANDLE = reinterpret_cast<void *>(1), *const PER_THREAD_HANDLE = reinterpret_cast<void *>(2);

typedef void (*Kernel)(dim3 grid, dim3 block, size_t dynamic, const void *argument, unsigned workers, unsigned seed);
struct Entry { Kernel run; size_t argument; };

template <class Argument, void (*KERNEL_FUNCTION)(const Argument)>
void run(dim3 grid, dim3 block, size_t dynamic, const void *argument, unsigned workers, unsigned seed) {
    Argument copy;
    memcpy(&copy, argument, sizeof copy);
    cpucuda::launch(grid, block, dynamic, [copy] { KERNEL_FUNCTION(copy); }, workers, seed);
}

#define ENTRY(Argument, name) {#name, {run<Argument, name>, sizeof(Argument)}}
#define ROWS_ENTRIES(type)                                                                                                               \
    ENTRY(Pass, ols_samples_##type), ENTRY(Pass, ols_rows32_##type), ENTRY(Pass, ols_rows128_##type), ENTRY(Pass, ols_rows256_##type),   \
        ENTRY(Pass, ols_rows512_##type)
#define USUAL_ENTRIES(type)                                                                                                              \
    ROWS_ENTRIES(type), ENTRY(Pass, ols_few32_##type), ENTRY(Pass, ols_staged_##type), ENTRY(Pass, ols_wide32_##type)
#define GENERAL_ENTRIES(type) ROWS_ENTRIES(any_##type), ENTRY(Pass, ols_rows8_any_##type), ENTRY(Pass, ols_accumulate_##type)
#define COPYING_ENTRIES(type) ENTRY(Pass, ols_shared32_##type), ENTRY(Pass, ols_stream512_##type)
const std::map<std::string, Entry> kernels = {
    USUAL_ENTRIES(f32), USUAL_ENTRIES(f16), USUAL_ENTRIES(bf16), GENERAL_ENTRIES(f32), GENERAL_ENTRIES(f64), GENERAL_ENTRIES(f16),
    GENERAL_ENTRIES(bf16), COPYING_ENTRIES(f32), COPYING_ENTRIES(f16), COPYING_ENTRIES(bf16), ENTRY(Pass, ols_divisor), ENTRY(Epoch, ols_epoch_begin), ENTRY(Epoch, ols_epoch_rows),
    ENTRY(Fill, ols_check_soft_labels), ENTRY(Fill, ols_fill_soft_labels),
};

struct Context { int device, references; };
struct Graph { std::vector<std::function<void()>> work; };
struct Stream { Context *context; bool capturing = false, invalidated = false; int mode = 0; Graph captured = {}; };
struct Module { const std::set<std::string> *kernels; };
struct Function { const Entry *entry; Module *module; std::string name; size_t dynamic = 48 * 1024; };
struct Allocation { size_t bytes; int device; };

const int DEVICES = 2;
std::recursive_mutex lock;
Context contexts[DEVICES] = {{0, 0}, {1, 0}};
std::set<Stream *> streams;
std::map<Pointer, Allocation> allocations;
std::deque<std::function<void()>> queue; // of all streams, in the order of submission, which is one of the valid orders
thread_local Context *current;
thread_local int capture_mode = CAPTURE_GLOBAL;
bool initialised;

// What tests set and read.
struct Log {
    int device_count = DEVICES, driver_version = 12000, capability = 90, shared_limit = 227 * 1024;
    int multiprocessors = 3; // few, so that blocks process more than one row
    long long allocations = 0, synchronisations = 0, copies = 0, launches = 0, live_bytes = 0, memory_limit = 1ll << 40;
    unsigned seed = 0, workers = 1;
    bool spoils = true; // fill new memory with garbage; large matrices of which little is touched take less host memory without
    Pointer last_stream = 0;
    unsigned last_blocks = 0, last_threads = 0;
    int last_module = 0; // compute capability of the module loaded last
    long long modules = 0, occupancies = 0; // modules loaded; occupancy queries
    int earlier_error = 0; // an asynchronous error, reported by the next call that reports such errors
    std::string kernels; // launched kernels, separated by spaces
} state;

typedef std::lock_guard<std::recursive_mutex> Guard;

Result drain() {
    while (!queue.empty()) {
        auto work = std::move(queue.front());
        queue.pop_front();
        work();
    }
    return SUCCESS;
}

Stream *find(void *handle) {
    auto at = streams.find(static_cast<Stream *>(handle));
    return at == streams.end() ? nullptr : *at;
}

bool is_legacy(void *handle) { return !handle || handle == LEGACY_HANDLE; }

// A default stream, or a stream that was created in the current context.
bool usable(void *handle) {
    return current && (is_legacy(handle) || handle == PER_THREAD_HANDLE || (find(handle) && find(handle)->context == current));
}

bool any_capture() {
    for (Stream *stream : streams)
        if (stream->capturing) return true;
    return false;
}

// Invalidates all captures, as an illegal call does, and returns its error.
Result break_captures(Result error) {
    for (Stream *stream : streams) stream->invalidated = stream->capturing;
    return error;
}

// Whether calls that could disturb a capture are illegal in this thread: a capture in global mode is in progress in
// any thread, and this thread is not in relaxed mode.
bool is_prohibited() {
    if (capture_mode == CAPTURE_RELAXED) return false;
    for (Stream *stream : streams)
        if (stream->capturing && stream->mode == CAPTURE_GLOBAL) return true;
    return false;
}

Result enqueue(void *handle, std::function<void()> work) {
    if (!usable(handle)) return current ? INVALID_HANDLE : INVALID_CONTEXT;
    Stream *stream = find(handle);
    if (is_legacy(handle) && any_capture()) return break_captures(CAPTURE_IMPLICIT); // it synchronises with all other streams
    if (stream && stream->invalidated) return CAPTURE_INVALIDATED;
    if (stream && stream->capturing) stream->captured.work.push_back(std::move(work));
    else queue.push_back(std::move(work));
    return SUCCESS;
}

// Whether [pointer, pointer + bytes) is device memory.
bool owns(Pointer pointer, size_t bytes, int *device = nullptr) {
    auto at = allocations.upper_bound(pointer);
    if (at == allocations.begin()) return false;
    --at;
    if (pointer + bytes > at->first + at->second.bytes) return false;
    if (device) *device = at->second.device;
    return true;
}

} // namespace

extern "C" {

Result cuInit(unsigned) {
    if (state.device_count == 0) return NO_DEVICE;
    initialised = true;
    return SUCCESS;
}
Result cuDriverGetVersion(int *version) { *version = state.driver_version; return SUCCESS; }
Result cuDeviceGetCount(int *count) {
    if (!initialised) return NOT_INITIALIZED;
    *count = state.device_count;
    return SUCCESS;
}
Result cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return ordinal >= 0 && ordinal < state.device_count ? SUCCESS : INVALID_DEVICE;
}
Result cuDeviceGetAttribute(int *value, int attribute, int) {
    *value = attribute == 75 ? state.capability / 10 : attribute == 76 ? state.capability % 10 : attribute == 97 ? state.shared_limit
           : attribute == 16 ? state.multiprocessors : 0;
    return SUCCESS;
}
Result cuDevicePrimaryCtxRetain(void **context, int device) {
    Guard guard(lock);
    ++contexts[device].references;
    *context = &contexts[device];
    return SUCCESS;
}
Result cuDevicePrimaryCtxRelease_v2(int device) {
    Guard guard(lock);
    return --contexts[device].references >= 0 ? SUCCESS : INVALID_CONTEXT;
}
Result cuCtxGetCurrent(void **context) { *context = current; return SUCCESS; }
Result cuCtxSetCurrent(void *context) { current = static_cast<Context *>(context); return SUCCESS; }
Result cuCtxSynchronize() {
    Guard guard(lock);
    ++state.synchronisations;
    if (!current) return INVALID_CONTEXT;
    return any_capture() ? break_captures(CAPTURE_UNSUPPORTED) : drain();
}
Result cuThreadExchangeStreamCaptureMode(int *mode) { std::swap(*mode, capture_mode); return SUCCESS; }
Result cuModuleLoadData(void **module, const void *image) {
    Guard guard(lock);
    ++state.allocations;
    if (!current) return INVALID_CONTEXT;
    if (is_prohibited()) return break_captures(CAPTURE_UNSUPPORTED);
    const char *text = static_cast<const char *>(image), mark[] = ".visible .entry ", target[] = ".target sm_";
    const bool machine = memcmp(text, "\x7f" "ELF", 4) == 0;
    int needed;
    if (machine) {
        // The low byte of the ELF flags. Machine code runs within a major compute capability.
        needed = (unsigned char)text[48];
        if (needed / 10 != state.capability / 10) return NO_BINARY;
    } else {
        const char *version = strstr(text, ".version 8.0\n"), *capability = strstr(text, target);
        if (!version || !capability) return INVALID_IMAGE;
        needed = atoi(capability + strlen(target));
    }
    if (needed > state.capability) return NO_BINARY;
    state.last_module = needed;
    ++state.modules;
    // Cached: the same images are loaded again and again, and have millions of characters.
    static std::map<const void *, std::set<std::string>> images;
    auto at = images.find(image);
    if (at == images.end()) {
        at = images.emplace(image, std::set<std::string>()).first;
        if (machine) {
            // There is a section per kernel; the section headers are at the end of the file.
            const size_t headers = *reinterpret_cast<const uint64_t *>(text + 40), count = *reinterpret_cast<const uint16_t *>(text + 60);
            const std::string_view file(text, headers + 64 * count), section(".text.ols_");
            for (size_t found = 0; (found = file.find(section, found)) != file.npos; found += section.size())
                at->second.insert(text + found + strlen(".text."));
        } else for (const char *entry = text; (entry = strstr(entry, mark));) {
            entry += strlen(mark);
            at->second.insert(std::string(entry, strcspn(entry, "(")));
        }
    }
    *module = new Module{&at->second};
    return SUCCESS;
}
Result cuModuleUnload(void *module) { delete static_cast<Module *>(module); return SUCCESS; }
Result cuModuleGetFunction(void **function, void *module, const char *name) {
    auto at = kernels.find(name);
    Module *in = static_cast<Module *>(module);
    if (at == kernels.end() || !in->kernels->count(name)) return NOT_FOUND;
    *function = new Function{&at->second, in, name}; // leaks a few bytes per function and test
    return SUCCESS;
}
Result cuFuncGetAttribute(int *value, int attribute, void *) {
    *value = attribute == 1 ? 1024 : 0; // SHARED_SIZE_BYTES: pretend that each kernel uses 1 KiB
    return SUCCESS;
}
Result cuFuncSetAttribute(void *function, int attribute, int value) {
    if (attribute != 8 || value > state.shared_limit - 1024) return INVALID_VALUE;
    static_cast<Function *>(function)->dynamic = size_t(value);
    return SUCCESS;
}
Result cuMemAlloc_v2(Pointer *pointer, size_t bytes) {
    Guard guard(lock);
    ++state.allocations;
    if (!current) return INVALID_CONTEXT;
    if (bytes == 0) return INVALID_VALUE;
    if (is_prohibited()) return break_captures(CAPTURE_UNSUPPORTED);
    if (state.live_bytes + (long long)bytes > state.memory_limit || bytes > (1ull << 40)) return OUT_OF_MEMORY;
    void *memory = malloc(bytes);
    if (!memory) return OUT_OF_MEMORY;
    if (state.spoils) memset(memory, 0xa5, bytes < (1 << 28) ? bytes : (1 << 28));
    *pointer = Pointer(memory);
    allocations[*pointer] = {bytes, current->device};
    state.live_bytes += (long long)bytes;
    return SUCCESS;
}
Result cuMemFree_v2(Pointer pointer) {
    Guard guard(lock);
    ++state.synchronisations;
    auto at = allocations.find(pointer);
    if (at == allocations.end() || !current || current->device != at->second.device) return INVALID_VALUE;
    if (is_prohibited()) return break_captures(CAPTURE_UNSUPPORTED);
    drain();
    state.live_bytes -= (long long)at->second.bytes;
    allocations.erase(at);
    free(reinterpret_cast<void *>(pointer));
    return SUCCESS;
}
Result cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t bytes, void *stream) {
    Guard guard(lock);
    ++state.copies;
    if (!owns(to, bytes)) return INVALID_VALUE;
    // Pageable memory is read before the call returns.
    std::vector<char> copy(static_cast<const char *>(from), static_cast<const char *>(from) + bytes);
    return enqueue(stream, [=] { memcpy(reinterpret_cast<void *>(to), copy.data(), bytes); });
}
Result cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t bytes, void *stream) {
    Guard guard(lock);
    ++state.copies;
    if (!owns(from, bytes)) return INVALID_VALUE;
    return enqueue(stream, [=] { memcpy(to, reinterpret_cast<const void *>(from), bytes); });
}
Result cuMemsetD8Async(Pointer to, unsigned char value, size_t bytes, void *stream) {
    Guard guard(lock);
    ++state.copies;
    if (!owns(to, bytes)) return INVALID_VALUE;
    return enqueue(stream, [=] { memset(reinterpret_cast<void *>(to), value, bytes); });
}
Result cuStreamCreate(void **stream, unsigned) {
    Guard guard(lock);
    if (!current) return INVALID_CONTEXT;
    Stream *fresh = new Stream{current};
    streams.insert(fresh);
    *stream = fresh;
    return SUCCESS;
}
Result cuStreamDestroy_v2(void *stream) {
    Guard guard(lock);
    if (!find(stream)) return INVALID_HANDLE;
    drain();
    streams.erase(find(stream));
    delete static_cast<Stream *>(stream);
    return SUCCESS;
}
Result cuStreamSynchronize(void *stream) {
    Guard guard(lock);
    ++state.synchronisations;
    if (!usable(stream)) return INVALID_HANDLE;
    const bool captured = is_legacy(stream) ? any_capture() : find(stream) && find(stream)->capturing;
    return captured ? break_captures(CAPTURE_UNSUPPORTED) : drain();
}
Result cuStreamIsCapturing(void *stream, int *status) {
    Guard guard(lock);
    if (!usable(stream)) return INVALID_HANDLE;
    if (is_legacy(stream) && any_capture()) return CAPTURE_IMPLICIT;
    Stream *it = find(stream);
    *status = !it || !it->capturing ? 0 : it->invalidated ? 2 : 1;
    return SUCCESS;
}
Result cuStreamBeginCapture_v2(void *stream, int mode) {
    Guard guard(lock);
    Stream *it = find(stream);
    if (!it) return CAPTURE_UNSUPPORTED;
    it->capturing = true;
    it->mode = mode;
    return SUCCESS;
}
Result cuStreamEndCapture(void *stream, void **graph) {
    Guard guard(lock);
    Stream *it = find(stream);
    if (!it || !it->capturing) return INVALID_VALUE;
    const bool invalidated = it->invalidated;
    it->capturing = it->invalidated = false;
    *graph = invalidated ? nullptr : new Graph(std::move(it->captured));
    it->captured = Graph();
    return invalidated ? (Result)CAPTURE_INVALIDATED : (Result)SUCCESS;
}
Result cuGraphLaunch(void *graph, void *stream) {
    Guard guard(lock);
    for (auto &work : static_cast<Graph *>(graph)->work)
        if (Result result = enqueue(stream, work)) return result;
    return SUCCESS;
}
Result cuGraphDestroy(void *graph) { delete static_cast<Graph *>(graph); return SUCCESS; }
Result cuPointerGetAttributes(unsigned count, const int *attributes, void **data, Pointer pointer) {
    Guard guard(lock);
    if (state.earlier_error) return state.earlier_error;
    int device = -2;
    bool known = owns(pointer, 1, &device);
    for (unsigned i = 0; i < count; ++i) {
        if (attributes[i] == 2) *static_cast<unsigned *>(data[i]) = known ? 2 : 0;      // MEMORY_TYPE: DEVICE, or 0 for unknown memory
        else if (attributes[i] == 9) *static_cast<int *>(data[i]) = device;             // DEVICE_ORDINAL
        else return INVALID_VALUE;
    }
    return SUCCESS;
}
Result cuLaunchKernel(void *handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned dynamic, void *stream,
                      void **arguments, void **extra) {
    Guard guard(lock);
    Function *function = static_cast<Function *>(handle);
    if (!gx || !gy || !gz || !bx || bx * by * bz > 1024 || gx > 0x7fffffff || dynamic > function->dynamic || extra) return INVALID_VALUE;
    ++state.launches;
    state.last_stream = Pointer(stream);
    state.last_blocks = gx;
    state.last_threads = bx;
    state.kernels += (state.kernels.empty() ? "" : " ") + function->name;
    const char *argument = static_cast<const char *>(arguments[0]);
    std::vector<char> copy(argument, argument + function->entry->argument);
    Kernel kernel = function->entry->run;
    return enqueue(stream, [=] { kernel(dim3(gx, gy, gz), dim3(bx, by, bz), dynamic, copy.data(), state.workers, state.seed); });
}
// Pretends that two blocks occupy a multiprocessor.
Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *handle, int threads, size_t dynamic) {
    Guard guard(lock);
    ++state.occupancies;
    if (!current) return INVALID_CONTEXT;
    if (!handle || threads < 1 || threads > 1024 || dynamic > static_cast<Function *>(handle)->dynamic) return INVALID_VALUE;
    *blocks = 2;
    return SUCCESS;
}
Result cuGetErrorName(int error, const char **text) {
    *text = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : error == NO_DEVICE ? "CUDA_ERROR_NO_DEVICE" : error == INVALID_HANDLE ? "CUDA_ERROR_INVALID_HANDLE"
          : error == CAPTURE_UNSUPPORTED ? "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED" : "CUDA_ERROR_OF_THE_STAND_IN";
    return SUCCESS;
}
Result cuGetErrorString(int error, const char **text) {
    *text = error == NO_DEVICE ? "no CUDA-capable device is detected" : "an error";
    return SUCCESS;
}

// The interface for tests.
void standin_set(const char *name, long long value) {
    Guard guard(lock);
    std::string key = name;
    if (key == "device_count") { state.device_count = int(value); initialised = false; }
    else if (key == "driver_version") state.driver_version = int(value);
    else if (key == "capability") state.capability = int(value);
    else if (key == "shared_limit") state.shared_limit = int(value);
    else if (key == "multiprocessors") state.multiprocessors = int(value);
    else if (key == "memory_limit") state.memory_limit = value;
    else if (key == "seed") state.seed = unsigned(value);
    else if (key == "workers") state.workers = unsigned(value);
    else if (key == "earlier_error") state.earlier_error = int(value);
    else if (key == "spoils") state.spoils = value != 0;
    else abort();
}
long long standin_get(const char *name) {
    Guard guard(lock);
    std::string key = name;
    if (key == "allocations") return state.allocations;
    if (key == "synchronisations") return state.synchronisations;
    if (key == "copies") return state.copies;
    if (key == "launches") return state.launches;
    if (key == "live_bytes") return state.live_bytes;
    if (key == "last_stream") return (long long)state.last_stream;
    if (key == "last_blocks") return state.last_blocks;
    if (key == "last_threads") return state.last_threads;
    if (key == "last_module") return state.last_module;
    if (key == "modules") return state.modules;
    if (key == "occupancies") return state.occupancies;
    if (key == "queued") return (long long)queue.size();
    if (key == "references") return contexts[0].references + contexts[1].references;
    abort();
}
// The names of the kernels launched since the last call.
const char *standin_kernels() {
    Guard guard(lock);
    static std::string last;
    last = state.kernels;
    state.kernels.clear();
    return last.c_str();
}
// Sizes, offsets and constants of the kernel arguments: one "name value" per line.
const char *standin_layout() {
    static std::string text;
    if (!text.empty()) return text.c_str();
    const auto put = [](const char *name, long long value) { text += std::string(name) + " " + std::to_string(value) + "\n"; };
#define FIELD(type, field) put(#type "." #field, offsetof(type, field));
#define NUMBER(name) put(#name, (long long)name);
#define STRUCT(type) put(#type, sizeof(type));
    STRUCT(PerSample) FIELD(PerSample, data) FIELD(PerSample, outer) FIELD(PerSample, inner) FIELD(PerSample, dtype) FIELD(PerSample, unused)
    STRUCT(Rows) FIELD(Rows, data) FIELD(Rows, outer) FIELD(Rows, step) FIELD(Rows, inner)
    STRUCT(State) FIELD(State, soft_labels) FIELD(State, soft_labels_stride) FIELD(State, sums) FIELD(State, sums_stride) FIELD(State, counts)
    FIELD(State, counters)
    STRUCT(Scratch) FIELD(Scratch, divisors) FIELD(Scratch, divisor) FIELD(Scratch, losses) FIELD(Scratch, near_losses) FIELD(Scratch, rest_of_losses)
    FIELD(Scratch, far_losses) FIELD(Scratch, far_from_finite) FIELD(Scratch, has_far_losses) FIELD(Scratch, loss_ticket) FIELD(Scratch, divisor_ticket)
    FIELD(Scratch, tally_ticket) FIELD(Scratch, refused) FIELD(Scratch, bad_soft_labels) FIELD(Scratch, next_slice) FIELD(Scratch, unused)
    FIELD(Scratch, counted) FIELD(Scratch, report)
    STRUCT(Pass) FIELD(Pass, logits) FIELD(Pass, grad) FIELD(Pass, targets) FIELD(Pass, loss) FIELD(Pass, count) FIELD(Pass, inner)
    FIELD(Pass, target_offset) FIELD(Pass, ignore_index) FIELD(Pass, state) FIELD(Pass, alpha) FIELD(Pass, near_loss) FIELD(Pass, scratch)
    FIELD(Pass, classes) FIELD(Pass, reduction) FIELD(Pass, statistics) FIELD(Pass, divisor) FIELD(Pass, count_targets) FIELD(Pass, cached)
    FIELD(Pass, slice) FIELD(Pass, slices) FIELD(Pass, targets2) FIELD(Pass, weights) FIELD(Pass, lam) FIELD(Pass, grad_loss)
    FIELD(Pass, class_weights) FIELD(Pass, scaled_weights) FIELD(Pass, scaled_weights32) FIELD(Pass, weight_scale) FIELD(Pass, tally)
    STRUCT(Epoch) FIELD(Epoch, state) FIELD(Epoch, scratch) FIELD(Epoch, initial) FIELD(Epoch, own) FIELD(Epoch, other) FIELD(Epoch, momentum)
    FIELD(Epoch, freeze_above) FIELD(Epoch, min_count) FIELD(Epoch, epoch) FIELD(Epoch, classes) FIELD(Epoch, policy) FIELD(Epoch, policy_report)
    FIELD(Epoch, unused)
    STRUCT(Fill) FIELD(Fill, to) FIELD(Fill, to_stride) FIELD(Fill, from) FIELD(Fill, from_row) FIELD(Fill, from_column) FIELD(Fill, own)
    FIELD(Fill, other) FIELD(Fill, scratch) FIELD(Fill, classes) FIELD(Fill, from_dtype) FIELD(Fill, checked) FIELD(Fill, unused)
    NUMBER(OLS_STREAM_CHUNK) NUMBER(OLS_STREAM_SLOTS) NUMBER(OLS_STREAM_LABEL_SLOTS)
    put("StreamBarriers", sizeof(RowStream<float, 512>::Barriers));
    put("RowInShared.f32", sizeof(RowInShared<float>::Memory));
    put("RowInShared.f16", sizeof(RowInShared<f16>::Memory));
    put("RowInShared.bf16", sizeof(RowInShared<bf16>::Memory));
    NUMBER(OLS_DIVISOR_BLOCKS) NUMBER(OLS_DIVISOR_IN_BLOCK) NUMBER(OLS_FAR_PIECES) NUMBER(OLS_LOSSES_IN_ONE) NUMBER(OLS_SUM_BITS) NUMBER(OLS_LOSS_ONE)
    NUMBER(OLS_FRACTION_ONE) NUMBER(OLS_FULL_CLASS) NUMBER(COUNTERS) NUMBER(COUNTER_SKIPPED) NUMBER(COUNTER_OUT_OF_RANGE) NUMBER(COUNTER_REFUSED)
    NUMBER(DTYPE_I64) NUMBER(DTYPE_I32) NUMBER(DTYPE_U8) NUMBER(DTYPE_F32) NUMBER(DTYPE_F64) NUMBER(REDUCTION_NONE) NUMBER(REDUCTION_MEAN)
    NUMBER(REDUCTION_SUM) NUMBER(STATISTICS_LEAVE) NUMBER(STATISTICS_ADD) NUMBER(STATISTICS_TALLY) NUMBER(STATISTICS_TAKE_BACK) NUMBER(DIVISOR_ONE)
    NUMBER(DIVISOR_BY_EACH_BLOCK) NUMBER(DIVISOR_FROM_KERNEL) NUMBER(DIVISOR_BY_ALL_BLOCKS) NUMBER(POLICY_KEEP) NUMBER(POLICY_CONSTANT)
    NUMBER(POLICY_MATRIX) NUMBER(REPORT_KEPT) NUMBER(REPORT_UNIFORM) NUMBER(REPORT_INITIAL) NUMBER(REPORT_ONE_HOT) NUMBER(REPORT_ZERO)
    NUMBER(REPORT_REFUSED) NUMBER(REPORT_BAD_SOFT_LABELS)
    return text.c_str();
}
}
