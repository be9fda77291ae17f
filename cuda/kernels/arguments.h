// What the host hands to a kernel: one struct by value. src/cuda/arguments.rs has the same structs; a test compares sizes and offsets.
#pragma once
typedef long long i64;
typedef unsigned long long u64;

// Partial divisors of the kernel over the targets.
#define OLS_DIVISOR_BLOCKS 512
// Up to this many targets every block sums the mean's divisor for itself, which is cheaper than to wait for others. More are counted by all blocks together, in
// slices; or where there are weights, by a kernel before the pass.
#define OLS_DIVISOR_IN_BLOCK 1024
#define OLS_FRACTION_ONE 1073741824.0 /* 2^30: p in units of the statistics */
#define OLS_FULL_CLASS (1ll << 32)

enum { COUNTER_SKIPPED = 0, COUNTER_OUT_OF_RANGE = 1, COUNTER_REFUSED = 2, COUNTERS = 4 };
enum { DTYPE_I64 = 0, DTYPE_I32 = 1, DTYPE_U8 = 2, DTYPE_F32 = 3, DTYPE_F64 = 4 };
enum { REDUCTION_NONE = 0, REDUCTION_MEAN = 1, REDUCTION_SUM = 2 };
// What a pass does to the statistics. TALLY counts, per class, the samples that TAKE_BACK would subtract.
enum { STATISTICS_LEAVE = 0, STATISTICS_ADD = 1, STATISTICS_TALLY = 2, STATISTICS_TAKE_BACK = 3 };
// Where the divisor comes from.
enum { DIVISOR_ONE = 0, DIVISOR_BY_EACH_BLOCK = 1, DIVISOR_FROM_KERNEL = 2, DIVISOR_BY_ALL_BLOCKS = 3 };
enum { POLICY_KEEP = 0, POLICY_CONSTANT = 1, POLICY_MATRIX = 2 };

// One value per sample, or the same for all (strides 0); data 0: not given. Strides in elements.
struct PerSample {
    u64 data;
    i64 outer, inner;
    int dtype, unused;
};

// A row per sample. Strides in elements.
struct Rows {
    u64 data;
    i64 outer, step, inner; // step: from one class to the next
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

// The losses of a pass are added up exactly, so that their order is without effect: those up to Pass.near_loss in these units, and what is finer in f64 and
// with weights in the others; larger ones, and with weights much smaller ones, in pieces of 32 bits, the lowest of which is worth 2^-OLS_FAR_BITS.
#define OLS_LOSS_ONE 1073741824.0 /* 2^30 */
#define OLS_LOSS_REST_ONE 1152921504606846976.0 /* 2^60 */
#define OLS_FAR_BITS 1088
#define OLS_FAR_PIECES 68
// Up to so many samples, and fewer blocks than 2^OLS_BLOCK_BITS, the blocks of a pass add their losses and themselves up in one number: the sum in the
// lowest bits, then the blocks, and in the highest bit whether one has a loss beyond Pass.near_loss.
#define OLS_LOSSES_IN_ONE 16384
#define OLS_SUM_BITS 52
#define OLS_BLOCK_BITS 11

// Numbers that a criterion keeps on the device beside its state. Zero between calls but for the report.
struct Scratch {
    double divisors[OLS_DIVISOR_BLOCKS];
    double divisor;
    u64 losses;             // of a small batch: sum, and blocks
    u64 near_losses, rest_of_losses;
    u64 far_losses[OLS_FAR_PIECES];
    unsigned far_from_finite[2]; // whether a loss was infinite, and whether one was NaN
    unsigned has_far_losses;
    unsigned loss_ticket, divisor_ticket, tally_ticket;
    unsigned refused;       // the batch to be taken back is more than was accumulated
    unsigned bad_soft_labels;
    unsigned next_slice;    // of the targets, counted by the warps together
    unsigned unused;
    u64 counted;            // the slices that are done in the upper half, what was counted in the lower
    i64 report[16];         // of the last epoch's end; see REPORT_
};
enum {
    REPORT_EPOCH = 0, REPORT_MEASURED, REPORT_KEPT, REPORT_UNIFORM, REPORT_INITIAL, REPORT_ONE_HOT, REPORT_ZERO, REPORT_FROZEN,
    REPORT_ACCUMULATED, REPORT_SKIPPED, REPORT_FULL, REPORT_OUT_OF_RANGE, REPORT_REFUSED,
    REPORT_NOTHING, // nothing at all was accumulated
    REPORT_BAD_SOFT_LABELS, // not of an epoch: soft labels that were refused since the last report
};

// First what every pass looks at, in as few lines of the constant cache as there are.
struct Pass {
    Rows logits, grad; // grad.data 0: not wanted
    PerSample targets, loss;
    i64 count, inner, target_offset, ignore_index;
    State state;
    double alpha;
    double near_loss;       // the largest loss of a sample that is added up in units of OLS_LOSS_ONE: no sum of them overflows
    Scratch *scratch;
    int classes, reduction, statistics, divisor;
    int count_targets;      // whether targets out of range are counted: by a forward pass, once
    int cached;             // whether the block has shared memory for a row (long rows)
    unsigned slice, slices; // targets of a slice, and slices, where they are counted together
    PerSample targets2, weights, lam, grad_loss;
    // w, and w divided by weight_scale (a power of two, so that no weight is too small or too large for a row's type); 0: 1 each.
    const double *class_weights;
    const double *scaled_weights;
    const float *scaled_weights32;
    double weight_scale;
    i64 *tally;
};

struct Epoch {
    State state;
    Scratch *scratch;
    const float *initial;   // for POLICY_MATRIX, (K, K)
    double own, other;      // for POLICY_CONSTANT
    double momentum, freeze_above; // freeze_above: infinity for never
    i64 min_count, epoch;
    int classes, policy, policy_report, unused;
};

struct Fill {
    float *to;
    i64 to_stride;
    u64 from;               // 0: own and other; else a matrix
    i64 from_row, from_column;
    double own, other;
    Scratch *scratch;
    int classes, from_dtype, checked, unused;
};
