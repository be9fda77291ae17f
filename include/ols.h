/*
 * libols 0.1.0: Online Label Smoothing, a classification loss that learns its own soft labels (C. Zhang et al., "Delving Deep into
 * Label Smoothing", IEEE Transactions on Image Processing 30, 2021).
 *
 * Instead of the one-hot or uniformly smoothed target of cross entropy, each class has a soft label: the mean of the distributions that
 * the model gave to the samples of that class which it classified right in the epoch before. The library computes loss, gradient and these
 * statistics in one pass over the logits; network, optimiser and memory stay yours.
 *
 * Linking
 *     shared:  cc prog.c $(pkg-config --cflags --libs ols)              or  -lols
 *     static:  cc prog.c $(pkg-config --cflags --libs --static ols)     or  libols.a -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc
 * Plain C99 and later, C++11 and later. Loading the library starts no thread, opens no file, and touches no device.
 *
 * A program
 *     #include <ols.h>
 *     #include <stdio.h>
 *
 *     int main(void) {
 *         float logits[2][3] = {{2.0f, 0.1f, -1.0f}, {0.3f, 0.2f, 0.1f}}, grad[2][3], loss = 0;
 *         uint8_t targets[2] = {0, 2};
 *
 *         ols_options_t options;
 *         ols_options_init(&options, sizeof options);
 *         options.num_classes = 3;
 *         ols_criterion_t *criterion;
 *         if (ols_create(&options, &criterion) != OLS_STATUS_OK) return fprintf(stderr, "%s\n", ols_last_error()), 1;
 *
 *         ols_batch_t batch;
 *         ols_batch_init(&batch, sizeof batch);
 *         batch.logits = ols_tensor_2d(logits, OLS_DTYPE_F32, 2, 3);
 *         batch.targets = ols_tensor_1d(targets, OLS_DTYPE_U8, 2);
 *         ols_tensor_t to_loss = ols_tensor_0d(&loss, OLS_DTYPE_F32), to_grad = ols_tensor_2d(grad, OLS_DTYPE_F32, 2, 3);
 *         if (ols_forward(criterion, &batch, &to_loss, &to_grad) != OLS_STATUS_OK) return fprintf(stderr, "%s\n", ols_last_error()), 1;
 *         printf("loss %.4f, gradient of the first sample %+.4f %+.4f %+.4f\n", loss, grad[0][0], grad[0][1], grad[0][2]);
 *
 *         ols_next_epoch(criterion, NULL); // once an epoch: the soft labels of the next one
 *         ols_destroy(criterion);
 *         return 0;
 *     }
 *
 * What is computed
 * For N samples over K classes with logits z, targets y and p = softmax(z):
 *     q[n,k]    = alpha*w[y]*[k==y] + (1-alpha)*w[k]*S[y,k]
 *     loss[n]   = -sum_k q[n,k] * log p[n,k]
 *     grad[n,k] = (sum_k q[n,k])*p[n,k] - q[n,k]
 * S (K, K) are the soft labels, a row per class; w[K] the class weights; v[N] the sample weights; alpha in [0, 1] weighs the HARD label: 1
 * is cross entropy, 0 in the first epoch is label smoothing. A (K, K) sums p over the samples of the running epoch that were classified
 * right, c[K] counts them, and ols_next_epoch makes S[j,:] = A[j,:] / sum(A[j,:]). A sample takes no part if a target of it is the ignore
 * index or its weight is 0: loss and gradient are exactly 0 then, whatever its row holds.
 *
 * Tensors
 * An ols_tensor_t is a view: address, device, dtype, up to three dimensions with strides in elements (not bytes). The numbers of device
 * and dtype are DLPack's; ols_dlpack.h converts a DLTensor. Addresses are aligned to an element, no more. Tensors are read and written as
 * they lie, without a copy. A tensor whose bytes are all 0 means "not given" inside a struct. Logits: f32, f64, f16, bf16. Targets: i64,
 * i32, u8. Arithmetic is f32, or f64 for f64 logits; S is f32 always; the loss is f32, or f64 for f64 logits; the gradient has the dtype
 * of the logits.
 *
 * Memory
 * The library owns what ols_create returns, and whatever views of it are handed out; everything else is yours. It keeps no pointer of
 * yours beyond the call, but for the memory of a state that ols_options_t gives it (until ols_destroy). On CUDA "the call" means: until
 * the work that it enqueued has run. An output may not overlap an input, another output or the state, by byte ranges; but for the gradient
 * in place of the logits.
 *
 * Errors
 * Whatever can fail returns an ols_status_t. Then nothing has happened: no output is written, no state is changed. ols_last_error() says
 * what was wrong, with the name of the argument, the rule and the value; it is each thread's own, and empty after a success. Every pointer
 * may be NULL and is checked. Wrong values (targets, weights) are found before anything is touched. No panic and no exception leaves the
 * library (OLS_STATUS_PANIC). What cannot be checked is up to you: a pointer to memory that is not there, a handle that was destroyed.
 *
 * Structs and numbers
 * ols_options_t, ols_batch_t and the output structs begin with struct_size, and grow at their ends in later releases: a program keeps
 * working with a newer library, and with an older one as long as the fields that it does not know are 0. So initialise them: with
 * ols_options_init and ols_batch_init, and output structs as ols_report_t report = {.struct_size = sizeof report}. Of an output struct no
 * more than struct_size bytes are written. Enums are passed as int32_t and checked; unknown numbers and flags are errors. Status numbers
 * are permanent.
 *
 * Threads
 * A criterion may be used by any thread; calls on one criterion wait for each other. Two criteria share nothing. A view of S or the
 * statistics is memory like any other: do not use it while another thread is in a call on its criterion. The library's own threads are made
 * for the first batch that is worth them; where the system gives none, the caller's thread does the work.
 *
 * Determinism
 * A, c and the counters are integers (p in units of 2^-30), so on one kind of device S is the same bit for bit for any number of threads,
 * any order and split of the batches, any number of ranks and any all-reduce. The bits of a loss or gradient depend on its row, target,
 * weights and K alone. On x86-64 the calling thread's rounding mode and flush-to-zero flags do not change results, and are as before after
 * each call; elsewhere they should be the default ones.
 *
 * Forks
 * After a fork (with no call running in another thread) parent and child go on calling, each with its own copy. A CUDA criterion is an
 * error in the child.
 *
 * Environment
 * OLS_ISA = portable, avx2 or avx512 is the highest level of the processor's instruction set that is used; the bits are the same. OLS_CUDA_PATH
 * = plain or hopper chooses kernels of a CUDA device; the bits are the same. Another word is an error of ols_create. Nothing else is read.
 *
 * CUDA
 * With device_type OLS_DEVICE_CUDA a criterion works on tensors of that device: compute capability 7.5 or newer, a driver of CUDA 12.0 or
 * newer; without one, ols_create fails with OLS_STATUS_UNSUPPORTED. The kernels have run on an H200, and are tested on a stand-in for the
 * driver.
 *
 * Calls enqueue on the stream they are given, in the device's primary context (that of the CUDA runtime and of PyTorch); the caller's
 * context is current again after each call. ols_forward, ols_backward, ols_accumulate, ols_next_epoch and ols_set_soft_labels neither wait
 * nor allocate, and may be captured in a graph, which stays right across epochs. A graph holds what a call took by value: alpha, mode,
 * flags and options; capture anew after changing these, and after a load. Replays of a captured ols_next_epoch make new soft labels, but
 * the number of the epoch is counted when it is called: give it yourself (ols_set_epoch). The state stays where it is until ols_destroy,
 * which must come after the last replay. Calls of one criterion on two streams are yours to order.
 *
 * Values in device memory cannot be errors of the call. A target out of range has loss and gradient 0 and is counted; a sample weight or lam
 * that breaks its rule makes its sample's loss and gradient NaN; a row that ols_accumulate finds outside [0, 1] is kept out and counted as
 * skipped; a batch that is more than was added is not taken back at all, and ols_report fails until the epoch after has ended; soft labels
 * with a wrong entry are not taken, and the next ols_report fails.
 *
 * Generated from src/capi by: OLS_BLESS=1 cargo test --test header. Do not edit.
 */
