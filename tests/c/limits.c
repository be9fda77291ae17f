/* Exhausted resources: memory for K = 1,000,000, and disk space. */
#include "check.h"

#include <signal.h>
#include <sys/resource.h>

static struct rlimit limit(int resource, rlim_t value) {
    struct rlimit before, now;
    CHECK(getrlimit(resource, &before) == 0);
    now = before;
    now.rlim_cur = value;
    CHECK(setrlimit(resource, &now) == 0);
    return before;
}

static void memory(void) {
    world_t w;
    ols_options_t options = options_for(K);
    world_init(&w, &options);
    ols_criterion_t *criterion = NULL;
#ifndef __SANITIZE_ADDRESS__ /* it reserves terabytes of address space */
    const struct rlimit before = limit(RLIMIT_AS, (rlim_t)1 << 31);
    options.num_classes = 1000000;
    REFUSED(&w, OLS_STATUS_OUT_OF_MEMORY, "soft_labels|1000000 x 1000000", ols_create(&options, &criterion));
    /* Vectors of K elements must not be allocated and filled first, which would take seconds. */
    options.num_classes = INT32_MAX;
    REFUSED(&w, OLS_STATUS_OUT_OF_MEMORY, "soft_labels|2147483647 x 2147483647", ols_create(&options, &criterion));
    /* The copy of the caller's matrix, which is small in memory because its strides are 0. */
    const double value = 0;
    options.num_classes = 1000000;
    options.initial = OLS_INITIAL_MATRIX;
    options.initial_soft_labels = ols_tensor_2d(&value, OLS_DTYPE_F64, 1000000, 1000000);
    options.initial_soft_labels.strides[0] = options.initial_soft_labels.strides[1] = 0;
    REFUSED(&w, OLS_STATUS_OUT_OF_MEMORY, "initial_soft_labels|1000000000000", ols_create(&options, &criterion));
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    /* Saving needs as much memory again; querying the size needs none. */
    options = options_for(5000);
    OK(ols_create(&options, &criterion));
    size_t size = 0, unchanged = 5;
    unsigned char *buffer = NULL;
    limit(RLIMIT_AS, (rlim_t)1 << 28);
    OK(ols_save_memory(criterion, NULL, 0, NULL, &size));
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    CHECK(size > 12u * 5000 * 5000 && (buffer = malloc(size)) != NULL);
    buffer[0] = 77;
    limit(RLIMIT_AS, (rlim_t)1 << 28);
    FAILS(OLS_STATUS_OUT_OF_MEMORY, "bytes could not be allocated", ols_save_memory(criterion, buffer, size, NULL, &unchanged));
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    CHECK(unchanged == 5 && buffer[0] == 77);
    OK(ols_save_memory(criterion, buffer, size, NULL, &unchanged));
    CHECK(unchanged == size);
    free(buffer);
    ols_destroy(criterion);
#endif
    CHECK(criterion == NULL || options.num_classes == 5000);
    world_free(&w);
}

static void disk(const char *folder) {
    world_t w;
    ols_options_t options = options_for(K);
    world_init(&w, &options);
    char path[4096], old[16] = "", expected[] = "the old file";
    snprintf(path, sizeof path, "%s/full", folder);
    FILE *file = fopen(path, "wb");
    CHECK(file && fputs(expected, file) >= 0 && fclose(file) == 0);
    signal(SIGXFSZ, SIG_IGN);
    for (rlim_t bytes = 0; bytes <= 512; bytes += 256) {
        const struct rlimit before = limit(RLIMIT_FSIZE, bytes);
        REFUSED(&w, OLS_STATUS_IO, "full: cannot be written|too large", ols_save(w.now.criterion, path, NULL));
        CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
        file = fopen(path, "rb");
        CHECK(file && fgets(old, sizeof old, file) && strcmp(old, expected) == 0);
        if (file) fclose(file);
    }
    /* No temporary files remain, and saving succeeds once there is space. */
    char command[8192];
    snprintf(command, sizeof command, "test -z \"$(find '%s' -name '.libols*')\"", folder);
    CHECK(system(command) == 0);
    OK(ols_save(w.now.criterion, path, NULL));
    OK(ols_load(w.now.criterion, path, NULL));
    world_free(&w);
}

int main(int argc, char **argv) {
    memory();
    disk(argc > 1 ? argv[1] : ".");
    return finish();
}
