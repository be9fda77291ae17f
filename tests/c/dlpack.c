/* ols_dlpack.h, with the definition of DLTensor from dlpack.h. */
#include <stdint.h>

typedef enum { kDLCPU = 1, kDLCUDA = 2 } DLDeviceType;
typedef struct { DLDeviceType device_type; int32_t device_id; } DLDevice;
typedef struct { uint8_t code; uint8_t bits; uint16_t lanes; } DLDataType;
typedef struct {
    void *data;
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t *shape;
    int64_t *strides;
    uint64_t byte_offset;
} DLTensor;

#include "check.h"
#include <ols_dlpack.h>

static float memory[1000];

/* Creates a tensor from a shape and strides that are terminated by -1; `strides` may be NULL. */
static DLTensor tensor_of(const int64_t *shape, const int64_t *strides) {
    static int64_t sizes[16], steps[16];
    DLTensor tensor = {memory, {kDLCPU, 0}, 0, {2, 32, 1}, sizes, NULL, 0};
    for (; shape[tensor.ndim] != -1; tensor.ndim++) sizes[tensor.ndim] = shape[tensor.ndim];
    if (strides) {
        for (int d = 0; d < tensor.ndim; d++) steps[d] = strides[d];
        tensor.strides = steps;
    }
    return tensor;
}

#define LIST(...) ((const int64_t[]){__VA_ARGS__, -1})

static void becomes(int line, int32_t layout, DLTensor tensor, const int64_t *shape, const int64_t *strides) {
    ols_tensor_t view;
    ols_status_t status = ols_tensor_from_dlpack(&tensor, layout, &view);
    int good = status == OLS_STATUS_OK, ndim = 0;
    for (; shape[ndim] != -1; ndim++) good = good && view.shape[ndim] == shape[ndim] && (view.shape[ndim] <= 1 || view.strides[ndim] == strides[ndim]);
    if (!good || view.ndim != ndim || view.reserved != 0) fprintf(stderr, "%s:%d: %s\n", __FILE__, line, ols_status_string(status)), failures++;
}
#define BECOMES(layout, tensor, shape, strides) becomes(__LINE__, layout, tensor, shape, strides)

static void stays(int line, int32_t layout, DLTensor tensor, ols_status_t expected) {
    ols_tensor_t view, before;
    memset(&view, 0x5a, sizeof view);
    before = view;
    ols_status_t status = ols_tensor_from_dlpack(&tensor, layout, &view);
    if (status != expected || memcmp(&view, &before, sizeof view) != 0) fprintf(stderr, "%s:%d: %s\n", __FILE__, line, ols_status_string(status)), failures++;
}
#define STAYS(layout, tensor, status) stays(__LINE__, layout, tensor, status)

