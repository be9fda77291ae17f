/* After a fork, parent and child both continue, each with its own copy. */
#include "check.h"

#include <sys/wait.h>
#include <unistd.h>

enum { SAMPLES = 1 << 18 };

int main(void) {
    ols_options_t options = options_for(K);
    options.n_threads = 4;
    world_t w;
    world_init(&w, &options);
    /* A batch that is large enough for several threads. */
    float(*logits)[K] = malloc(sizeof *logits * SAMPLES);
    uint8_t *targets = malloc(SAMPLES);
    for (int n = 0; n < SAMPLES; n++) {
        targets[n] = (uint8_t)(n % K);
        for (int k = 0; k < K; k++) logits[n][k] = (float)((n * 31 + k * 17) % 23) / 8.0f;
    }
    w.now.batch.logits = ols_tensor_2d(logits, OLS_DTYPE_F32, SAMPLES, K);
    w.now.batch.targets = ols_tensor_1d(targets, OLS_DTYPE_U8, SAMPLES);
    ols_tensor_t in_own = ols_tensor_2d(malloc(sizeof *logits * SAMPLES), OLS_DTYPE_F32, SAMPLES, K);
    OK(ols_forward(w.now.criterion, &w.now.batch, &w.now.to_loss, &in_own));
    const float loss = w.now.loss;
    world_remember(&w);

    pid_t child = fork();
    if (child == 0) {
        alarm(60); /* terminates a child that hangs */
        OK(ols_forward(w.now.criterion, &w.now.batch, &w.now.to_loss, &in_own));
        CHECK(w.now.loss == loss);
        OK(ols_next_epoch(w.now.criterion, NULL));
        FAILS(OLS_STATUS_INVALID_ARGUMENT, "criterion is NULL", ols_next_epoch(NULL, NULL));
        ols_criterion_t *other = create(&options);
        OK(ols_forward(other, &w.now.batch, &w.now.to_loss, &in_own));
        ols_destroy(other);
        ols_destroy(w.now.criterion);
        _exit(failures != 0);
    }
    CHECK(child > 0);
    CHECK(world_unchanged(&w));
    OK(ols_forward(w.now.criterion, &w.now.batch, &w.now.to_loss, &in_own));
    CHECK(w.now.loss == loss);
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    OK(ols_next_epoch(w.now.criterion, NULL));
    free(in_own.data);
    free(targets);
    free(logits);
    world_free(&w);
    return finish();
}