#ifndef OLS_H
#define OLS_H

#include <stddef.h>
#include <stdint.h>

/** The version of this header, see `ols_version`. */
#define OLS_VERSION "0.1.0"
#define OLS_VERSION_MAJOR 0
#define OLS_VERSION_MINOR 1
#define OLS_VERSION_PATCH 0
/** To compare versions: `major*1000000 + minor*1000 + patch`. */
#define OLS_VERSION_NUMBER 1000

/** The version of the ABI, see `ols_abi_version`. */
#define OLS_ABI_VERSION 0

/** Signed integers. */
#define OLS_CODE_INT 0

/** Unsigned integers. */
#define OLS_CODE_UINT 1

/** IEEE floating point. */
#define OLS_CODE_FLOAT 2

/** bfloat16: the upper half of an IEEE binary32. */
#define OLS_CODE_BFLOAT 4

/** Host memory. */
#define OLS_DEVICE_CPU 1

/** Memory of the CUDA device `device_id`. */
#define OLS_DEVICE_CUDA 2

/** Pinned host memory (`cudaMallocHost`): read and written as host memory. */
#define OLS_DEVICE_CUDA_HOST 3

/** CUDA managed memory: not supported yet. */
#define OLS_DEVICE_CUDA_MANAGED 13

/** `ols_options_t.flags`: the memory that `soft_labels`, `sums`, `counts` and `counters` name holds a state already, which is taken over as it is. */
#define OLS_OPTIONS_ADOPT_STATE 1

/** `ols_batch_t.flags`: in training mode too, leave the statistics as they are. For a second pass over a batch that was counted before. */
#define OLS_BATCH_NO_UPDATE 1

/**
 * `ols_batch_t.flags`: take a batch back that was added before, exactly. Logits, targets, `targets2`, `lam` and `sample_weights` must be the same
 * as then, so not after a gradient has taken the place of the logits. Works in both modes; not together with `OLS_BATCH_NO_UPDATE`.
 */
#define OLS_BATCH_TAKE_BACK 2

/** The summed probabilities are integers in units of 2^-30. */
#define OLS_FRACTION_BITS 30

/** Number of counters; those without a name are 0. */
#define OLS_COUNTERS 4

/** Which counter: rows that were kept out because they hold NaN, +inf, or nothing but -inf. */
#define OLS_COUNTER_SKIPPED_NON_FINITE 0

/** Which counter: targets that are neither a class nor the ignore index (on CUDA; on the CPU they are an error before anything is counted). */
#define OLS_COUNTER_TARGETS_OUT_OF_RANGE 1

/** Which counter: rows that could not be taken back (on CUDA; on the CPU that is an error before anything is touched). */
#define OLS_COUNTER_TAKE_BACKS_REFUSED 2

