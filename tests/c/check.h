/* Shared by the C tests: checks that report where they failed, and a criterion with everything that a call needs, to detect changes. */
#ifndef CHECK_H
#define CHECK_H

#include <math.h>
#include <ols.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "%s:%d: %s [%s]\n", __FILE__, __LINE__, #condition, ols_last_error()); \
            failures++;                                                                  \
        }                                                                                \
    } while (0)

/* The call succeeds, and the error message is empty. */
#define OK(call)                                 \
    do {                                         \
        ols_status_t status_ = (call);           \
        CHECK(status_ == OLS_STATUS_OK);         \
        CHECK(*ols_last_error() == '\0');        \
    } while (0)

/* The call fails with `status`, and its message starts with the function's name and contains every part of `words`, which are separated by '|'. */
#define FAILS(status, words, call) check_failure(__FILE__, __LINE__, #call, (call), status, words)

/* Like FAILS; in addition, the state, the outputs and the inputs of the world are unchanged. */
#define REFUSED(world, status, words, call)                        \
    do {                                                           \
        world_remember(world);                                     \
        FAILS(status, words, call);                                \
        if (!world_unchanged(world)) {                             \
            fprintf(stderr, "%s:%d: %s: touched something\n", __FILE__, __LINE__, #call); \
            failures++;                                            \
        }                                                          \
    } while (0)

static inline void check_failure(const char *file, int line, const char *call, ols_status_t got, ols_status_t want, const char *words) {
    const char *message = ols_last_error();
    if (got != want) {
        fprintf(stderr, "%s:%d: %s: %s instead of %s [%s]\n", file, line, call, ols_status_string(got), ols_status_string(want), message);
        failures++;
        return;
    }
    size_t name = strcspn(call, "(");
    int good = strncmp(message, call, name) == 0 && strncmp(message + name, ": ", 2) == 0;
    while (*words) {
        char word[256];
        size_t length = strcspn(words, "|");
        memcpy(word, words, length);
        word[length] = '\0';
        good = good && strstr(message, word) != NULL;
        words += length + (words[length] == '|');
    }
    if (!good) {
        fprintf(stderr, "%s:%d: %s: message is \"%s\"\n", file, line, call, message);
        failures++;
    }
}

enum { N = 4, K = 5 };

/* A criterion in training mode, a batch, and its outputs. */
typedef struct {
    ols_criterion_t *criterion;
    float logits[N][K], grad[N][K], loss;
    int64_t targets[N], targets2[N];
    float weights[N];
    double lam[N];
    ols_batch_t batch;
    ols_tensor_t to_loss, to_grad;
} memory_t;

typedef struct {
    memory_t now, before;
    void *state;
    size_t state_size;
    int32_t mode;
} world_t;

static inline ols_options_t options_for(int64_t classes) {
    ols_options_t options;
    OK(ols_options_init(&options, sizeof options));
    options.num_classes = classes;
    return options;
}

static inline ols_criterion_t *create(const ols_options_t *options) {
    ols_criterion_t *criterion = NULL;
    OK(ols_create(options, &criterion));
    if (!criterion) exit(1);
    return criterion;
}

/* The bytes that the criterion saves, to be released with free(). */
static inline void *saved(const ols_criterion_t *criterion, size_t *size) {
    OK(ols_save_memory(criterion, NULL, 0, NULL, size));
    void *bytes = malloc(*size);
    OK(ols_save_memory(criterion, bytes, *size, NULL, size));
    return bytes;
}

static inline void world_init(world_t *world, const ols_options_t *options) {
    memset(world, 0, sizeof *world);
    memory_t *now = &world->now;
    now->criterion = create(options);
    for (int n = 0; n < N; n++) {
        for (int k = 0; k < K; k++) now->logits[n][k] = (float)((n * 7 + k * 3) % 11) / 4.0f - 1.0f;
        now->targets[n] = n % K;
        now->targets2[n] = (n + 2) % K;
        now->weights[n] = 1.0f + (float)n;
        now->lam[n] = 0.25 * n;
    }
    OK(ols_batch_init(&now->batch, sizeof now->batch));
    now->batch.logits = ols_tensor_2d(now->logits, OLS_DTYPE_F32, N, K);
    now->batch.targets = ols_tensor_1d(now->targets, OLS_DTYPE_I64, N);
    now->to_loss = ols_tensor_0d(&now->loss, OLS_DTYPE_F32);
    now->to_grad = ols_tensor_2d(now->grad, OLS_DTYPE_F32, N, K);
    /* State that a faulty call could destroy: statistics and an epoch. */
    OK(ols_forward(now->criterion, &now->batch, NULL, NULL));
    OK(ols_next_epoch(now->criterion, NULL));
    OK(ols_forward(now->criterion, &now->batch, NULL, NULL));
    memset(now->grad, 0xa5, sizeof now->grad);
    memset(&now->loss, 0xa5, sizeof now->loss);
}

static inline void world_free(world_t *world) {
    ols_destroy(world->now.criterion);
    free(world->state);
}

static inline void world_remember(world_t *world) {
    free(world->state);
    world->state = saved(world->now.criterion, &world->state_size);
    OK(ols_mode(world->now.criterion, &world->mode));
    memcpy(&world->before, &world->now, sizeof world->now);
}

static inline int world_unchanged(world_t *world) {
    size_t size;
    int32_t mode;
    int same = memcmp(&world->before, &world->now, sizeof world->now) == 0;
    void *state = saved(world->now.criterion, &size);
    OK(ols_mode(world->now.criterion, &mode));
    same = same && mode == world->mode && size == world->state_size && memcmp(state, world->state, size) == 0;
    free(state);
    return same;
}

static inline int close_to(double value, double expected, double tolerance) { return fabs(value - expected) <= tolerance; }

/* Returned by every test's main. */
static inline int finish(void) {
    if (failures) fprintf(stderr, "%d checks failed\n", failures);
    return failures != 0;
}

#endif
