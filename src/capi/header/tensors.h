#if defined(__cplusplus) && defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast"
#endif

/**
 * Creates a view of a single value in host memory, with 0 dimensions.
 *
 * `dtype` is an `ols_dtype_t`, here and below. A view owns nothing. These functions are safe to
 * call from any thread and cannot fail: an invalid view is detected by the call that uses it.
 */
static inline ols_tensor_t ols_tensor_0d(const void *data, int32_t dtype) {
    ols_tensor_t tensor;
    tensor.data = (void *)(uintptr_t)data;
    tensor.device_type = OLS_DEVICE_CPU;
    tensor.device_id = 0;
    tensor.dtype_code = (uint8_t)((uint32_t)dtype & 255u);
    tensor.dtype_bits = (uint8_t)((uint32_t)dtype >> 8 & 255u);
    tensor.dtype_lanes = 1;
    tensor.ndim = 0;
    tensor.shape[0] = tensor.shape[1] = tensor.shape[2] = 1;
    tensor.strides[0] = tensor.strides[1] = tensor.strides[2] = 0;
    tensor.reserved = 0;
    return tensor;
}

/**
 * Creates a view of a row-major array of three dimensions in host memory: element [i][j][k] is at
 * index (i*size1 + j)*size2 + k.
 */
static inline ols_tensor_t ols_tensor_3d(const void *data, int32_t dtype, int64_t size0,
                                         int64_t size1, int64_t size2) {
    ols_tensor_t tensor = ols_tensor_0d(data, dtype);
    tensor.ndim = 3;
    tensor.shape[0] = size0;
    tensor.shape[1] = size1;
    tensor.shape[2] = size2;
    tensor.strides[0] = (int64_t)((uint64_t)size1 * (uint64_t)size2);
    tensor.strides[1] = size2;
    tensor.strides[2] = 1;
    return tensor;
}

/**
 * Creates a view of a row-major matrix in host memory: element [i][j] is at index i*size1 + j.
 */
static inline ols_tensor_t ols_tensor_2d(const void *data, int32_t dtype, int64_t size0,
                                         int64_t size1) {
    ols_tensor_t tensor = ols_tensor_3d(data, dtype, size0, size1, 1);
    tensor.ndim = 2;
    return tensor;
}

/**
 * Creates a view of `size0` contiguous values in host memory.
 */
static inline ols_tensor_t ols_tensor_1d(const void *data, int32_t dtype, int64_t size0) {
    ols_tensor_t tensor = ols_tensor_3d(data, dtype, size0, 1, 1);
    tensor.ndim = 1;
    return tensor;
}

#if defined(__cplusplus) && defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
