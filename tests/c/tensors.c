/* Invalid tensors: dtype, device, number of dimensions, shape, strides, alignment, overlap, absurd sizes. */
#include "check.h"

static void descriptions(void) {
    ols_options_t options = options_for(K);
    world_t w;
    world_init(&w, &options);
    memory_t *m = &w.now;
    const ols_tensor_t logits = m->batch.logits, targets = m->batch.targets, loss = m->to_loss, grad = m->to_grad, absent = m->batch.lam;
#define FORWARD ols_forward(m->criterion, &m->batch, &m->to_loss, &m->to_grad)
#define WITH(tensor, field, value, status, words) \
    tensor.field = value;                         \
    REFUSED(&w, status, words, FORWARD);          \
    tensor = before
#define ALL(tensor, name)                                                                                   \
    do {                                                                                                    \
        const ols_tensor_t before = tensor;                                                                 \
        WITH(tensor, dtype_lanes, 2, OLS_STATUS_INVALID_DTYPE, name ".dtype_lanes = 2");                    \
        WITH(tensor, dtype_code, 7, OLS_STATUS_INVALID_DTYPE, name ".dtype_code = 7");                      \
        WITH(tensor, dtype_bits, 24, OLS_STATUS_INVALID_DTYPE, name "|dtype_bits = 24");                    \
        WITH(tensor, device_type, 13, OLS_STATUS_INVALID_DEVICE, name ".device_type = 13");                 \
        WITH(tensor, device_type, 0, OLS_STATUS_INVALID_DEVICE, name ".device_type = 0");                   \
        WITH(tensor, device_type, OLS_DEVICE_CUDA, OLS_STATUS_INVALID_DEVICE, name ".device = cuda:0|cpu"); \
        WITH(tensor, ndim, -1, OLS_STATUS_INVALID_SHAPE, name ".ndim = -1");                                \
        WITH(tensor, ndim, 4, OLS_STATUS_INVALID_SHAPE, name ".ndim = 4");                                  \
        WITH(tensor, reserved, 9, OLS_STATUS_INVALID_ARGUMENT, name ".reserved = 9");                       \
        WITH(tensor, data, NULL, OLS_STATUS_INVALID_ARGUMENT, name ".data is NULL");                        \
    } while (0)
    ALL(m->batch.logits, "logits");
    ALL(m->batch.targets, "targets");
    ALL(m->to_loss, "loss");
    ALL(m->to_grad, "grad");
    m->batch.sample_weights = ols_tensor_1d(m->weights, OLS_DTYPE_F32, N);
    ALL(m->batch.sample_weights, "sample_weights");
    m->batch.targets2 = ols_tensor_1d(m->targets2, OLS_DTYPE_I64, N);
    m->batch.lam = ols_tensor_1d(m->lam, OLS_DTYPE_F64, N);
    ALL(m->batch.targets2, "targets2");
    ALL(m->batch.lam, "lam");
    const float one = 1;
    m->batch.grad_loss = ols_tensor_0d(&one, OLS_DTYPE_F32);
    ALL(m->batch.grad_loss, "grad_loss");
    m->batch.sample_weights = m->batch.grad_loss = absent;

    /* Tensors that must be given together. */
    m->batch.lam = absent;
    REFUSED(&w, OLS_STATUS_INVALID_ARGUMENT, "targets2|lam", FORWARD);
    m->batch.lam = m->batch.targets2;
    m->batch.targets2 = absent;
    REFUSED(&w, OLS_STATUS_INVALID_ARGUMENT, "targets2|lam", FORWARD);
    m->batch.lam = absent;
    m->batch.logits = absent;
    REFUSED(&w, OLS_STATUS_INVALID_ARGUMENT, "logits is not given", FORWARD);
    m->batch.logits = logits;
    m->batch.targets = absent;
    REFUSED(&w, OLS_STATUS_INVALID_ARGUMENT, "targets is not given", FORWARD);
    m->batch.targets = targets;
    m->to_loss = absent;
    REFUSED(&w, OLS_STATUS_INVALID_ARGUMENT, "loss is not given", FORWARD);
    m->to_loss = loss;

    /* Dtypes that are known, but not supported for the argument. */
    m->batch.logits = ols_tensor_2d(m->targets, OLS_DTYPE_I32, 1, K);
    REFUSED(&w, OLS_STATUS_INVALID_DTYPE, "logits.dtype = i32", FORWARD);
    m->batch.logits = logits;
    m->batch.targets = ols_tensor_1d(m->weights, OLS_DTYPE_F32, N);
    REFUSED(&w, OLS_STATUS_INVALID_DTYPE, "targets.dtype = f32", FORWARD);
    m->batch.targets = targets;
    m->batch.sample_weights = ols_tensor_1d(m->targets, OLS_DTYPE_I64, N);
    REFUSED(&w, OLS_STATUS_INVALID_DTYPE, "sample_weights.dtype = i64", FORWARD);
    m->batch.sample_weights = absent;
    m->to_loss = ols_tensor_0d(m->lam, OLS_DTYPE_F64);
    REFUSED(&w, OLS_STATUS_INVALID_DTYPE, "loss.dtype = f64", FORWARD);
    m->to_loss = loss;
    m->to_grad = ols_tensor_2d(m->grad, OLS_DTYPE_BF16, N, K);
    REFUSED(&w, OLS_STATUS_INVALID_DTYPE, "grad.dtype = bf16", FORWARD);
    REFUSED(&w, OLS_STATUS_INVALID_DTYPE, "grad.dtype = bf16", ols_backward(m->criterion, &m->batch, NULL, &m->to_grad));
    m->to_grad = grad;

    /* Pinned host memory counts as host memory, whatever its device_id. */
    m->batch.logits.device_type = OLS_DEVICE_CUDA_HOST;
    m->batch.logits.device_id = 3;
    OK(FORWARD);
    world_free(&w);
}