/** What a call came to. The numbers are permanent; a retired one is never used again, and new ones may come: treat an unknown one as a failure. */
enum ols_status_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** The call succeeded, and every output is written. */
    OLS_STATUS_OK = 0,
    /** An argument is NULL, misaligned, not finite, outside its range, or inconsistent with another one. */
    OLS_STATUS_INVALID_ARGUMENT = 1,
    /** A tensor has a dtype that this argument does not take. */
    OLS_STATUS_INVALID_DTYPE = 2,
    /** A tensor has the wrong number of dimensions, a wrong size, or strides that cannot be read or written. */
    OLS_STATUS_INVALID_SHAPE = 3,
    /** A tensor lives on another device than the criterion. */
    OLS_STATUS_INVALID_DEVICE = 4,
    /** A target is neither a class nor the ignore index. */
    OLS_STATUS_TARGET_OUT_OF_RANGE = 5,
    /** The state of the criterion does not permit the call; also every call on a criterion in which a call has panicked. */
    OLS_STATUS_INVALID_STATE = 6,
    /** This build or this machine cannot do what is asked. */
    OLS_STATUS_UNSUPPORTED = 7,
    /** Memory could not be allocated. */
    OLS_STATUS_OUT_OF_MEMORY = 8,
    /** The operating system refused to read or write a file. */
    OLS_STATUS_IO = 9,
    /** The bytes are not a saved state, or a truncated or damaged one. */
    OLS_STATUS_INVALID_FILE = 10,
    /** CUDA reported an error. */
    OLS_STATUS_CUDA = 11,
    /** A bug in libols. Nothing has left the library; the criterion refuses all further calls but `ols_destroy`. */
    OLS_STATUS_PANIC = 255,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ols_status_t ols_status_t;
#else
typedef int32_t ols_status_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** What `ols_tensor_0d` to `ols_tensor_3d` take for a dtype: `dtype_code | dtype_bits << 8`. */
enum ols_dtype_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** IEEE binary32: `float`. */
    OLS_DTYPE_F32 = 8194,
    /** IEEE binary64: `double`. */
    OLS_DTYPE_F64 = 16386,
    /** IEEE binary16. */
    OLS_DTYPE_F16 = 4098,
    /** bfloat16: the upper half of an IEEE binary32. */
    OLS_DTYPE_BF16 = 4100,
    /** `int64_t`. */
    OLS_DTYPE_I64 = 16384,
    /** `int32_t`. */
    OLS_DTYPE_I32 = 8192,
    /** `uint8_t`. */
    OLS_DTYPE_U8 = 2049,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ols_dtype_t ols_dtype_t;
#else
typedef int32_t ols_dtype_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** The soft labels of the first epoch. */
enum ols_initial_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** `1 - smoothing` for the class itself, `smoothing / (K - 1)` elsewhere. */
    OLS_INITIAL_SMOOTHING = 0,
    /** 1/K everywhere. */
    OLS_INITIAL_UNIFORM = 1,
    /** 0 everywhere. */
    OLS_INITIAL_ZERO = 2,
    /** 1 for the class itself, 0 elsewhere. */
    OLS_INITIAL_ONE_HOT = 3,
    /** Those in `initial_soft_labels`. */
    OLS_INITIAL_MATRIX = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ols_initial_t ols_initial_t;
#else
typedef int32_t ols_initial_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** The soft label of a class that was not measured in an epoch. */
enum ols_empty_class_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** The class keeps the row it has. */
    OLS_EMPTY_CLASS_KEEP = 0,
    /** 1/K everywhere, as the authors' code does. */
    OLS_EMPTY_CLASS_UNIFORM = 1,
    /** The row that the class began with. */
    OLS_EMPTY_CLASS_INITIAL = 2,
    /** 1 for the class itself, 0 elsewhere. */
    OLS_EMPTY_CLASS_ONE_HOT = 3,
    /** 0 everywhere, as the PyTorch package does: the class then trains against its hard label alone. */
    OLS_EMPTY_CLASS_ZERO = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ols_empty_class_t ols_empty_class_t;
#else
typedef int32_t ols_empty_class_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** How the losses of a batch become one number. */
enum ols_reduction_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** One loss per sample, times its sample weight v. */
    OLS_REDUCTION_NONE = 0,
    /** `sum v*loss / sum v*w[y]` over the samples that take part, as PyTorch's cross entropy has it; 0 where the divisor is 0. */
    OLS_REDUCTION_MEAN = 1,
    /** `sum v*loss`. */
    OLS_REDUCTION_SUM = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ols_reduction_t ols_reduction_t;
#else
typedef int32_t ols_reduction_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** Whether a forward pass adds to the statistics. */
enum ols_mode_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** A forward pass adds the distributions of the samples that are classified right. */
    OLS_MODE_TRAIN = 0,
    /** A forward pass changes no state. */
    OLS_MODE_EVAL = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ols_mode_t ols_mode_t;
#else
typedef int32_t ols_mode_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** Options that reproduce what others do. */
enum ols_preset_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** The PyTorch package: `OLS_INITIAL_SMOOTHING` with 0.1, and `OLS_EMPTY_CLASS_ZERO`. */
    OLS_PRESET_REFERENCE = 0,
    /** The authors' released CIFAR code: `OLS_INITIAL_ZERO` and `OLS_EMPTY_CLASS_UNIFORM`. */
    OLS_PRESET_PAPER = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ols_preset_t ols_preset_t;
#else
typedef int32_t ols_preset_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The loss with the soft labels that it learns. Made by `ols_create`, ended by `ols_destroy`. Any thread may use it; calls on one criterion wait
 * for each other, and two criteria share nothing.
 */
typedef struct ols_criterion_t ols_criterion_t;

/**
 * A view of up to three dimensions on memory of its owner. Flat and frozen: it never grows, and owns nothing. `ols_tensor_0d` to
 * `ols_tensor_3d` below make one of row-major host memory; `ols_dlpack.h` makes one of a `DLTensor`.
 *
 * A tensor whose bytes are all 0 stands for "not given" inside of other structs.
 */
