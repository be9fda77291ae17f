/* A panic is returned as a status, and its criterion rejects all further calls. Requires a build with the hooks of src/capi/hooks.rs. */
#include "check.h"

ols_status_t ols_test_panic(ols_criterion_t *criterion);

int main(void) {
    ols_options_t options = options_for(K);
    world_t w, other;
    world_init(&w, &options);
    world_init(&other, &options);
    memory_t *m = &w.now;
    const ols_status_t STATE = OLS_STATUS_INVALID_STATE;
    size_t size = 7;
    int64_t epoch = 7;
    FAILS(OLS_STATUS_PANIC, "panic|asked for by a test", ols_test_panic(m->criterion));
    FAILS(STATE, "panicked", ols_test_panic(m->criterion));
    FAILS(STATE, "panicked", ols_forward(m->criterion, &m->batch, &m->to_loss, &m->to_grad));
    FAILS(STATE, "panicked", ols_next_epoch(m->criterion, NULL));
    FAILS(STATE, "panicked", ols_epoch(m->criterion, &epoch));
    FAILS(STATE, "panicked", ols_save_memory(m->criterion, NULL, 0, NULL, &size));
    CHECK(size == 7 && epoch == 7);
    /* Other criteria are not affected. */
    OK(ols_forward(other.now.criterion, &other.now.batch, &other.now.to_loss, &other.now.to_grad));
    world_free(&w);
    world_free(&other);
    return finish();
}
