// Device pointers through ols/ols.hpp, with the stand-in for the CUDA driver. Each test names its rules of bindings/RULES.md. Argument: the stand-in.
#include "check.hpp"
#include "stand_in.hpp"

#include <cmath>

namespace {

constexpr std::size_t N = 12, K = 5;
constexpr int DEVICE = 1;

template <class T>
std::vector<T> logits() {
    std::vector<T> values(N * K);
    for (std::size_t i = 0; i < values.size(); i++) values[i] = static_cast<T>(i * 37 % 19) / 8 + (i % K == i / K % K ? 4 : 0);
    return values;
}
template <class L>
std::vector<L> targets() {
    std::vector<L> values(N);
    for (std::size_t n = 0; n < N; n++) values[n] = static_cast<L>((n % 3 == 0 ? n + 1 : n) % K);
    return values;
}

/// Device memory as a tensor.
template <class T>
ols::tensor on_device(T *data, std::initializer_list<std::int64_t> shape) {
    ols_tensor_t raw = ols_tensor_3d(data, ols::dtype<T>::value, 1, 1, 1);
    std::int64_t stride = 1;
    raw.ndim = static_cast<std::int32_t>(shape.size());
    for (std::size_t d = shape.size(); d-- > 0;) {
        raw.shape[d] = shape.begin()[d];
        raw.strides[d] = stride;
        stride *= raw.shape[d];
    }
    raw.device_type = OLS_DEVICE_CUDA;
    raw.device_id = DEVICE;
    return ols::tensor(raw);
}

ols::options options(double alpha = 0.25) { return ols::options(static_cast<std::int64_t>(K)).alpha(alpha).threads(1); }

template <class T, class L>
void passes(double within) {
    test::begin("r17 r21 device tensors are passed unchanged on the caller's stream without synchronisation; results equal those on the host");
    ols::criterion host(options()), there(options().device(OLS_DEVICE_CUDA, DEVICE));
    const auto z = logits<T>();
    const auto y = targets<L>();
    std::vector<T> gradient(N * K);
    const double loss = host.loss_and_gradient(ols::batch(ols::view(z, N, K), ols::view(y)), ols::view(gradient, N, K));

    void *const stream = stand_in::stream(DEVICE);
    T *const to_gradient = stand_in::put(DEVICE, gradient), *const again = stand_in::put(DEVICE, gradient), *const to_loss = stand_in::put(DEVICE, std::vector<T>(1));
    ols::batch batch(on_device(stand_in::put(DEVICE, z), {N, K}), on_device(stand_in::put(DEVICE, y), {N}));
    batch.stream(stream).update(ols::update::no_update);
    there.forward(batch, on_device(to_loss, {}), on_device(to_gradient, {N, K})); // warm-up
    stand_in::wait();
    const long long waits = stand_in::get("synchronisations"), allocations = stand_in::get("allocations");
    there.forward(batch.update(ols::update::add), on_device(to_loss, {}), on_device(to_gradient, {N, K}));
    there.backward(batch, on_device(again, {N, K}));
    EXPECT(stand_in::get("synchronisations") == waits && stand_in::get("allocations") == allocations && stand_in::get("queued") > 0);
    EXPECT(stand_in::get("last_stream") == reinterpret_cast<long long>(stream));
    const auto found = stand_in::read(to_gradient, N * K);
    for (std::size_t i = 0; i < N * K; i++) EXPECT(std::fabs(static_cast<double>(found[i] - gradient[i])) <= within);
    EXPECT(std::fabs(static_cast<double>(*to_loss) - loss) <= 1e-5 && stand_in::read(again, N * K) == found);

    host.next_epoch();
    there.next_epoch(stream);
    const auto report = there.report(stream);
    EXPECT(report.rows_measured == static_cast<std::int64_t>(K) && report.samples_accumulated == 8);
    // A criterion on the host loads what it saves, on the stream that it uses; a clone is on the same device.
    ols::criterion loaded(static_cast<std::int64_t>(K));
    loaded.load(there.save_memory(stream));
    EXPECT(loaded.epoch() == 1);
    for (std::size_t j = 0; j < K; j++) {
        for (std::size_t k = 0; k < K; k++) {
            const auto was = static_cast<double>(host.soft_labels()(j, k));
            EXPECT(std::fabs(static_cast<double>(loaded.soft_labels()(j, k)) - was) <= std::ldexp(1, -29) + std::ldexp(was, -22));
        }
    }
    ols::criterion copy = there.clone(stream);
    EXPECT(copy.options().device_type() == OLS_DEVICE_CUDA && copy.options().device_id() == DEVICE && copy.save_memory(stream) == there.save_memory(stream));
}

void state() {
    test::begin("r26 the state is in device memory: available to an all-reduce there, not readable by the host");
    ols::criterion there(options().device(OLS_DEVICE_CUDA, DEVICE));
    ols::batch batch(on_device(stand_in::put(DEVICE, logits<float>()), {N, K}), on_device(stand_in::put(DEVICE, targets<std::int64_t>()), {N}));
    there.forward(batch, {});
    const ols_statistics_t statistics = there.statistics_tensors();
    EXPECT(statistics.counts.device_type == OLS_DEVICE_CUDA && statistics.counts.device_id == DEVICE);
    std::int64_t total = 0;
    for (const std::int64_t count : stand_in::read(static_cast<const std::int64_t *>(statistics.counts.data), K)) total += count;
    EXPECT(total == 8 && there.soft_labels_tensor().raw().device_type == OLS_DEVICE_CUDA);
    THROWS(OLS_STATUS_INVALID_DEVICE, "statistics|use statistics_tensors", there.statistics());
    THROWS(OLS_STATUS_INVALID_DEVICE, "soft_labels|use soft_labels_tensor", there.soft_labels());
}

void other_devices() {
    test::begin("r09 r17 wrong and missing devices are errors of the library");
    ols::criterion there(options().device(OLS_DEVICE_CUDA, DEVICE)), host(options());
    const auto z = logits<float>();
    auto y = targets<std::int64_t>();
    ols::batch here(ols::view(z, N, K), ols::view(y)), batch(on_device(stand_in::put(DEVICE, z), {N, K}), on_device(stand_in::put(DEVICE, y), {N}));
    THROWS(OLS_STATUS_INVALID_DEVICE, "logits.device = cpu|cuda:1", there.forward(here, {}));
    THROWS(OLS_STATUS_INVALID_DEVICE, "loss.device = cpu", there.loss(batch));
    THROWS(OLS_STATUS_INVALID_DEVICE, "logits.device = cuda:1|cpu", host.forward(batch, {}));
    THROWS(OLS_STATUS_INVALID_DEVICE, "device_id = 7 is outside [0, 2)", ols::criterion(options().device(OLS_DEVICE_CUDA, 7)));
    y[3] = 99;
    ols::batch wrong(on_device(stand_in::put(DEVICE, z), {N, K}), on_device(stand_in::put(DEVICE, y), {N}));
    there.forward(wrong, {});
    EXPECT(there.report().running_targets_out_of_range == 1);
}

} // namespace

int main(int, char **arguments) {
    stand_in::open(arguments[1]);
    passes<float, std::int64_t>(1e-6);
    passes<double, std::uint8_t>(1e-13);
    state();
    other_devices();
    return test::finish("device memory");
}