typedef struct ols_tensor_t {
    /** The element whose indices are all 0, aligned to the size of an element. NULL only where a size is 0. */
    void *data;
    /** Where `data` lies: `OLS_DEVICE_CPU` or another of these (DLPack's numbers). */
    int32_t device_type;
    /** Which CUDA device; without meaning for host memory. */
    int32_t device_id;
    /** Kind of number: `OLS_CODE_FLOAT` or another of these (DLPack's numbers). */
    uint8_t dtype_code;
    /** Bits of an element: 8, 16, 32 or 64. */
    uint8_t dtype_bits;
    /** Always 1. */
    uint16_t dtype_lanes;
    /** Number of dimensions, 0 to 3; 0 is one single value. */
    int32_t ndim;
    /** Sizes of the first `ndim` dimensions, each >= 0; the others are not looked at. */
    int64_t shape[3];
    /**
     * Steps from one index to the next, in elements (not bytes), of the first `ndim` dimensions. Negative steps are fine; a step of 0 repeats an
     * element and is for inputs alone.
     */
    int64_t strides[3];
    /** Always 0. */
    uint64_t reserved;
} ols_tensor_t;

/**
 * What a criterion is told at its creation. Set it up with `ols_options_init`, set `num_classes`, and what else is not to be the default.
 *
 * `soft_labels`, `sums`, `counts` and `counters` may name memory of the caller's for the state; what is not given is the library's own. Rows are
 * contiguous and may lie further apart than K; memory must not overlap. It is the caller's to read and to change between calls. Three uses: the
 * tensors of a framework, which saves and sends them around itself; memory shared by processes; a state that outlives its criterion.
 */
typedef struct ols_options_t {
    /** Bytes of this struct: `sizeof(ols_options_t)`. */
    size_t struct_size;
    /** K, at least 2. There is no default. */
    int64_t num_classes;
    /** Weight of the hard label in [0, 1]; the soft label weighs `1 - alpha`. Default 0.5. */
    double alpha;
    /** For `OLS_INITIAL_SMOOTHING`, in [0, 1]. Default 0.1. */
    double smoothing;
    /** Share of the old soft label in the new one, in [0, 1). Default 0. */
    double momentum;
    /**
     * A class whose largest soft label is at least this keeps its row for good; greater than 0. Default INFINITY: never. Mind the start: a smoothing
     * of 0.1 puts 0.9 on the diagonal, so 0.88 freezes every class at once.
     */
    double freeze_above;
    /** Samples of a class in an epoch that make it measured, at least 1. Default 1. */
    int64_t min_count;
    /** A sample with this target takes no part. Default -100. */
    int64_t ignore_index;
    /** An `ols_initial_t`. Default `OLS_INITIAL_SMOOTHING`. */
    int32_t initial;
    /** An `ols_empty_class_t`. Default `OLS_EMPTY_CLASS_KEEP`. */
    int32_t empty_class;
    /** An `ols_reduction_t`. Default `OLS_REDUCTION_MEAN`. */
    int32_t reduction;
    /** The `ols_mode_t` to begin in. Default `OLS_MODE_TRAIN`. */
    int32_t mode;
    /** Where the tensors of a call live: `OLS_DEVICE_CPU` (default) or `OLS_DEVICE_CUDA`. */
    int32_t device_type;
    /** Which CUDA device. Default 0. */
    int32_t device_id;
    /**
     * The most threads that a call may use, the caller's own included; 0: as many as the process may run on. Results do not depend on it. Default 0.
     * Threads are made for the first batch that is worth them, wait asleep, and end with the criterion.
     */
    int32_t n_threads;
    /** 0 or `OLS_OPTIONS_ADOPT_STATE`. */
    uint32_t flags;
    /** w: f32 or f64 of shape (K), finite and >= 0, in host memory; copied. Not given: 1 each. */
    ols_tensor_t class_weights;
    /** f32 or f64 of shape (K, K), a row per class, finite and >= 0 as f32, in host memory; copied. With `OLS_INITIAL_MATRIX` alone. */
    ols_tensor_t initial_soft_labels;
    /** Memory for S: f32 (K, K). */
    ols_tensor_t soft_labels;
    /** Memory for A: i64 (K, K). */
    ols_tensor_t sums;
    /** Memory for c: i64 (K). */
    ols_tensor_t counts;
    /** Memory for the counters: i64 (`OLS_COUNTERS`). */
    ols_tensor_t counters;
} ols_options_t;

/**
 * A batch: N samples over K classes, or N x inner of them, as the pixels of N images. Set it up with `ols_batch_init`, then fill in `logits`,
 * `targets` and what else there is. A call copies the struct, and uses the memory that its tensors name until it returns (on CUDA: until the
 * enqueued work has run).
 */
typedef struct ols_batch_t {
    /** Bytes of this struct: `sizeof(ols_batch_t)`. */
    size_t struct_size;
    /**
     * z: f32, f64, f16 or bf16 of shape (N, K) or (N, K, inner); with the class last, as (N, inner, K) in memory, by strides. Read as they lie.
     * A row with NaN, +inf, or nothing but -inf has a loss and gradient of NaN and adds nothing to the statistics; -inf in part of a row masks
     * these classes.
     */
    ols_tensor_t logits;
    /** y: i64, i32 or u8 of shape (N) or (N, inner), in [target_offset, target_offset + K), or the ignore index: such a sample takes no part. */
    ols_tensor_t targets;
    /** v: f32 or f64 of the shape of the targets, finite and >= 0. A sample that weighs 0 takes no part. Not given: 1 each. */
    ols_tensor_t sample_weights;
    /** The second targets of Mixup and CutMix, as `targets`. Not given: none. Given together with `lam` only. */
    ols_tensor_t targets2;
    /** The weight of the first target in [0, 1], f32 or f64: of the shape of the targets, or one value (`ndim` 0 or shape (1)) for all. */
    ols_tensor_t lam;
    /**
     * The gradient of the whole with respect to the loss, f32 or f64: one value (`ndim` 0 or shape (1)), or with `OLS_REDUCTION_NONE` of the
     * shape of the targets. Not given: 1. A loss scale belongs here: it is multiplied in before a 16-bit gradient is rounded.
     */
    ols_tensor_t grad_loss;
    /** The class is `target - target_offset`: 1 for labels that count from 1. The ignore index is compared before. */
    int64_t target_offset;
    /** A `cudaStream_t` on which the work is enqueued; the CPU does not look at it. */
    void *stream;
    /** 0, `OLS_BATCH_NO_UPDATE` or `OLS_BATCH_TAKE_BACK`. */
    uint32_t flags;
    /** Always 0. */
    uint32_t reserved;
} ols_batch_t;

