/* Files that cannot be written or read, and bytes that are not a saved state: each is an error, and nothing is changed. */
#include "check.h"

#include <sys/stat.h>
#include <unistd.h>

static void paths(world_t *w, const char *folder) {
    char path[4096];
    ols_criterion_t *criterion = w->now.criterion;
    REFUSED(w, OLS_STATUS_INVALID_ARGUMENT, "path is empty", ols_save(criterion, "", NULL));
    REFUSED(w, OLS_STATUS_INVALID_ARGUMENT, "path is empty", ols_load(criterion, "", NULL));
    snprintf(path, sizeof path, "%s/no/such/folder", folder);
    REFUSED(w, OLS_STATUS_IO, "no/such/folder|cannot be written", ols_save(criterion, path, NULL));
    REFUSED(w, OLS_STATUS_IO, "no/such/folder|cannot be read", ols_load(criterion, path, NULL));
    REFUSED(w, OLS_STATUS_IO, "cannot be written", ols_save(criterion, folder, NULL));
    REFUSED(w, OLS_STATUS_IO, "cannot be read", ols_load(criterion, folder, NULL));
    REFUSED(w, OLS_STATUS_IO, "/dev/null|regular file", ols_save(criterion, "/dev/null", NULL));
    /* A link to a file that does not exist yet: the file is created, and the link stays. */
    char link[4096], target[4096];
    struct stat status;
    snprintf(link, sizeof link, "%s/link", folder);
    snprintf(path, sizeof path, "%s/linked", folder);
    CHECK(mkdir(path, 0755) == 0 && symlink("linked/state", link) == 0);
    OK(ols_save(criterion, link, NULL));
    snprintf(target, sizeof target, "%s/linked/state", folder);
    CHECK(lstat(link, &status) == 0 && S_ISLNK(status.st_mode) && lstat(target, &status) == 0 && S_ISREG(status.st_mode));
    OK(ols_load(criterion, link, NULL));
    snprintf(link, sizeof link, "%s/circle", folder);
    CHECK(symlink("circle", link) == 0);
    REFUSED(w, OLS_STATUS_IO, "circle|cannot be written", ols_save(criterion, link, NULL));
    CHECK(lstat(link, &status) == 0 && S_ISLNK(status.st_mode));
    REFUSED(w, OLS_STATUS_IO, "/proc/version|cannot be written", ols_save(criterion, "/proc/version", NULL));
    snprintf(path, sizeof path, "%s/locked", folder);
    CHECK(mkdir(path, 0555) == 0);
    snprintf(path, sizeof path, "%s/locked/file", folder);
    /* Root may write anywhere, so switch to another user temporarily. */
    const uid_t user = geteuid();
    CHECK(user != 0 || seteuid(65534) == 0);
    REFUSED(w, OLS_STATUS_IO, "locked/file|cannot be written", ols_save(criterion, path, NULL));
    CHECK(seteuid(user) == 0);
}

/* Checks that `bytes` are rejected, from memory and from a file. */
static void refuse(world_t *w, const char *folder, const void *bytes, size_t size, const char *words) {
    char path[4096];
    snprintf(path, sizeof path, "%s/broken", folder);
    REFUSED(w, OLS_STATUS_INVALID_FILE, words, ols_load_memory(w->now.criterion, bytes, size, NULL));
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
    FAILS(OLS_STATUS_INVALID_FILE, words, ols_load(w->now.criterion, path, NULL));
}

static void bytes(world_t *w, const char *folder) {
    size_t size;
    char *good = saved(w->now.criterion, &size), *copy = malloc(size + 64);
    /* Another state, so that a successful load would be noticed. */
    OK(ols_set_epoch(w->now.criterion, 17));
    /* Truncated at various positions. */
    for (size_t cut = 0; cut < size; cut += cut < 64 || cut + 64 > size ? 1 : 7) refuse(w, folder, good, cut, "file");
    refuse(w, folder, good, 0, "truncated file");
    refuse(w, folder, good, size - 1, "truncated");
    memcpy(copy, good, size);
    memset(copy + size, 0, 64);
    refuse(w, folder, copy, size + 64, "lengthened file");
    /* One bit flipped, at various positions. */
    for (size_t at = 0; at < size; at += at < 1024 ? 1 : 13) {
        memcpy(copy, good, size);
        copy[at] ^= (char)(1 << at % 8);
        refuse(w, folder, copy, size, "file");
    }
    /* Other file formats. */
    static char foreign[4096];
    refuse(w, folder, foreign, sizeof foreign, "file");
    memset(foreign, 0xff, sizeof foreign);
    refuse(w, folder, foreign, sizeof foreign, "file");
    memcpy(foreign, "PK\003\004 a zip file, such as PyTorch writes", 40);
    refuse(w, folder, foreign, sizeof foreign, "foreign file");
    static const char other[] = "\x1e\0\0\0\0\0\0\0{\"__metadata__\":{\"a\":\"b\"}}    ";
    refuse(w, folder, other, 8 + 0x1e, "file");
    /* The intact bytes can be loaded. */
    OK(ols_load_memory(w->now.criterion, good, size, NULL));
    int64_t epoch;
    OK(ols_epoch(w->now.criterion, &epoch));
    CHECK(epoch == 1);
    free(copy);
    free(good);
}

int main(int argc, char **argv) {
    const char *folder = argc > 1 ? argv[1] : ".";
    ols_options_t options = options_for(K);
    world_t w;
    world_init(&w, &options);
    paths(&w, folder);
    bytes(&w, folder);
    world_free(&w);
    return finish();
}