static void shapes(void) {
    ols_options_t options = options_for(K);
    world_t w;
    world_init(&w, &options);
    memory_t *m = &w.now;
    const ols_tensor_t logits = m->batch.logits, targets = m->batch.targets, loss = m->to_loss, grad = m->to_grad, absent = m->batch.lam;
    const ols_status_t SHAPE = OLS_STATUS_INVALID_SHAPE;
    m->batch.logits = ols_tensor_1d(m->logits, OLS_DTYPE_F32, K);
    REFUSED(&w, SHAPE, "logits.ndim = 1", FORWARD);
    m->batch.logits = ols_tensor_2d(m->logits, OLS_DTYPE_F32, K, N);
    REFUSED(&w, SHAPE, "logits.shape[1] = 4|num_classes = 5", FORWARD);
    m->batch.logits = ols_tensor_3d(m->logits, OLS_DTYPE_F32, 2, K, 2);
    REFUSED(&w, SHAPE, "targets.shape = (4)|(2, 2)", FORWARD);
    m->batch.logits = logits;
    m->batch.logits.shape[0] = -4;
    REFUSED(&w, SHAPE, "logits.shape|-4", FORWARD);
    m->batch.logits = logits;
    m->batch.targets = ols_tensor_1d(m->targets, OLS_DTYPE_I64, N - 1);
    REFUSED(&w, SHAPE, "targets.shape = (3)|(4)", FORWARD);
    m->batch.targets = ols_tensor_2d(m->targets, OLS_DTYPE_I64, N, 1);
    REFUSED(&w, SHAPE, "targets.shape = (4, 1)", FORWARD);
    m->batch.targets = targets;
    m->batch.sample_weights = ols_tensor_0d(m->weights, OLS_DTYPE_F32);
    REFUSED(&w, SHAPE, "sample_weights.shape = ()", FORWARD);
    m->batch.sample_weights = absent;
    m->batch.grad_loss = ols_tensor_1d(m->weights, OLS_DTYPE_F32, N);
    REFUSED(&w, SHAPE, "grad_loss", FORWARD);
    m->batch.grad_loss = absent;
    m->to_loss = ols_tensor_1d(m->grad, OLS_DTYPE_F32, N);
    REFUSED(&w, SHAPE, "loss.shape = (4)", FORWARD);
    m->to_loss = ols_tensor_1d(&m->loss, OLS_DTYPE_F32, 1);
    OK(FORWARD);
    m->to_loss = loss;
    m->to_grad = ols_tensor_2d(m->grad, OLS_DTYPE_F32, K, N);
    REFUSED(&w, SHAPE, "grad.shape = (5, 4)|(4, 5)", FORWARD);
    /* An output must not contain an element twice; an input may. */
    m->to_grad = grad;
    m->to_grad.strides[0] = 0;
    REFUSED(&w, SHAPE, "grad.strides", FORWARD);
    m->to_grad.strides[0] = K - 1;
    REFUSED(&w, SHAPE, "grad.strides", FORWARD);
    m->to_grad = grad;
    m->batch.logits.strides[0] = 0;
    OK(FORWARD);
    m->batch.logits = logits;

    /* Sizes whose product overflows, and strides beyond the address space. */
    const int64_t absurd[] = {INT64_MAX, INT64_MAX / K, INT64_MAX / K / 4 + 1, (int64_t)1 << 62};
    for (size_t i = 0; i < sizeof absurd / sizeof *absurd; i++) {
        m->batch.logits.shape[0] = m->batch.targets.shape[0] = m->to_grad.shape[0] = absurd[i];
        REFUSED(&w, SHAPE, "logits.", FORWARD);
        REFUSED(&w, SHAPE, "logits.", ols_backward(m->criterion, &m->batch, NULL, &m->to_grad));
        REFUSED(&w, SHAPE, "logits.", ols_accumulate(m->criterion, &m->batch));
    }
    m->batch.logits = ols_tensor_3d(m->logits, OLS_DTYPE_F32, (int64_t)1 << 40, K, (int64_t)1 << 40);
    m->batch.targets = ols_tensor_2d(m->targets, OLS_DTYPE_I64, (int64_t)1 << 40, (int64_t)1 << 40);
    REFUSED(&w, SHAPE, "logits.shape", FORWARD);
    m->batch.logits = logits;
    m->batch.targets = targets;
    const int64_t steps[] = {INT64_MAX, INT64_MIN, (int64_t)1 << 61};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        m->batch.logits.strides[0] = steps[i];
        REFUSED(&w, SHAPE, "logits.strides", FORWARD);
    }
    m->batch.logits = logits;
    m->to_grad = grad;

    /* An empty batch has a loss of 0. */
    m->batch.logits = ols_tensor_2d(NULL, OLS_DTYPE_F32, 0, K);
    m->batch.targets = ols_tensor_1d(NULL, OLS_DTYPE_I64, 0);
    m->to_grad = ols_tensor_2d(NULL, OLS_DTYPE_F32, 0, K);
    OK(FORWARD);
    CHECK(m->loss == 0);
    world_free(&w);
}