int main(void) {
    enum { SAMPLES = OLS_DLPACK_SAMPLES, SECOND = OLS_DLPACK_CLASS_SECOND, LAST = OLS_DLPACK_CLASS_LAST, PLAIN = OLS_DLPACK_PLAIN };
    /* Without strides: row-major. */
    BECOMES(SECOND, tensor_of(LIST(4, 5), NULL), LIST(4, 5), LIST(5, 1));
    BECOMES(SECOND, tensor_of(LIST(4, 5, 6), NULL), LIST(4, 5, 6), LIST(30, 6, 1));
    BECOMES(SECOND, tensor_of(LIST(2, 5, 3, 4), NULL), LIST(2, 5, 12), LIST(60, 12, 1));
    BECOMES(SECOND, tensor_of(LIST(2, 5, 3, 2, 2), NULL), LIST(2, 5, 12), LIST(60, 12, 1));
    BECOMES(LAST, tensor_of(LIST(2, 3, 4, 5), NULL), LIST(2, 5, 12), LIST(60, 1, 5));
    BECOMES(LAST, tensor_of(LIST(4, 5), NULL), LIST(4, 5), LIST(5, 1));
    BECOMES(SAMPLES, tensor_of(LIST(2, 3, 4), NULL), LIST(2, 12), LIST(12, 1));
    BECOMES(SAMPLES, tensor_of(LIST(7), NULL), LIST(7), LIST(1));
    BECOMES(SAMPLES, tensor_of(LIST(-1), NULL), LIST(-1), LIST(-1));
    BECOMES(PLAIN, tensor_of(LIST(2, 3, 4), LIST(1, 2, 6)), LIST(2, 3, 4), LIST(1, 2, 6));
    /* With strides: channels-last images, slices, broadcasts, reversed dimensions. */
    BECOMES(SECOND, tensor_of(LIST(2, 5, 3, 4), LIST(60, 1, 20, 5)), LIST(2, 5, 12), LIST(60, 1, 5));
    BECOMES(SECOND, tensor_of(LIST(2, 5, 3, 4), LIST(120, 24, 8, 2)), LIST(2, 5, 12), LIST(120, 24, 2));
    BECOMES(SECOND, tensor_of(LIST(2, 5, 3, 4), LIST(5, 1, 0, 0)), LIST(2, 5, 12), LIST(5, 1, 0));
    BECOMES(SECOND, tensor_of(LIST(2, 5, 3, 4), LIST(60, 12, -4, -1)), LIST(2, 5, 12), LIST(60, 12, -1));
    BECOMES(SECOND, tensor_of(LIST(2, 5, 1, 4), LIST(60, 12, 999, 1)), LIST(2, 5, 4), LIST(60, 12, 1));
    BECOMES(SECOND, tensor_of(LIST(2, 5, 1, 1), LIST(5, 1, 7, 9)), LIST(2, 5, 1), LIST(5, 1, 0));
    BECOMES(SECOND, tensor_of(LIST(2, 5, 0, 4), LIST(5, 1, 7, 9)), LIST(2, 5, 0), LIST(5, 1, 0));
    BECOMES(SECOND, tensor_of(LIST(0, 5, 3, 4), NULL), LIST(0, 5, 12), LIST(60, 12, 1));
    /* Crops, whose dimensions have no common stride. */
    STAYS(SECOND, tensor_of(LIST(2, 5, 3, 4), LIST(100, 20, 6, 1)), OLS_STATUS_INVALID_SHAPE);
    STAYS(SECOND, tensor_of(LIST(2, 5, 3, 4), LIST(60, 12, 1, 3)), OLS_STATUS_INVALID_SHAPE);
    STAYS(SAMPLES, tensor_of(LIST(2, 3, 4), LIST(24, 8, 1)), OLS_STATUS_INVALID_SHAPE);
    STAYS(SECOND, tensor_of(LIST(5), NULL), OLS_STATUS_INVALID_SHAPE);
    STAYS(LAST, tensor_of(LIST(-1), NULL), OLS_STATUS_INVALID_SHAPE);
    STAYS(PLAIN, tensor_of(LIST(1, 2, 3, 4), NULL), OLS_STATUS_INVALID_SHAPE);
    STAYS(SECOND, tensor_of(LIST(2, 5, 3, -4), NULL), OLS_STATUS_INVALID_SHAPE);
    STAYS(SECOND, tensor_of(LIST(2, 5, INT64_MAX, 4), NULL), OLS_STATUS_INVALID_SHAPE);
    STAYS(SECOND, tensor_of(LIST(2, 5, INT64_MAX, 4), LIST(1, 1, 4, 1)), OLS_STATUS_INVALID_SHAPE);
    STAYS(7, tensor_of(LIST(2, 5), NULL), OLS_STATUS_INVALID_ARGUMENT);
    DLTensor odd = tensor_of(LIST(2, 5), NULL);
    odd.dtype.lanes = 4;
    STAYS(SECOND, odd, OLS_STATUS_INVALID_DTYPE);
    odd = tensor_of(LIST(2, 5), NULL);
    odd.ndim = -1;
    STAYS(SECOND, odd, OLS_STATUS_INVALID_SHAPE);
    odd.ndim = 2;
    odd.shape = NULL;
    STAYS(SECOND, odd, OLS_STATUS_INVALID_ARGUMENT);
    odd = tensor_of(LIST(2, 5), NULL);
    CHECK(ols_tensor_from_dlpack(&odd, SECOND, NULL) == OLS_STATUS_INVALID_ARGUMENT);

    /* All fields, including the offset. */
    DLTensor all = tensor_of(LIST(2, 5), LIST(7, 1));
    ols_tensor_t view;
    all.byte_offset = 16;
    all.device.device_type = kDLCUDA;
    all.device.device_id = 3;
    all.dtype.code = 4;
    all.dtype.bits = 16;
    CHECK(ols_tensor_from_dlpack(&all, SECOND, &view) == OLS_STATUS_OK);
    CHECK(view.data == &memory[4] && view.device_type == OLS_DEVICE_CUDA && view.device_id == 3);
    CHECK(view.dtype_code == OLS_CODE_BFLOAT && view.dtype_bits == 16 && view.dtype_lanes == 1);

    /* In a call: logits of two images of 2 x 3 pixels with the class last, and their targets. */
    ols_options_t options = options_for(K);
    ols_criterion_t *criterion = create(&options);
    uint8_t targets[2][2][3] = {{{0}}};
    int64_t target_shape[3] = {2, 2, 3};
    DLTensor labels = {targets, {kDLCPU, 0}, 3, {1, 8, 1}, target_shape, NULL, 0}, images = tensor_of(LIST(2, 2, 3, K), NULL);
    ols_batch_t batch;
    OK(ols_batch_init(&batch, sizeof batch));
    for (int i = 0; i < 12; i++) memory[i * K] = 3; /* the argmax is class 0 everywhere */
    CHECK(ols_tensor_from_dlpack(&images, LAST, &batch.logits) == OLS_STATUS_OK);
    CHECK(ols_tensor_from_dlpack(&labels, SAMPLES, &batch.targets) == OLS_STATUS_OK);
    OK(ols_forward(criterion, &batch, NULL, NULL));
    ols_report_t report = {.struct_size = sizeof report};
    OK(ols_report(criterion, NULL, &report));
    CHECK(report.running_samples_accumulated == 12);
    ols_destroy(criterion);
    return finish();
}
