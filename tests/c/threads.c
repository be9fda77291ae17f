/* Many threads on one criterion, one criterion per thread, and the error message of each thread. */
#include "check.h"

#include <pthread.h>

enum { THREADS = 8, ROUNDS = 200 };

static world_t shared;

static void *on_one(void *number) {
    memory_t m = shared.now;
    m.batch.logits.data = m.logits;
    m.batch.targets.data = m.targets;
    m.to_grad.data = m.grad;
    m.to_loss.data = &m.loss;
    char expected[64];
    const int id = (int)(intptr_t)number;
    snprintf(expected, sizeof expected, "alpha = %d is outside", id + 2);
    for (int round = 0; round < ROUNDS; round++) {
        m.batch.flags = 0;
        if (ols_forward(m.criterion, &m.batch, &m.to_loss, &m.to_grad) != OLS_STATUS_OK) return "forward";
        if (ols_backward(m.criterion, &m.batch, NULL, &m.to_grad) != OLS_STATUS_OK) return "backward";
        if (round % 2) {
            m.batch.flags = OLS_BATCH_TAKE_BACK;
            if (ols_forward(m.criterion, &m.batch, NULL, NULL) != OLS_STATUS_OK) return "take back";
        }
        if (ols_set_alpha(m.criterion, id + 2) != OLS_STATUS_INVALID_ARGUMENT || !strstr(ols_last_error(), expected)) return "text";
        ols_report_t report = {.struct_size = sizeof report};
        if (ols_report(m.criterion, NULL, &report) != OLS_STATUS_OK || report.running_samples_accumulated < 0) return "report";
        if (ols_set_mode(m.criterion, OLS_MODE_TRAIN) != OLS_STATUS_OK) return "mode";
    }
    return NULL;
}

static size_t state_size;

static void *destroy(void *criterion) {
    ols_destroy(criterion);
    return NULL;
}

static void *on_own(void *number) {
    (void)number;
    world_t w;
    ols_options_t options = options_for(K);
    world_init(&w, &options);
    for (int round = 0; round < ROUNDS; round++) {
        if (ols_forward(w.now.criterion, &w.now.batch, &w.now.to_loss, &w.now.to_grad) != OLS_STATUS_OK) return "forward";
        if (round % 10 == 9 && ols_next_epoch(w.now.criterion, NULL) != OLS_STATUS_OK) return "next epoch";
    }
    size_t size;
    void *state = saved(w.now.criterion, &size);
    world_free(&w);
    return state;
}

int main(void) {
    ols_options_t options = options_for(K);
    world_init(&shared, &options);
    pthread_t threads[THREADS];
    void *result, *states[THREADS];
    ols_report_t before = {.struct_size = sizeof before}, after = before;
    OK(ols_report(shared.now.criterion, NULL, &before));
    FAILS(OLS_STATUS_INVALID_ARGUMENT, "alpha = 9", ols_set_alpha(shared.now.criterion, 9));
    for (intptr_t i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, on_one, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], &result) == 0);
        if (result) fprintf(stderr, "thread %d: %s\n", i, (char *)result), failures++;
    }
    /* Other threads do not change this thread's message. */
    CHECK(strstr(ols_last_error(), "alpha = 9"));
    OK(ols_report(shared.now.criterion, NULL, &after));
    CHECK(after.running_samples_accumulated == before.running_samples_accumulated * (1 + THREADS * ROUNDS / 2));
    world_free(&shared);

    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, on_own, NULL) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], &states[i]) == 0);
    world_t same;
    world_init(&same, &options);
    free(saved(same.now.criterion, &state_size)); /* to get the size of each state */
    world_free(&same);
    for (int i = 0; i < THREADS; i++) CHECK(memcmp(states[0], states[i], state_size) == 0);
    for (int i = 0; i < THREADS; i++) free(states[i]);

    /* A criterion may be destroyed by another thread. */
    ols_criterion_t *criterion = create(&options);
    CHECK(pthread_create(&threads[0], NULL, destroy, criterion) == 0);
    CHECK(pthread_join(threads[0], NULL) == 0);
    return finish();
}
