/* The calling thread's flush-to-zero flags and rounding mode do not affect results, and are restored after each call. */
#include "check.h"

#include <fenv.h>

#if defined(__x86_64__)
#include <xmmintrin.h>

static float grads[2][N][K];
static float losses[2];

int main(void) {
    ols_options_t options = options_for(K);
    /* f64 soft labels that are not exact in f32, for a class without samples. */
    static double initial[K][K];
    for (int i = 0; i < K * K; i++) initial[i / K][i % K] = 1.0 / (3 + i);
    options.initial = OLS_INITIAL_MATRIX;
    options.initial_soft_labels = ols_tensor_2d(initial, OLS_DTYPE_F64, K, K);
    world_t w;
    world_init(&w, &options);
    memory_t *m = &w.now;
    /* Denormal logits, and logits far enough apart for small probabilities. */
    m->logits[0][0] = 1e-40f;
    m->logits[1][3] = 80.0f;
    m->logits[2][4] = -86.0f;
    size_t sizes[2];
    void *states[2];
    const unsigned before = _mm_getcsr(), flush = 0x8040; /* FZ and DAZ */
    for (int round = 0; round < 2; round++) {
        m->to_loss = ols_tensor_0d(&losses[round], OLS_DTYPE_F32);
        m->to_grad = ols_tensor_2d(grads[round], OLS_DTYPE_F32, N, K);
        const unsigned set = round ? (before & ~0x6000u) | flush | 0x4000u /* upwards */ : before;
        ols_status_t statuses[4];
        _mm_setcsr(set);
        ols_criterion_t *criterion = create(&options); /* the initial soft labels are rounded */
        const unsigned after_create = _mm_getcsr();
        statuses[0] = ols_forward(criterion, &m->batch, &m->to_loss, &m->to_grad);
        const unsigned after_forward = _mm_getcsr();
        statuses[1] = ols_backward(criterion, &m->batch, NULL, &m->to_grad);
        statuses[2] = ols_next_epoch(criterion, NULL);
        const unsigned after_epoch = _mm_getcsr();
        m->targets[0] = 99;
        statuses[3] = ols_forward(criterion, &m->batch, NULL, NULL);
        const unsigned after_failure = _mm_getcsr();
        m->targets[0] = 0;
        _mm_setcsr(before);
        CHECK(statuses[0] == OLS_STATUS_OK && statuses[1] == OLS_STATUS_OK && statuses[2] == OLS_STATUS_OK);
        CHECK(statuses[3] == OLS_STATUS_TARGET_OUT_OF_RANGE);
        /* The exception flags (the low six bits) may be raised. */
        CHECK((after_create & ~63u) == (set & ~63u) && (after_forward & ~63u) == (set & ~63u) && (after_epoch & ~63u) == (set & ~63u) && (after_failure & ~63u) == (set & ~63u));
        states[round] = saved(criterion, &sizes[round]);
        ols_destroy(criterion);
    }
    CHECK(memcmp(grads[0], grads[1], sizeof grads[0]) == 0 && memcmp(&losses[0], &losses[1], sizeof losses[0]) == 0);
    CHECK(sizes[0] == sizes[1] && memcmp(states[0], states[1], sizes[0]) == 0);
    free(states[0]);
    free(states[1]);
    world_free(&w);
    return finish();
}
#else
int main(void) { return 0; }
#endif