static void alignment_and_overlap(void) {
    ols_options_t options = options_for(K);
    options.reduction = OLS_REDUCTION_NONE;
    world_t w;
    world_init(&w, &options);
    memory_t *m = &w.now;
    const ols_status_t BAD = OLS_STATUS_INVALID_ARGUMENT;
    float losses[N];
    const ols_tensor_t logits = m->batch.logits, targets = m->batch.targets, loss = ols_tensor_1d(losses, OLS_DTYPE_F32, N), grad = m->to_grad;
    m->to_loss = loss;
    OK(FORWARD);

    m->batch.logits.data = (char *)m->logits + 2;
    REFUSED(&w, BAD, "logits.data = 0x|not aligned|4 bytes", FORWARD);
    m->batch.logits = logits;
    m->batch.targets.data = (char *)m->targets + 4;
    REFUSED(&w, BAD, "targets.data = 0x|not aligned|8 bytes", FORWARD);
    m->batch.targets = targets;
    m->to_grad.data = (char *)m->grad + 1;
    REFUSED(&w, BAD, "grad.data = 0x|not aligned", FORWARD);
    m->to_grad = grad;
    m->to_loss.data = (char *)losses + 1;
    REFUSED(&w, BAD, "loss.data = 0x|not aligned", FORWARD);
    m->to_loss = loss;

    /* Outputs and inputs: the gradient may be the logits, but not a part of them, and not with other strides. */
    m->to_grad = ols_tensor_2d(&m->logits[0][1], OLS_DTYPE_F32, N, K);
    REFUSED(&w, BAD, "grad|logits|overlap", FORWARD);
    m->to_grad = logits;
    m->to_grad.strides[0] = 1;
    m->to_grad.strides[1] = N;
    REFUSED(&w, BAD, "grad|logits|overlap", FORWARD);
    REFUSED(&w, BAD, "grad|logits|overlap", ols_backward(m->criterion, &m->batch, NULL, &m->to_grad));
    m->to_grad = grad;
    m->to_loss = ols_tensor_1d(m->logits, OLS_DTYPE_F32, N);
    REFUSED(&w, BAD, "loss|logits|overlap", FORWARD);
    m->to_loss = ols_tensor_1d(m->targets, OLS_DTYPE_F32, N);
    REFUSED(&w, BAD, "loss|targets|overlap", FORWARD);
    m->batch.sample_weights = ols_tensor_1d(m->weights, OLS_DTYPE_F32, N);
    m->to_loss = m->batch.sample_weights;
    REFUSED(&w, BAD, "loss|sample_weights|overlap", FORWARD);
    m->batch.targets2 = ols_tensor_1d(m->targets2, OLS_DTYPE_I64, N);
    m->batch.lam = ols_tensor_1d(m->lam, OLS_DTYPE_F64, N);
    m->to_loss = ols_tensor_1d(m->targets2, OLS_DTYPE_F32, N);
    REFUSED(&w, BAD, "loss|targets2|overlap", FORWARD);
    m->to_loss = ols_tensor_1d(m->lam, OLS_DTYPE_F32, N);
    REFUSED(&w, BAD, "loss|lam|overlap", FORWARD);
    m->batch.grad_loss = ols_tensor_1d(m->grad, OLS_DTYPE_F32, N);
    m->to_loss = loss;
    REFUSED(&w, BAD, "grad|grad_loss|overlap", FORWARD);
    m->batch.grad_loss = ols_tensor_1d(m->weights, OLS_DTYPE_F32, N);
    REFUSED(&w, BAD, "grad_loss|twice", ols_backward(m->criterion, &m->batch, &m->batch.grad_loss, &m->to_grad));
    m->batch.grad_loss = m->batch.sample_weights = m->batch.targets2 = m->batch.lam = options.sums;
    REFUSED(&w, BAD, "grad_loss is not given", ols_backward(m->criterion, &m->batch, &m->batch.lam, &m->to_grad));

    /* Outputs and other outputs, the state, and the structs passed to the call. */
    m->to_loss = ols_tensor_1d(&m->grad[2][0], OLS_DTYPE_F32, N);
    REFUSED(&w, BAD, "loss|grad|overlap", FORWARD);
    m->to_loss = loss;
    ols_tensor_t soft_labels;
    OK(ols_soft_labels(m->criterion, &soft_labels));
    m->to_grad = ols_tensor_2d(soft_labels.data, OLS_DTYPE_F32, N, K);
    REFUSED(&w, BAD, "grad|state", FORWARD);
    m->to_grad = grad;
    ols_statistics_t statistics = {.struct_size = sizeof statistics};
    OK(ols_statistics(m->criterion, &statistics));
    m->to_loss = ols_tensor_1d(statistics.counters.data, OLS_DTYPE_F32, N);
    REFUSED(&w, BAD, "loss|state", FORWARD);
    m->to_loss = ols_tensor_1d(&m->batch.target_offset, OLS_DTYPE_F32, N);
    REFUSED(&w, BAD, "loss|batch|overlap", FORWARD);
    m->to_loss = ols_tensor_1d(m->to_grad.shape, OLS_DTYPE_F32, N);
    REFUSED(&w, BAD, "loss|description of grad|overlap", FORWARD);
    m->to_loss = loss;
    m->to_grad = ols_tensor_2d(&m->batch, OLS_DTYPE_F32, N, K);
    REFUSED(&w, BAD, "grad|batch|overlap", ols_backward(m->criterion, &m->batch, NULL, &m->to_grad));
    m->to_grad = grad;
    REFUSED(&w, BAD, "soft_labels|state", ols_set_soft_labels(m->criterion, &soft_labels, NULL));

    /* Empty tensors do not overlap anything. */
    m->batch.logits = ols_tensor_2d(m->logits, OLS_DTYPE_F32, 0, K);
    m->batch.targets = ols_tensor_1d(m->targets, OLS_DTYPE_I64, 0);
    m->to_grad = ols_tensor_2d(&m->logits[0][1], OLS_DTYPE_F32, 0, K);
    m->to_loss = ols_tensor_1d(&m->targets[1], OLS_DTYPE_F32, 0);
    OK(FORWARD);
    world_free(&w);
}

