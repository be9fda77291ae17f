/*
 * DLPack adapter for libols: creates an ols_tensor_t view of a DLTensor.
 *
 * Include your own dlpack.h before or after this header; nothing from it is needed here. No memory
 * is allocated and no ownership is taken: the view is valid for as long as the DLTensor's memory
 * is. For a DLManagedTensor pass its `dl_tensor`.
 *
 *     ols_tensor_t logits;
 *     ols_status_t status =
 *         ols_tensor_from_dlpack(&managed->dl_tensor, OLS_DLPACK_CLASS_SECOND, &logits);
 *
 * Everything here is inline and does not call the library: the text of ols_last_error is not
 * changed.
 */
#ifndef OLS_DLPACK_H
#define OLS_DLPACK_H

#include "ols.h"

/**
 * Layout (N, ...): targets, sample weights, lam or losses. All dimensions after the first are
 * collapsed into one.
 */
#define OLS_DLPACK_SAMPLES 0
/**
 * Layout (N, K, ...): logits or gradients with the class second, as for images. All dimensions
 * after the second are collapsed into one.
 */
#define OLS_DLPACK_CLASS_SECOND 1
/**
 * Layout (N, ..., K): logits or gradients with the class last, as for sequences. The view has the
 * shape (N, K, inner); nothing is copied.
 */
#define OLS_DLPACK_CLASS_LAST 2
/** Up to three dimensions that are kept as they are, for example a (K, K) matrix. */
#define OLS_DLPACK_PLAIN 3

/**
 * Creates a view of the DLTensor that `tensor` points to and stores it in `*out`.
 *
 * `layout` is one of the four constants above; `out` is an `ols_tensor_t *`. This is a macro, so
 * that it works with any definition of DLTensor; it is an expression of type `ols_status_t` and may
 * evaluate `tensor` more than once. Safe to call from any thread.
 *
 * On failure `*out` is unchanged: OLS_STATUS_INVALID_DTYPE if lanes is not 1;
 * OLS_STATUS_INVALID_SHAPE if there are too few or too many dimensions, if a size is negative, or
 * if dimensions cannot be collapsed because they have no common stride (copy such a tensor first);
 * OLS_STATUS_INVALID_ARGUMENT if `out` or the shape is NULL or the layout is unknown.
 */
#define ols_tensor_from_dlpack(tensor, layout, out)                                               \
    ols_tensor_from_dlpack_fields((tensor)->data, (tensor)->byte_offset,                          \
                                  OLS_DLPACK_INT32_((tensor)->device.device_type),                \
                                  (tensor)->device.device_id, (tensor)->dtype.code,               \
                                  (tensor)->dtype.bits, (tensor)->dtype.lanes, (tensor)->ndim,    \
                                  (tensor)->shape, (tensor)->strides, (layout), (out))

/** The device type is an enum in dlpack.h. Internal. */
#ifdef __cplusplus
#define OLS_DLPACK_INT32_(value) static_cast<int32_t>(value)
#else
#define OLS_DLPACK_INT32_(value) ((int32_t)(value))
#endif

#if defined(__cplusplus) && defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast"
#endif

/**
 * Collapses the dimensions `from` to `to` - 1 into one and stores its size and stride. Returns 0 if
 * they have no common stride. `strides` may be NULL, which means row-major. Internal.
 */
static inline int ols_dlpack_collapse(int32_t ndim, const int64_t *shape, const int64_t *strides,
                                      int32_t from, int32_t to, int64_t *size, int64_t *stride) {
    int64_t row_major = 1, total = 1, step = 0;
    int32_t d;
    for (d = ndim - 1; d >= from; d--) {
        const int64_t here = shape[d], own = strides ? strides[d] : row_major;
        if (here < 0) return 0;
        if (here != 0 && row_major > INT64_MAX / here) return 0;
        if (here != 0) row_major *= here;
        if (d >= to || here == 1) continue;
        if (here == 0) {
            total = 0;
        } else if (total == 1) {
            total = here;
            step = own;
        } else if (total != 0) {
            if (total > INT64_MAX / here) return 0;
            /* step * total cannot overflow for memory that exists; unsigned arithmetic keeps it
               well-defined for any other strides. */
            if ((uint64_t)own != (uint64_t)step * (uint64_t)total) return 0;
            total *= here;
        }
    }
    *size = total;
    *stride = step;
    return 1;
}

/**
 * The implementation of `ols_tensor_from_dlpack`: takes the fields of the DLTensor one by one.
 */
static inline ols_status_t ols_tensor_from_dlpack_fields(
    void *data, uint64_t byte_offset, int32_t device_type, int32_t device_id, uint8_t code,
    uint8_t bits, uint16_t lanes, int32_t ndim, const int64_t *shape, const int64_t *strides,
    int32_t layout, ols_tensor_t *out) {
    /* Dimension d of the result is collapsed from dimensions from[d] to to[d] - 1 of the source. */
    int32_t from[3] = {0, 1, 2}, to[3] = {1, 2, 3}, result = ndim, d;
    ols_tensor_t tensor = ols_tensor_0d(data, 0);
    if (!out || (ndim > 0 && !shape)) return OLS_STATUS_INVALID_ARGUMENT;
    if (lanes != 1) return OLS_STATUS_INVALID_DTYPE;
    if (ndim < 0) return OLS_STATUS_INVALID_SHAPE;
    switch (layout) {
    case OLS_DLPACK_SAMPLES:
        if (ndim > 1) result = 2, to[1] = ndim;
        break;
    case OLS_DLPACK_CLASS_SECOND:
        if (ndim < 2) return OLS_STATUS_INVALID_SHAPE;
        if (ndim > 2) result = 3, to[2] = ndim;
        break;
    case OLS_DLPACK_CLASS_LAST:
        if (ndim < 2) return OLS_STATUS_INVALID_SHAPE;
        if (ndim > 2) result = 3, from[1] = ndim - 1, to[1] = ndim, from[2] = 1, to[2] = ndim - 1;
        break;
    case OLS_DLPACK_PLAIN:
        if (ndim > 3) return OLS_STATUS_INVALID_SHAPE;
        break;
    default:
        return OLS_STATUS_INVALID_ARGUMENT;
    }
    tensor.data = byte_offset ? (void *)((uintptr_t)data + (uintptr_t)byte_offset) : data;
    tensor.device_type = device_type;
    tensor.device_id = device_id;
    tensor.dtype_code = code;
    tensor.dtype_bits = bits;
    tensor.dtype_lanes = lanes;
    tensor.ndim = result;
    for (d = 0; d < result; d++) {
        if (!ols_dlpack_collapse(ndim, shape, strides, from[d], to[d], &tensor.shape[d],
                                 &tensor.strides[d]))
            return OLS_STATUS_INVALID_SHAPE;
    }
    *out = tensor;
    return OLS_STATUS_OK;
}

#if defined(__cplusplus) && defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#endif /* OLS_DLPACK_H */