/**
 * Views of the statistics of the running epoch, in place, from `ols_statistics`. All are integers, so that sums over threads, batches and ranks are
 * exact in any order: an all-reduce (sum) of the three, before `ols_next_epoch`, gives every rank the same soft labels, bit for bit.
 */
typedef struct ols_statistics_t {
    /** Bytes of this struct: `sizeof(ols_statistics_t)`. */
    size_t struct_size;
    /** A: i64 (K, K), a row per class; summed probabilities in units of 2^-30. */
    ols_tensor_t sums;
    /** c: i64 (K); samples that were summed. A class that has 2^32 is full and takes no more. */
    ols_tensor_t counts;
    /** i64 (`OLS_COUNTERS`). */
    ols_tensor_t counters;
} ols_statistics_t;

/** What happened, from `ols_report`: in the epoch that ended last, and so far in the running one. `rows_measured` and all other `rows_` add up to K. */
typedef struct ols_report_t {
    /** Bytes of this struct: `sizeof(ols_report_t)`. */
    size_t struct_size;
    /** Number of the epoch that ended last, counted from 1; 0 where none has ended yet (or since a load), and then all of it is 0. */
    int64_t epoch;
    /** Classes whose new soft label was measured. */
    int64_t rows_measured;
    /** Classes that kept their row by `OLS_EMPTY_CLASS_KEEP`, or because nothing at all was accumulated. */
    int64_t rows_kept;
    /** Classes with a uniform row by `OLS_EMPTY_CLASS_UNIFORM`. */
    int64_t rows_uniform;
    /** Classes back at their first row by `OLS_EMPTY_CLASS_INITIAL`. */
    int64_t rows_initial;
    /** Classes with a one-hot row by `OLS_EMPTY_CLASS_ONE_HOT`. */
    int64_t rows_one_hot;
    /** Classes with a row of zeros by `OLS_EMPTY_CLASS_ZERO`. */
    int64_t rows_zero;
    /** Classes that stay as they are because of `freeze_above`. */
    int64_t rows_frozen;
    /** Samples that were accumulated: those classified right. */
    int64_t samples_accumulated;
    /** Samples that were kept out because their logits hold NaN, +inf, or nothing but -inf. */
    int64_t samples_skipped;
    /** Classes that were full and took no more samples. */
    int64_t classes_full;
    /** Targets that were neither a class nor the ignore index (on CUDA; an error on the CPU). */
    int64_t targets_out_of_range;
    /** Number of the running epoch. */
    int64_t running_epoch;
    /** Samples that the running epoch has accumulated. */
    int64_t running_samples_accumulated;
    /** Samples that it has kept out. */
    int64_t running_samples_skipped;
    /** Classes that are full. */
    int64_t running_classes_full;
    /** Targets that were neither a class nor the ignore index (on CUDA). */
    int64_t running_targets_out_of_range;
} ols_report_t;

/**
 * A view of one value in host memory: no dimension. `dtype` is an `ols_dtype_t`, here and below. The view owns nothing; these functions cannot fail
 * (what is wrong with a view is found by the call that takes it), and are safe from any thread.
 */
static inline ols_tensor_t ols_tensor_0d(const void *data, int32_t dtype) {
    ols_tensor_t tensor;
    tensor.data = (void *)(uintptr_t)data;
    tensor.device_type = OLS_DEVICE_CPU;
    tensor.device_id = 0;
    tensor.dtype_code = (uint8_t)((uint32_t)dtype & 255u);
    tensor.dtype_bits = (uint8_t)((uint32_t)dtype >> 8 & 255u);
    tensor.dtype_lanes = 1;
    tensor.ndim = 0;
    tensor.shape[0] = tensor.shape[1] = tensor.shape[2] = 1;
    tensor.strides[0] = tensor.strides[1] = tensor.strides[2] = 0;
    tensor.reserved = 0;
    return tensor;
}

/**
 * A view of three dimensions in host memory, row-major: element [i][j][k] is number (i*size1 + j)*size2 + k.
 */
static inline ols_tensor_t ols_tensor_3d(const void *data, int32_t dtype, int64_t size0, int64_t size1, int64_t size2) {
    ols_tensor_t tensor = ols_tensor_0d(data, dtype);
    tensor.ndim = 3;
    tensor.shape[0] = size0;
    tensor.shape[1] = size1;
    tensor.shape[2] = size2;
    tensor.strides[0] = (int64_t)((uint64_t)size1 * (uint64_t)size2);
    tensor.strides[1] = size2;
    tensor.strides[2] = 1;
    return tensor;
}

/**
 * A view of two dimensions in host memory, row-major: element [i][j] is number i*size1 + j.
 */
static inline ols_tensor_t ols_tensor_2d(const void *data, int32_t dtype, int64_t size0, int64_t size1) {
    ols_tensor_t tensor = ols_tensor_3d(data, dtype, size0, size1, 1);
    tensor.ndim = 2;
    return tensor;
}

/**
 * A view of `size0` values that follow each other in host memory.
 */
static inline ols_tensor_t ols_tensor_1d(const void *data, int32_t dtype, int64_t size0) {
    ols_tensor_t tensor = ols_tensor_3d(data, dtype, size0, 1, 1);
    tensor.ndim = 1;
    return tensor;
}

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/* ==== Versions ==== */

/**
 * The version of the library that is loaded, such as "0.1.0"; compare with `OLS_VERSION`, that of this header.
 *
 * The string is constant and lives as long as the library is loaded; never NULL. Safe from any thread; cannot fail.
 */