static void matrices(void) {
    ols_options_t options = options_for(K), good = options;
    world_t w;
    world_init(&w, &options);
    memory_t *m = &w.now;
    ols_criterion_t *criterion = NULL;
    double matrix[K + 1][K], weights[K + 1]; /* one more, for views at an address that is not aligned */
    for (int i = 0; i < K; i++) {
        weights[i] = i;
        for (int k = 0; k < K; k++) matrix[i][k] = 0.1 * k;
    }
    const ols_tensor_t good_matrix = ols_tensor_2d(matrix, OLS_DTYPE_F64, K, K), good_weights = ols_tensor_1d(weights, OLS_DTYPE_F64, K);
#define CREATE ols_create(&options, &criterion)
#define REPLACE ols_set_soft_labels(m->criterion, &tensor, NULL)
    ols_tensor_t tensor = good_matrix;
    options.initial = OLS_INITIAL_MATRIX;
    REFUSED(&w, OLS_STATUS_INVALID_ARGUMENT, "OLS_INITIAL_MATRIX|initial_soft_labels is not given", CREATE);
    options.initial = OLS_INITIAL_ZERO;
    options.initial_soft_labels = good_matrix;
    REFUSED(&w, OLS_STATUS_INVALID_ARGUMENT, "initial_soft_labels is given|initial = 2", CREATE);
    options.initial = OLS_INITIAL_MATRIX;
#define BOTH(field, value, status, words)                                         \
    tensor = good_matrix;                                                         \
    tensor.field = value;                                                         \
    options.initial_soft_labels = tensor;                                         \
    REFUSED(&w, status, "initial_soft_labels|" words, CREATE);                    \
    REFUSED(&w, status, "soft_labels|" words, REPLACE)
    BOTH(dtype_bits, 16, OLS_STATUS_INVALID_DTYPE, "dtype = f16");
    BOTH(device_type, OLS_DEVICE_CUDA, OLS_STATUS_INVALID_DEVICE, "device = cuda:0");
    BOTH(ndim, 1, OLS_STATUS_INVALID_SHAPE, "shape = (5)");
    BOTH(shape[1], K - 1, OLS_STATUS_INVALID_SHAPE, "shape = (5, 4)|(5, 5)");
    BOTH(data, NULL, OLS_STATUS_INVALID_ARGUMENT, "data is NULL");
    BOTH(data, (char *)matrix + 4, OLS_STATUS_INVALID_ARGUMENT, "not aligned");
    BOTH(strides[0], INT64_MAX, OLS_STATUS_INVALID_SHAPE, "strides");
    tensor = options.initial_soft_labels = good_matrix;
    const double wrong[] = {-1, NAN, INFINITY, 1e39};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        matrix[2][3] = wrong[i];
        REFUSED(&w, OLS_STATUS_INVALID_ARGUMENT, "initial_soft_labels[2, 3] = |not a finite number >= 0", CREATE);
        REFUSED(&w, OLS_STATUS_INVALID_ARGUMENT, "soft_labels[2, 3] = |not a finite number >= 0", REPLACE);
    }
    matrix[2][3] = 0.25;
    OK(REPLACE);
    OK(CREATE);
    ols_tensor_t view;
    OK(ols_soft_labels(criterion, &view));
    CHECK(((float *)view.data)[2 * K + 3] == 0.25f);
    ols_destroy(criterion);
    criterion = NULL;

    options = good;
