/* Invalid values are detected before anything is changed, and reported with their index. */
#include "check.h"

#define FORWARD ols_forward(m->criterion, &m->batch, &m->to_loss, &m->to_grad)
#define BACKWARD ols_backward(m->criterion, &m->batch, NULL, &m->to_grad)

/* In forward, backward and accumulate. */
#define REFUSED_BY_ALL(status, words)                                      \
    REFUSED(&w, status, words, FORWARD);                                   \
    REFUSED(&w, status, words, BACKWARD);                                  \
    REFUSED(&w, status, words, ols_accumulate(m->criterion, &m->batch))

static void targets(void) {
    ols_options_t options = options_for(K);
    world_t w;
    world_init(&w, &options);
    memory_t *m = &w.now;
    const ols_status_t RANGE = OLS_STATUS_TARGET_OUT_OF_RANGE;
    m->targets[3] = 5;
    REFUSED_BY_ALL(RANGE, "target[3] = 5 is outside [0, 5) and is not ignore_index (-100)");
    m->targets[3] = -1;
    REFUSED_BY_ALL(RANGE, "target[3] = -1 is outside");
    m->targets[3] = INT64_MIN;
    REFUSED_BY_ALL(RANGE, "target[3] = -9223372036854775808 is outside");
    m->targets[3] = -100;
    OK(FORWARD);
    m->batch.target_offset = 1;
    m->targets[0] = 0;
    REFUSED_BY_ALL(RANGE, "target[0] = 0 is outside [1, 6)");
    m->batch.target_offset = INT64_MAX;
    REFUSED_BY_ALL(RANGE, "target[0] = 0 is outside [9223372036854775807, ");
    m->batch.target_offset = INT64_MIN;
    m->targets[0] = INT64_MAX;
    REFUSED_BY_ALL(RANGE, "target[0] = 9223372036854775807 is outside");
    m->batch.target_offset = 0;
    m->targets[0] = 0;

    m->batch.targets2 = ols_tensor_1d(m->targets2, OLS_DTYPE_I64, N);
    m->batch.lam = ols_tensor_1d(m->lam, OLS_DTYPE_F64, N);
    m->targets2[2] = 7;
    REFUSED_BY_ALL(RANGE, "target2[2] = 7 is outside [0, 5)");
    m->targets2[2] = 0;
    m->lam[1] = 1.5;
    REFUSED_BY_ALL(OLS_STATUS_INVALID_ARGUMENT, "lam[1] = 1.5 is outside [0, 1]");
    m->lam[1] = -0.5;
    REFUSED_BY_ALL(OLS_STATUS_INVALID_ARGUMENT, "lam[1] = -0.5 is outside [0, 1]");
    m->lam[1] = NAN;
    REFUSED_BY_ALL(OLS_STATUS_INVALID_ARGUMENT, "lam[1] = NaN is outside [0, 1]");
    m->batch.lam = ols_tensor_0d(&m->lam[1], OLS_DTYPE_F64);
    REFUSED_BY_ALL(OLS_STATUS_INVALID_ARGUMENT, "lam|= NaN is outside [0, 1]");
    m->lam[1] = 1;
    OK(FORWARD);

    m->batch.sample_weights = ols_tensor_1d(m->weights, OLS_DTYPE_F32, N);
    m->weights[2] = -1;
    REFUSED_BY_ALL(OLS_STATUS_INVALID_ARGUMENT, "sample_weights[2] = -1 is not a finite number >= 0");
    m->weights[2] = NAN;
    REFUSED_BY_ALL(OLS_STATUS_INVALID_ARGUMENT, "sample_weights[2] = NaN is not a finite number >= 0");
    m->weights[2] = INFINITY;
    REFUSED_BY_ALL(OLS_STATUS_INVALID_ARGUMENT, "sample_weights[2] = inf is not a finite number >= 0");
    m->weights[2] = 0;
    OK(FORWARD);
    world_free(&w);
}

/* Pixels are reported with two indices. */
static void pixels(void) {
    ols_options_t options = options_for(2);
    ols_criterion_t *criterion = create(&options);
    float logits[2][2][3] = {{{0}}};
    uint8_t targets[2][3] = {{0, 1, 1}, {1, 9, 0}};
    ols_batch_t batch;
    OK(ols_batch_init(&batch, sizeof batch));
    batch.logits = ols_tensor_3d(logits, OLS_DTYPE_F32, 2, 2, 3);
    batch.targets = ols_tensor_2d(targets, OLS_DTYPE_U8, 2, 3);
    FAILS(OLS_STATUS_TARGET_OUT_OF_RANGE, "target[1, 1] = 9 is outside [0, 2)", ols_forward(criterion, &batch, NULL, NULL));
    ols_destroy(criterion);
}

static void taking_back(void) {
    ols_options_t options = options_for(K);
    world_t w;
    world_init(&w, &options);
    memory_t *m = &w.now;
    m->batch.flags = OLS_BATCH_TAKE_BACK;
    OK(FORWARD);
    memset(m->grad, 0xa5, sizeof m->grad);
    REFUSED(&w, OLS_STATUS_INVALID_STATE, "take back|class", FORWARD);
    m->to_grad = m->batch.logits;
    REFUSED(&w, OLS_STATUS_INVALID_ARGUMENT, "grad|logits|taking back", FORWARD);
    world_free(&w);
}

static void probabilities(void) {
    ols_options_t options = options_for(K);
    world_t w;
    world_init(&w, &options);
    memory_t *m = &w.now;
    REFUSED(&w, OLS_STATUS_INVALID_ARGUMENT, "logits[0, 0] = -1 is not a probability in [0, 1]", ols_accumulate(m->criterion, &m->batch));
    const float one = 1;
    m->batch.grad_loss = ols_tensor_0d(&one, OLS_DTYPE_F32);
    REFUSED(&w, OLS_STATUS_INVALID_ARGUMENT, "grad_loss", ols_accumulate(m->criterion, &m->batch));
    world_free(&w);
}

int main(void) {
    targets();
    pixels();
    taking_back();
    probabilities();
    return finish();
}
