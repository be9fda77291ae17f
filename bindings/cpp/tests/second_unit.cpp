// A second translation unit with the same headers: anything that is not inline there would be defined twice.
#include <ols/ols.hpp>
#include <ols/ols.hpp>
#include <ols_dlpack.h>

double loss_in_another_unit(ols::criterion &criterion) {
    const float logits[2][3] = {{2.0f, 0.1f, -1.0f}, {0.3f, 0.2f, 0.1f}};
    const std::uint8_t targets[2] = {0, 2};
    return criterion.loss(ols::batch(ols::view(logits), ols::view(targets)));
}

/// `DLTensor` is any struct with the fields of DLPack's DLTensor.
template <class DLTensor>
ols::tensor from_dlpack(const DLTensor &tensor) {
    ols_tensor_t view;
    ols::check(ols_tensor_from_dlpack(&tensor, OLS_DLPACK_CLASS_SECOND, &view));
    return ols::tensor(view);
}

struct dl_tensor {
    void *data;
    struct {
        enum : std::int32_t { cpu = 1 } device_type;
        std::int32_t device_id;
    } device;
    std::int32_t ndim;
    struct {
        std::uint8_t code, bits;
        std::uint16_t lanes;
    } dtype;
    std::int64_t *shape, *strides;
    std::uint64_t byte_offset;
};
template ols::tensor from_dlpack(const dl_tensor &);