#define WEIGHTS(field, value, status, words)   \
    options.class_weights = good_weights;      \
    options.class_weights.field = value;       \
    REFUSED(&w, status, "class_weights|" words, CREATE)
    WEIGHTS(dtype_code, OLS_CODE_INT, OLS_STATUS_INVALID_DTYPE, "dtype = i64");
    WEIGHTS(device_type, OLS_DEVICE_CUDA, OLS_STATUS_INVALID_DEVICE, "device = cuda:0");
    WEIGHTS(ndim, 0, OLS_STATUS_INVALID_SHAPE, "shape = ()");
    WEIGHTS(shape[0], K + 1, OLS_STATUS_INVALID_SHAPE, "shape = (6)|(5)");
    WEIGHTS(data, NULL, OLS_STATUS_INVALID_ARGUMENT, "data is NULL");
    WEIGHTS(data, (char *)weights + 4, OLS_STATUS_INVALID_ARGUMENT, "not aligned");
    options.class_weights = good_weights;
    const double bad_weights[] = {-1, NAN, INFINITY};
    for (size_t i = 0; i < 3; i++) {
        weights[3] = bad_weights[i];
        REFUSED(&w, OLS_STATUS_INVALID_ARGUMENT, "class_weights[3] = |not a finite number >= 0", CREATE);
    }
    CHECK(criterion == NULL);
    world_free(&w);
}

int main(void) {
    descriptions();
    shapes();
    alignment_and_overlap();
    matrices();
    return finish();
}
