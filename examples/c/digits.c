// Softmax regression on 8x8 images of handwritten digits, trained with Online Label Smoothing.
//
//     cc -O2 digits.c -lols -lm -o digits && ./digits digits.csv
//
// Each line of the file has 64 pixels (0 to 16) and the digit. Every fifth image is used for testing.
#include <ols.h>
#include <stdio.h>
#include <stdlib.h>

enum { PIXELS = 64, INPUTS = PIXELS + 1, CLASSES = 10, IMAGES = 2000, BATCH = 64, EPOCHS = 30 };

static float inputs[IMAGES][INPUTS]; // pixels in [0, 1], and a 1 for the bias
static uint8_t labels[IMAGES];
static float weights[INPUTS][CLASSES];

static void check(ols_status_t status) {
    if (status == OLS_STATUS_OK) return;
    fprintf(stderr, "%s\n", ols_last_error());
    exit(1);
}

static int read_images(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    int count = 0;
    for (float value; count < IMAGES; count++) {
        int read = 0;
        while (read < PIXELS && fscanf(file, "%f,", &value) == 1) inputs[count][read++] = value / 16;
        if (read < PIXELS || fscanf(file, "%f", &value) != 1) break;
        inputs[count][PIXELS] = 1;
        labels[count] = (uint8_t)value;
    }
    fclose(file);
    return count;
}

static void model(const float *input, float *logits) {
    for (int k = 0; k < CLASSES; k++) logits[k] = 0;
    for (int i = 0; i < INPUTS; i++)
        for (int k = 0; k < CLASSES; k++) logits[k] += input[i] * weights[i][k];
}

static double test_accuracy(int count) {
    int right = 0, total = 0;
    float logits[CLASSES];
    for (int n = 0; n < count; n += 5, total++) {
        int best = 0;
        model(inputs[n], logits);
        for (int k = 1; k < CLASSES; k++) best = logits[k] > logits[best] ? k : best;
        right += best == labels[n];
    }
    return 100.0 * right / total;
}

int main(int argc, char **argv) {
    const int count = argc == 2 ? read_images(argv[1]) : 0;
    if (count < 5) return fprintf(stderr, "usage: %s digits.csv\n", argv[0]), 2;

    ols_options_t options;
    ols_criterion_t *criterion;
    check(ols_options_init(&options, sizeof options));
    options.num_classes = CLASSES;
    check(ols_create(&options, &criterion));

    for (int epoch = 1; epoch <= EPOCHS; epoch++) {
        double total = 0;
        int batches = 0;
        for (int next = 0; next < count; batches++) {
            // A batch of training images; the gradient is written in place of the logits.
            float logits[BATCH][CLASSES], loss = 0;
            uint8_t targets[BATCH];
            int members[BATCH], size = 0;
            for (; next < count && size < BATCH; next++) {
                if (next % 5 == 0) continue;
                model(inputs[next], logits[size]);
                targets[size] = labels[next];
                members[size++] = next;
            }
            ols_batch_t batch;
            check(ols_batch_init(&batch, sizeof batch));
            batch.logits = ols_tensor_2d(logits, OLS_DTYPE_F32, size, CLASSES);
            batch.targets = ols_tensor_1d(targets, OLS_DTYPE_U8, size);
            const ols_tensor_t to_loss = ols_tensor_0d(&loss, OLS_DTYPE_F32);
            check(ols_forward(criterion, &batch, &to_loss, &batch.logits));
            for (int n = 0; n < size; n++)
                for (int i = 0; i < INPUTS; i++)
                    for (int k = 0; k < CLASSES; k++) weights[i][k] -= 0.5f * inputs[members[n]][i] * logits[n][k];
            total += loss;
        }
        check(ols_next_epoch(criterion, NULL)); // computes the soft labels of the next epoch
        if (epoch == 1 || epoch % 5 == 0) printf("epoch %2d: loss %.4f, test accuracy %.2f%%\n", epoch, total / batches, test_accuracy(count));
    }

    ols_tensor_t soft_labels;
    check(ols_soft_labels(criterion, &soft_labels));
    const float *eight = (const float *)soft_labels.data + 8 * soft_labels.strides[0];
    printf("what an 8 looks like:");
    for (int k = 0; k < CLASSES; k++) printf(" %d: %.3f", k, eight[k]);
    printf("\n");
    ols_destroy(criterion);
    return 0;
}
