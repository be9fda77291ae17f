// Conversion of LibTorch's tensors to views, without copying if their strides allow it.
#ifndef OLS_TORCH_TENSORS_HPP
#define OLS_TORCH_TENSORS_HPP

#include <ols/torch/options.hpp>

#include <c10/core/impl/VirtualGuardImpl.h>
#include <ols_dlpack.h>

namespace ols::torch::detail {

/// Returns DLPack's numbers for a dtype, as `dtype_code | dtype_bits << 8`. A dtype that libols does not have is
/// reported here, with the name of the argument.
inline std::int32_t dtype_of(const char *name, at::ScalarType type) {
    switch (type) {
    case at::kFloat: return OLS_DTYPE_F32;
    case at::kDouble: return OLS_DTYPE_F64;
    case at::kHalf: return OLS_DTYPE_F16;
    case at::kBFloat16: return OLS_DTYPE_BF16;
    case at::kLong: return OLS_DTYPE_I64;
    case at::kInt: return OLS_DTYPE_I32;
    case at::kByte: return OLS_DTYPE_U8;
    case at::kShort: return OLS_CODE_INT | 16 << 8;
    case at::kChar: return OLS_CODE_INT | 8 << 8;
    default: throw error(OLS_STATUS_INVALID_DTYPE, std::string("ols::torch: ") + name + " has dtype " + c10::toString(type) + ", which is not supported");
    }
}

inline std::int32_t device_type_of(const char *name, const at::Device &device) {
    if (device.is_cpu()) return OLS_DEVICE_CPU;
    if (device.is_cuda()) return OLS_DEVICE_CUDA;
    throw error(OLS_STATUS_INVALID_DEVICE, std::string("ols::torch: ") + name + " is on device " + device.str() + "; only cpu and cuda are supported");
}

/// Returns whether the dimensions collapse to the at most three of the library; `*out` is then the view. `layout` is
/// one of `OLS_DLPACK_...`.
inline bool collapses(const char *name, const at::Tensor &tensor, std::int32_t layout, ols_tensor_t *out) {
    const std::int32_t dtype = dtype_of(name, tensor.scalar_type());
    const std::int32_t device = device_type_of(name, tensor.device());
    return ols_tensor_from_dlpack_fields(tensor.data_ptr(), 0, device, tensor.device().is_cuda() ? tensor.device().index() : 0,
                                         static_cast<std::uint8_t>(dtype & 255), static_cast<std::uint8_t>(dtype >> 8), 1,
                                         static_cast<std::int32_t>(tensor.dim()), tensor.sizes().data(), tensor.strides().data(), layout,
                                         out) == OLS_STATUS_OK;
}

/// Returns the tensor itself or, if it cannot be read in place, a row-major copy, with a one-time warning.
inline at::Tensor readable(const char *name, const at::Tensor &tensor, std::int32_t layout) {
    if (!tensor.defined()) return tensor;
    if (tensor.layout() != at::kStrided) {
        throw error(OLS_STATUS_INVALID_ARGUMENT, std::string("ols::torch: ") + name + " has layout " + c10::str(tensor.layout()) + ", which is not supported");
    }
    ols_tensor_t view;
    if (!tensor.is_neg() && collapses(name, tensor, layout, &view)) return tensor;
    TORCH_WARN_ONCE("ols::torch: the strides of ", name, " cannot be collapsed to three dimensions, so each call copies it (shown once)");
    return tensor.resolve_neg().contiguous();
}

/// Returns a view of a tensor that `readable` has returned; "not given" for an undefined tensor.
inline tensor view_of(const char *name, const at::Tensor &tensor, std::int32_t layout) {
    if (!tensor.defined()) return ols::tensor();
    ols_tensor_t view;
    if (!collapses(name, tensor, layout, &view)) {
        throw error(OLS_STATUS_INVALID_SHAPE, std::string("ols::torch: ") + name + " has " + std::to_string(tensor.dim()) +
                                                  " dimensions, which cannot be collapsed to three");
    }
    return ols::tensor(view);
}

/// Returns the `cudaStream_t` of a stream through LibTorch alone, so that no CUDA header is needed (2.10 and later).
template <class Stream>
auto native_handle(const Stream &stream, int) -> decltype(stream.native_handle()) {
    return stream.native_handle();
}
template <class Stream>
void *native_handle(const Stream &, long) {
    throw error(OLS_STATUS_UNSUPPORTED, "ols::torch: this LibTorch does not provide the CUDA stream of a device; 2.10 or later does");
}

/// Returns LibTorch's current stream of `device`; NULL for the CPU.
inline void *current_stream(const at::Device &device) {
    if (device.is_cpu()) return nullptr;
    return native_handle(c10::impl::VirtualGuardImpl(device.type()).getStream(device), 0);
}

} // namespace ols::torch::detail

#endif