const char *ols_version(void);

/**
 * The version of the ABI of the library that is loaded; compare with `OLS_ABI_VERSION`, that of this header: a program may use any library whose
 * number is its own. 0 stands for the releases below 1.0, whose ABI may change with each minor version: there compare `ols_version` too.
 *
 * The SONAME has the number, and below 1.0 the minor version behind it. From 1.0 on, within a number functions, constants and fields at the end of structs may be added, and nothing is
 * changed or taken away. Safe from any thread; cannot fail.
 */
uint32_t ols_abi_version(void);

/* ==== Errors ==== */

/**
 * Names a status: "INVALID_SHAPE" for `OLS_STATUS_INVALID_SHAPE`, "UNKNOWN" for a number that this library does not know.
 *
 * The string is constant and lives as long as the library is loaded; never NULL. Safe from any thread; cannot fail, and leaves the text of
 * `ols_last_error` as it is.
 */
const char *ols_status_string(int32_t status);

/**
 * Says what went wrong in this thread's latest call that returns a status: the function, the argument, the rule and the value, in English, as in
 * `ols_forward: target[17] = 1003 is outside [0, 1000) and is not ignore_index (-100)`. Empty if that call succeeded.
 *
 * The text belongs to the library and stays until this thread's next call that returns a status, or the thread's end: copy it to keep it. Never
 * NULL; UTF-8, at most 1023 bytes. Each thread has a text of its own. Cannot fail.
 */
const char *ols_last_error(void);

/* ==== Options ==== */

/**
 * Sets up options with the defaults; `num_classes` is 0 and must be set.
 *
 * Call it as `ols_options_init(&options, sizeof options)`. Owns nothing: options need no clean-up. Safe from any thread. On failure (`options` is
 * NULL, or `struct_size` is no size of the struct) nothing is written.
 *
 * Requirements: `options` is NULL or points to `struct_size` writable bytes.
 */
ols_status_t ols_options_init(ols_options_t *options,
                              size_t struct_size);

/**
 * Sets `initial`, `smoothing` and `empty_class` of initialised options to what `preset`, an `ols_preset_t`, names; leaves the others.
 *
 * Owns nothing. Safe from any thread. On failure `*options` is as before.
 *
 * Requirements: `options` is NULL or points to a writable, initialised `ols_options_t`.
 */
ols_status_t ols_options_preset(ols_options_t *options, int32_t preset);

/**
 * Writes the options of a criterion to `*out`, as they are now: `alpha` and `mode` as set last, and what a load replaced.
 *
 * `class_weights` (f64) and `initial_soft_labels` (f32) are views of the criterion's copies: read-only, until its next load or its end. The
 * tensors of the state and `flags` are left out, so that `*out` can create another criterion with a state of its own. Safe from any thread. On
 * failure `*out` is as before. Set `out->struct_size` before.
 *
 * Requirements: `criterion` is NULL or a live criterion; `out` is NULL or points to a writable `ols_options_t` whose `struct_size` is set.
 */
ols_status_t ols_get_options(const ols_criterion_t *criterion,
                             ols_options_t *out);

/* ==== Batches ==== */

/**
 * Sets up a batch: no tensor given, no flags, no offset.
 *
 * Call it as `ols_batch_init(&batch, sizeof batch)`. Owns nothing: a batch needs no clean-up. Safe from any thread. On failure (`batch` is NULL,
 * or `struct_size` is no size of the struct) nothing is written.
 *
 * Requirements: `batch` is NULL or points to `struct_size` writable bytes.
 */
ols_status_t ols_batch_init(ols_batch_t *batch,
                            size_t struct_size);

/* ==== Life ==== */

/**
 * Creates a criterion and stores it in `*out`.
 *
 * The options are copied, with the class weights and the initial soft labels. Memory that `soft_labels`, `sums`, `counts` or `counters` name
 * stays the caller's and is used until `ols_destroy`. Release the criterion with `ols_destroy`. Safe from any thread. On failure `*out` and the
 * caller's memory are as before.
 *
 * Fails on options outside their ranges, on memory that overlaps, with `OLS_STATUS_UNSUPPORTED` for a device that this machine does not have, and
 * with `OLS_STATUS_OUT_OF_MEMORY`: a criterion of its own memory needs 12 K^2 bytes. Without the flag `OLS_OPTIONS_ADOPT_STATE` the state in the
 * caller's memory is set to that of a new criterion.
 *
 * Requirements: `options` is NULL or points to an initialised `ols_options_t` whose tensors name readable memory, and writable memory for the state; `out` is
 * NULL or points to a writable pointer, which need not be initialised.
 */
ols_status_t ols_create(const ols_options_t *options,
                        ols_criterion_t **out);

/**
 * Ends a criterion. NULL is fine.
 *
 * Frees what the library allocated, and waits for its device before; afterwards the handle and every view of its state are invalid, and the
 * caller's own state memory is the caller's alone again. No other call on the criterion may run or come. Any thread may destroy what another one
 * created. Cannot fail, and leaves the text of `ols_last_error` as it is.
 *
 * Requirements: `criterion` is NULL or came from `ols_create` and has not been destroyed.
 */
void ols_destroy(ols_criterion_t *criterion);

/* ==== Use ==== */

