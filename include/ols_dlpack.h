/*
 * From DLPack to libols: a view of a DLTensor as an ols_tensor_t.
 *
 * Include your own dlpack.h, in any order; nothing of it is needed here. Allocates nothing, takes nothing over: the memory stays its owner's, and the view
 * holds as long as it does. A DLManagedTensor is its `dl_tensor`.
 *
 *     ols_tensor_t logits;
 *     ols_status_t status = ols_tensor_from_dlpack(&managed->dl_tensor, OLS_DLPACK_CLASS_SECOND, &logits);
 *
 * These are inline functions and no calls of the library: they leave the text of ols_last_error as it is.
 */
#ifndef OLS_DLPACK_H
#define OLS_DLPACK_H

#include "ols.h"

/** What the dimensions are: an (N, ...) tensor of targets, sample weights, lam, losses. All behind the first become one. */
#define OLS_DLPACK_SAMPLES 0
/** What the dimensions are: (N, K, ...) logits or gradients, as images have them. All behind the second become one. */
#define OLS_DLPACK_CLASS_SECOND 1
/** What the dimensions are: (N, ..., K) logits or gradients, as sequences have them. They become (N, K, inner) without a copy. */
#define OLS_DLPACK_CLASS_LAST 2
/** What the dimensions are: up to three that stay as they are, as of a (K, K) matrix. */
#define OLS_DLPACK_PLAIN 3

/**
 * Makes a view of the DLTensor that `tensor` points to; `layout` is one of the four above, `out` an `ols_tensor_t *`. An expression of type
 * `ols_status_t`; a macro, because it works with every definition of DLTensor; `tensor` is evaluated more than once.
 *
 * On failure `*out` is as before: OLS_STATUS_INVALID_DTYPE for lanes other than 1; OLS_STATUS_INVALID_SHAPE for dimensions that are too few, too many,
 * negative, or that have no common step and so cannot become one (copy such a tensor first); OLS_STATUS_INVALID_ARGUMENT for NULL and another layout.
 */
#define ols_tensor_from_dlpack(tensor, layout, out)                                                                                      \
    ols_tensor_from_dlpack_fields((tensor)->data, (tensor)->byte_offset, (int32_t)(tensor)->device.device_type,                          \
                                  (int32_t)(tensor)->device.device_id, (tensor)->dtype.code, (tensor)->dtype.bits, (tensor)->dtype.lanes, \
                                  (int32_t)(tensor)->ndim, (tensor)->shape, (tensor)->strides, (layout), (out))

/**
 * Writes the size and step of dimensions `from` to `to` - 1 taken as one; 0 if they have no common step. `strides` may be NULL: row-major.
 */
static inline int ols_dlpack_collapse(int32_t ndim, const int64_t *shape, const int64_t *strides, int32_t from, int32_t to, int64_t *size,
                                      int64_t *stride) {
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
            /* step * total overflows for no tensor that exists; unsigned, so that others are no undefined behaviour. */
            if ((uint64_t)own != (uint64_t)step * (uint64_t)total) return 0;
            total *= here;
        }
    }
    *size = total;
    *stride = step;
    return 1;
}

/**
 * What `ols_tensor_from_dlpack` calls: the fields of a DLTensor, `layout` and `out` as there.
 */
static inline ols_status_t ols_tensor_from_dlpack_fields(void *data, uint64_t byte_offset, int32_t device_type, int32_t device_id, uint8_t code,
                                                         uint8_t bits, uint16_t lanes, int32_t ndim, const int64_t *shape,
                                                         const int64_t *strides, int32_t layout, ols_tensor_t *out) {
    /* Dimension d of the result is made of the dimensions from[d] to to[d] - 1 of the source. */
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
        if (!ols_dlpack_collapse(ndim, shape, strides, from[d], to[d], &tensor.shape[d], &tensor.strides[d])) return OLS_STATUS_INVALID_SHAPE;
    }
    *out = tensor;
    return OLS_STATUS_OK;
}

#endif /* OLS_DLPACK_H */
