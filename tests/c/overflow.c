/* An error that only a sanitizer can detect: a gradient of four samples in memory for one. Verifies that the sanitized tests detect such errors. */
#include "check.h"

int main(void) {
    ols_options_t options = options_for(K);
    world_t w;
    world_init(&w, &options);
    float *too_short = malloc(K * sizeof *too_short);
    w.now.to_grad.data = too_short;
    OK(ols_forward(w.now.criterion, &w.now.batch, NULL, &w.now.to_grad));
    free(too_short);
    world_free(&w);
    return finish();
}