/**
 * The loss of a batch, its gradient with respect to the logits, and in training mode the statistics, in one pass over the logits.
 *
 * `loss` and `grad` may each be NULL; both NULL: statistics alone. They are written through; their memory, like that of the batch, stays the
 * caller's and is used until the call returns (on CUDA: until the enqueued work has run). Safe from any thread; calls on one criterion wait for
 * each other. On failure neither outputs nor state are touched.
 *
 * `loss`: f32 (f64 for f64 logits); one value (`ndim` 0, or shape (1)), or with `OLS_REDUCTION_NONE` the shape of the targets. `grad`: shape and
 * dtype of the logits, and it may be the logits themselves (same data, shape and strides), which then hold the gradient. No other overlap is
 * allowed: not with inputs, each other, or the state. In the notation of the manual above, with
 * `q[n,k] = alpha*w[y]*[k==y] + (1-alpha)*w[k]*S[y,k]` and `Q[n] = sum_k q[n,k]`,
 *
 *     loss[n]   = -sum_k q[n,k] * log p[n,k]
 *     grad[n,k] = Q[n]*p[n,k] - q[n,k]
 *
 * times the sample weight, the factor of the reduction, and for the gradient `grad_loss` (Zhang et al. 2021, equations 3 to 6). A sample that is
 * classified right (argmax of its logits is its target, the first index winning a tie) adds p to the statistics of its class.
 *
 * Errors: wrong dtypes, devices, shapes and strides; overlaps; weights that are negative or not finite; `lam` outside [0, 1];
 * `OLS_STATUS_TARGET_OUT_OF_RANGE`; `OLS_STATUS_INVALID_STATE` for taking back more than was added.
 *
 * Requirements: `criterion` is NULL or a live criterion; `batch` is NULL or points to an initialised `ols_batch_t`; `loss` and `grad` are NULL or point to
 * tensors; what the tensors name can be read, and that of `loss` and `grad` written, with nobody else using it meanwhile.
 */
ols_status_t ols_forward(ols_criterion_t *criterion,
                         const ols_batch_t *batch,
                         const ols_tensor_t *loss,
                         const ols_tensor_t *grad);

/**
 * The gradient of a batch alone, recomputed from its logits: bit for bit what `ols_forward` gives. No state is touched.
 *
 * `grad_loss` is the gradient of the whole with respect to the loss, as in the batch; NULL: the batch's own (or 1); given in both places is an
 * error. Ownership, threads, failure, dtypes, shapes and overlaps: as `ols_forward`; `grad` may be the logits themselves. The flag
 * `OLS_BATCH_TAKE_BACK` is an error here. Any number of forwards may lie between a forward and its backward, but S, alpha and the batch must be
 * the same for the gradients to agree: not across `ols_next_epoch`.
 *
 * Requirements: As `ols_forward`.
 */
ols_status_t ols_backward(ols_criterion_t *criterion,
                          const ols_batch_t *batch,
                          const ols_tensor_t *grad_loss,
                          const ols_tensor_t *grad);

/**
 * Adds to the statistics from given probabilities, for those who have them already: `batch->logits` holds p, entries in [0, 1].
 *
 * Obeys the mode, the flags, targets, weights and `lam` as `ols_forward` does: a sample counts when the largest of its probabilities is that of
 * its target. Ownership, threads, failure, dtypes and shapes: as `ols_forward`. A row with NaN or an infinity is skipped and counted as such. `grad_loss` in the
 * batch is an error.
 *
 * Requirements: As `ols_forward`.
 */
ols_status_t ols_accumulate(ols_criterion_t *criterion,
                            const ols_batch_t *batch);

/* ==== Statistics and the end of an epoch ==== */

/**
 * Writes views of the statistics of the running epoch to `*out`, in place: for an all-reduce by NCCL, Gloo or MPI.
 *
 * The memory is the criterion's, or the caller's own if `ols_create` was given some; the views hold until `ols_destroy`. It may be read and written
 * while no call on the criterion runs. Safe from any thread. On failure `*out` is as before. Set `out->struct_size` before.
 *
 * Requirements: `criterion` is NULL or a live criterion; `out` is NULL or points to a writable `ols_statistics_t` whose `struct_size` is set.
 */
ols_status_t ols_statistics(ols_criterion_t *criterion,
                            ols_statistics_t *out);

/**
 * Ends the epoch: makes the soft labels of the next one from the statistics, and clears these (Zhang et al. 2021, equations 4 and 5).
 *
 * A class with `min_count` samples or more gets the mean of their distributions; the others what `empty_class` says; `momentum` and `freeze_above` are
 * obeyed. If nothing at all was accumulated, S stays as it is, whatever the policy; the epoch's number advances all the same. What happened is
 * told by `ols_report`. S is written in place: views stay valid. `stream`: a `cudaStream_t` to enqueue on; the CPU does not look at it. Safe from
 * any thread. Works in both modes. On failure the state is as before.
 *
 * Requirements: `criterion` is NULL or a live criterion.
 */
ols_status_t ols_next_epoch(ols_criterion_t *criterion,
                            void *stream);

/**
 * Writes to `*out` what happened in the epoch that ended last, and so far in the running one.
 *
 * Owns nothing. `stream`: a `cudaStream_t`; on CUDA this is the one call of a training loop that may wait for a device. Safe from any thread. On failure `*out` is as
 * before. Set `out->struct_size` before.
 *
 * Requirements: `criterion` is NULL or a live criterion; `out` is NULL or points to a writable `ols_report_t` whose `struct_size` is set.
 */
ols_status_t ols_report(const ols_criterion_t *criterion,
                        void *stream,
                        ols_report_t *out);

/* ==== Soft labels ==== */

/**
 * Writes a view of the soft labels S to `*out`: f32 (K, K), a row per class, in place.
 *
 * The memory is the criterion's, or the caller's own if `ols_create` was given some; the view holds until `ols_destroy`, and always shows S as
 * it is. It may be read, and written, while no call on the criterion runs (values: finite and >= 0). Safe from any thread. On failure `*out` is
 * as before.
 *
 * Requirements: `criterion` is NULL or a live criterion; `out` is NULL or points to a writable `ols_tensor_t`.
 */
ols_status_t ols_soft_labels(ols_criterion_t *criterion,
                             ols_tensor_t *out);

