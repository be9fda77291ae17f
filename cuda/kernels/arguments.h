// Kernel arguments: every kernel takes one struct by value. src/cuda/arguments.rs has the same structs; a test
// compares sizes and offsets.
#pragma once
typedef long long i64;
typedef unsigned long long u64;

// Partial sums of the divisor kernel, one per block.
#define OLS_DIVISOR_BLOCKS 512
// Up to this many targets, every block computes the divisor of the mean for itself, which is cheaper than waiting for
// other blocks. For larger batches, the blocks of a usual kernel count the targets together, in slices; a general
// kernel is preceded by a kernel that computes the divisor.
#define OLS_DIVISOR_IN_BLOCK 1024
#define OLS_FRACTION_ONE 1073741824.0 /* 2^30: a probability of 1, in units of the statistics */
#define OLS_FULL_CLASS (1ll << 32)

// Long rows that stream through shared memory: classes per slot, and the most slots for logits and for soft labels.
#define OLS_STREAM_CHUNK 4096
#define OLS_STREAM_SLOTS 16
#define OLS_STREAM_LABEL_SLOTS 4

enum { COUNTER_SKIPPED = 0, COUNTER_OUT_OF_RANGE = 1, COUNTER_REFUSED = 2, COUNTERS = 4 };
enum { DTYPE_I64 = 0, DTYPE_I32 = 1, DTYPE_U8 = 2, DTYPE_F32 = 3, DTYPE_F64 = 4 };
enum { REDUCTION_NONE = 0, REDUCTION_MEAN = 1, REDUCTION_SUM = 2 };
// What a pass does to the statistics. TALLY counts, for each class, the samples that TAKE_BACK would subtract.
enum { STATISTICS_LEAVE = 0, STATISTICS_ADD = 1, STATISTICS_TALLY = 2, STATISTICS_TAKE_BACK = 3 };
// Where a pass gets the divisor of the mean from.
enum { DIVISOR_ONE = 0, DIVISOR_BY_EACH_BLOCK = 1, DIVISOR_FROM_KERNEL = 2, DIVISOR_BY_ALL_BLOCKS = 3 };
enum { POLICY_KEEP = 0, POLICY_CONSTANT = 1, POLICY_MATRIX = 2 };

// One value per sample, or one value for all samples (both strides 0). Strides are in elements. data == 0: not given.
struct PerSample {
    u64 data;
    i64 outer, inner;
    int dtype, unused;
};

// One row of K classes per sample. Strides are in elements.
struct Rows {
    u64 data;
    i64 outer, step, inner; // step: stride between classes
};

// S, A, c and the counters.
struct State {
    float *soft_labels;
    i64 soft_labels_stride;
    i64 *sums;
    i64 sums_stride;
    i64 *counts;
    i64 *counters;
};

// The losses of a pass are added exactly, as integers, so their order does not matter. Losses up to Pass.near_loss
// are added in units of 1/OLS_LOSS_ONE; with f64 logits or weights, the remainder is added in units of
// 1/OLS_LOSS_REST_ONE. Larger losses, and with weights very small ones, are spread over 32-bit pieces, the lowest of
// which counts units of 2^-OLS_FAR_BITS.
#define OLS_LOSS_ONE 1073741824.0 /* 2^30 */
#define OLS_LOSS_REST_ONE 1152921504606846976.0 /* 2^60 */
#define OLS_FAR_BITS 1088
#define OLS_FAR_PIECES 68
// With at most OLS_LOSSES_IN_ONE samples and fewer than 2^OLS_BLOCK_BITS blocks, the blocks of a pass accumulate
// their losses and their own number in a single 64-bit word: the sum in the low bits, then the number of blocks, and
// in the top bit whether any loss exceeded Pass.near_loss.
#define OLS_LOSSES_IN_ONE 16384
#define OLS_SUM_BITS 52
#define OLS_BLOCK_BITS 11

// Scratch memory that a criterion keeps on the device beside its state. Accumulators, tickets and counters of work
// are zero between launches; each kernel resets those it has used, so that a captured graph can be replayed.
struct Scratch {
    double divisors[OLS_DIVISOR_BLOCKS];
    double divisor;
    u64 losses;             // small batches: sum of the losses and number of blocks in one word
    u64 near_losses, rest_of_losses;
    u64 far_losses[OLS_FAR_PIECES];
    unsigned far_from_finite[2]; // [0]: a loss was infinite; [1]: a loss was NaN
    unsigned has_far_losses;
    unsigned loss_ticket, divisor_ticket, tally_ticket;
    unsigned refused;       // the batch to be taken back has more samples than were accumulated
    unsigned bad_soft_labels;
    unsigned next_slice;    // next slice of the targets to be counted
    unsigned unused;
    u64 counted;            // upper half: slices done; lower half: samples counted
    i64 report[16];         // of the last epoch that ended; see REPORT_*
};
enum {
    REPORT_EPOCH = 0, REPORT_MEASURED, REPORT_KEPT, REPORT_UNIFORM, REPORT_INITIAL, REPORT_ONE_HOT, REPORT_ZERO, REPORT_FROZEN,
    REPORT_ACCUMULATED, REPORT_SKIPPED, REPORT_FULL, REPORT_OUT_OF_RANGE, REPORT_REFUSED,
    REPORT_NOTHING, // whether nothing at all was accumulated
    REPORT_BAD_SOFT_LABELS, // not reset by an epoch: soft labels were refused since the last report
};

// Fields that every pass reads come first, so that they span as few lines of the constant cache as possible.
struct Pass {
    Rows logits, grad; // grad.data == 0: no gradient wanted
    PerSample targets, loss;
    i64 count, inner, target_offset, ignore_index;
    State state;
    double alpha;
    double near_loss;       // largest loss that is added in units of 1/OLS_LOSS_ONE, so that their sum cannot overflow
    Scratch *scratch;
    int classes, reduction, statistics, divisor;
    int count_targets;      // whether to count targets out of range: only a forward pass does, once per batch
    int cached;             // rows512: whether the block has dynamic shared memory for a row; stream512: its slots for
                            // logits, and 256 times those for soft labels
    unsigned slice, slices; // DIVISOR_BY_ALL_BLOCKS: targets per slice, and number of slices
    PerSample targets2, weights, lam, grad_loss;
    // Class weights w, and w / weight_scale, where weight_scale is a power of two that keeps every weight in the
    // range of the row's type. 0: all weights are 1.
    const double *class_weights;
    const double *scaled_weights;
    const float *scaled_weights32;
    double weight_scale;
    i64 *tally;
};

struct Epoch {
    State state;
    Scratch *scratch;
    const float *initial;   // POLICY_MATRIX: row-major (K, K)
    double own, other;      // POLICY_CONSTANT: diagonal and off-diagonal values
    double momentum, freeze_above; // freeze_above: infinity for never
    i64 min_count, epoch;
    int classes, policy, policy_report, unused;
};

struct Fill {
    float *to;
    i64 to_stride;
    u64 from;               // 0: fill with own and other; otherwise a matrix
    i64 from_row, from_column;
    double own, other;
    Scratch *scratch;
    int classes, from_dtype, checked, unused;
};
