#include <ols.h>
#include <stdio.h>

int main(void) {
    float logits[2][3] = {{2.0f, 0.1f, -1.0f}, {0.3f, 0.2f, 0.1f}}, grad[2][3], loss = 0;
    uint8_t targets[2] = {0, 2};

    ols_options_t options;
    ols_options_init(&options, sizeof options);
    options.num_classes = 3;
    ols_criterion_t *criterion;
    if (ols_create(&options, &criterion) != OLS_STATUS_OK)
        return fprintf(stderr, "%s\n", ols_last_error()), 1;

    ols_batch_t batch;
    ols_batch_init(&batch, sizeof batch);
    batch.logits = ols_tensor_2d(logits, OLS_DTYPE_F32, 2, 3);
    batch.targets = ols_tensor_1d(targets, OLS_DTYPE_U8, 2);
    ols_tensor_t to_loss = ols_tensor_0d(&loss, OLS_DTYPE_F32),
                 to_grad = ols_tensor_2d(grad, OLS_DTYPE_F32, 2, 3);
    if (ols_forward(criterion, &batch, &to_loss, &to_grad) != OLS_STATUS_OK)
        return fprintf(stderr, "%s\n", ols_last_error()), 1;
    printf("loss %.4f, gradient of the first sample %+.4f %+.4f %+.4f\n",
           loss, grad[0][0], grad[0][1], grad[0][2]);

    ols_next_epoch(criterion, NULL); // once an epoch: the soft labels of the next one
    ols_destroy(criterion);
    return 0;
}