/**
 * Replaces the soft labels S by `soft_labels`: f32 or f64 (K, K), finite and >= 0 as f32; rows need not sum to 1.
 *
 * The values are copied; the tensor stays the caller's and must not overlap S itself. `stream`: a `cudaStream_t` to enqueue on; the CPU does not
 * look at it. Safe from any thread; holds from the next call on. On failure S is as before.
 *
 * Requirements: `criterion` is NULL or a live criterion; `soft_labels` is NULL or points to a tensor whose memory can be read.
 */
ols_status_t ols_set_soft_labels(ols_criterion_t *criterion,
                                 const ols_tensor_t *soft_labels,
                                 void *stream);

/* ==== Settings ==== */

/**
 * Sets the mode, an `ols_mode_t`: whether forward passes add to the statistics.
 *
 * Owns nothing. Safe from any thread. On failure (another number) the mode is as before.
 *
 * Requirements: `criterion` is NULL or a live criterion.
 */
ols_status_t ols_set_mode(ols_criterion_t *criterion, int32_t mode);

/**
 * Writes the mode, an `ols_mode_t`, to `*out`.
 *
 * Owns nothing. Safe from any thread. On failure `*out` is as before.
 *
 * Requirements: `criterion` is NULL or a live criterion; `out` is NULL or points to a writable `int32_t`.
 */
ols_status_t ols_mode(const ols_criterion_t *criterion, int32_t *out);

/**
 * Sets the weight of the hard label, in [0, 1]: for schedules.
 *
 * Owns nothing. Safe from any thread; holds from the next call on. On failure (outside [0, 1], NaN) alpha is as before.
 *
 * Requirements: `criterion` is NULL or a live criterion.
 */
ols_status_t ols_set_alpha(ols_criterion_t *criterion, double alpha);

/**
 * Writes the number of epochs that have ended to `*out`; 0 at first.
 *
 * Owns nothing. Safe from any thread. On failure `*out` is as before.
 *
 * Requirements: `criterion` is NULL or a live criterion; `out` is NULL or points to a writable `int64_t`.
 */
ols_status_t ols_epoch(const ols_criterion_t *criterion, int64_t *out);

/**
 * Sets the number of epochs that have ended, for those who keep and restore a state themselves.
 *
 * Owns nothing. Safe from any thread. On failure (less than 0, or the largest number there is) the number is as before.
 *
 * Requirements: `criterion` is NULL or a live criterion.
 */
ols_status_t ols_set_epoch(ols_criterion_t *criterion, int64_t epoch);

/* ==== State ==== */

/**
 * Writes the state (S, statistics, counters, epoch) and the options that shape the result to the file `path`, in the safetensors format with a
 * checksum. Atomic: whatever happens, the name stands for the old file or for the whole new one.
 *
 * `path` is copied: bytes as the system takes them (UTF-8 on Windows), ending with 0. `stream`: a `cudaStream_t` whose work is waited for; the CPU
 * does not look at it. Safe from any thread. On failure (`OLS_STATUS_IO`, `OLS_STATUS_OUT_OF_MEMORY`) a file of that name is as before.
 * A limit on file sizes (`RLIMIT_FSIZE`) is such a failure where the program ignores `SIGXFSZ`; else the system ends the program.
 *
 * Requirements: `criterion` is NULL or a live criterion; `path` is NULL or a string.
 */
ols_status_t ols_save(const ols_criterion_t *criterion,
                      const char *path,
                      void *stream);

/**
 * Replaces the state, the epoch, and the options that shape the result (alpha, class weights, ignore index, policies, momentum, min_count,
 * freeze_above, initial soft labels) by what `ols_save` wrote to `path`. Mode, reduction, device and threads stay the criterion's. A criterion that
 * was saved and loaded goes on bit for bit as one that never stopped.
 *
 * State memory of the caller's is written in place; views of S and the statistics stay valid, those from `ols_get_options` do not. `stream`: a
 * `cudaStream_t`, whose work and the load's own are waited for; the CPU does not look at it. Safe from any thread. On failure the criterion is as before: `OLS_STATUS_IO`,
 * `OLS_STATUS_INVALID_FILE` for a truncated, damaged or foreign file, `OLS_STATUS_INVALID_ARGUMENT` for another number of classes,
 * `OLS_STATUS_OUT_OF_MEMORY`.
 *
 * Requirements: `criterion` is NULL or a live criterion; `path` is NULL or a string.
 */
ols_status_t ols_load(ols_criterion_t *criterion,
                      const char *path,
                      void *stream);

/**
 * Writes the bytes that `ols_save` would write to `buffer`, and how many they are to `*size`.
 *
 * Call it first with a NULL `buffer` and a `capacity` of 0 for the size alone, then with that much memory; no call on the criterion may lie between
 * the two. The buffer stays the caller's. `stream`: a `cudaStream_t` whose work is waited for; the CPU does not look at it. Safe from any thread. On
 * failure neither `*size` nor the buffer is touched; a `capacity` that is too small is `OLS_STATUS_INVALID_ARGUMENT`, and the message says the size.
 *
 * Requirements: `criterion` is NULL or a live criterion; `buffer` is NULL or points to `capacity` writable bytes; `size` is NULL or points to a writable `size_t`.
 */
ols_status_t ols_save_memory(const ols_criterion_t *criterion,
                             void *buffer,
                             size_t capacity,
                             void *stream,
                             size_t *size);

/**
 * As `ols_load`, from `size` bytes at `buffer`, which `ols_save_memory` or `ols_save` wrote.
 *
 * The buffer stays the caller's, is read until the call returns, and need not be aligned. All else as `ols_load`.
 *
 * Requirements: `criterion` is NULL or a live criterion; `buffer` is NULL or points to `size` readable bytes.
 */
ols_status_t ols_load_memory(ols_criterion_t *criterion, const void *buffer, size_t size, void *stream);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* OLS_H */
