/*
 * libols 0.1.0: Online Label Smoothing, a classification loss that learns its own soft labels
 * (C. Zhang et al., "Delving Deep into Label Smoothing", IEEE Transactions on Image Processing 30,
 * 2021).
 *
 * Cross entropy trains against one-hot targets, label smoothing against uniformly smoothed ones.
 * Here each class has a soft label of its own: the mean of the distributions that the model
 * predicted in the previous epoch for those samples of the class that it classified correctly. The
 * library computes the loss, its gradient and these statistics in one pass over the logits. The
 * network, the optimiser and all memory remain under the caller's control.
 *
 * Linking
 *     shared:  cc prog.c $(pkg-config --cflags --libs ols)
 *          or  cc prog.c -lols
 *     static:  cc prog.c libols.a -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc
 *          or  cc prog.c $(pkg-config --cflags --libs --static ols)
 *              if libols.so, which the linker prefers, is not installed
 * The header is plain C (C99 or later) and C++ (C++11 or later). Loading the library starts no
 * thread, opens no file and touches no device.
 *
 * Example
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
 *         if (ols_create(&options, &criterion) != OLS_STATUS_OK)
 *             return fprintf(stderr, "%s\n", ols_last_error()), 1;
 *
 *         ols_batch_t batch;
 *         ols_batch_init(&batch, sizeof batch);
 *         batch.logits = ols_tensor_2d(logits, OLS_DTYPE_F32, 2, 3);
 *         batch.targets = ols_tensor_1d(targets, OLS_DTYPE_U8, 2);
 *         ols_tensor_t to_loss = ols_tensor_0d(&loss, OLS_DTYPE_F32),
 *                      to_grad = ols_tensor_2d(grad, OLS_DTYPE_F32, 2, 3);
 *         if (ols_forward(criterion, &batch, &to_loss, &to_grad) != OLS_STATUS_OK)
 *             return fprintf(stderr, "%s\n", ols_last_error()), 1;
 *         printf("loss %.4f, gradient of the first sample %+.4f %+.4f %+.4f\n",
 *                loss, grad[0][0], grad[0][1], grad[0][2]);
 *
 *         ols_next_epoch(criterion, NULL); // once an epoch: the soft labels of the next one
 *         ols_destroy(criterion);
 *         return 0;
 *     }
 *
 * What is computed
 * For N samples and K classes, with logits z, targets y and p = softmax(z):
 *     q[n,k]    = alpha*w[y]*[k==y] + (1-alpha)*w[k]*S[y,k]
 *     loss[n]   = -sum_k q[n,k] * log p[n,k]
 *     grad[n,k] = (sum_k q[n,k])*p[n,k] - q[n,k]
 * S (K, K) holds the soft labels, one row per class; w (K) are the class weights and v (N) the
 * sample weights. alpha in [0, 1] is the weight of the hard label: 1 gives cross entropy, 0 gives
 * label smoothing in the first epoch. During an epoch A (K, K) accumulates p over the correctly
 * classified samples of each class and c (K) counts them; at its end ols_next_epoch computes
 *     S[j,:] = A[j,:] / sum(A[j,:])
 * A sample is ignored if one of its targets is the ignore index or if its weight is 0: its loss and
 * gradient are exactly 0, whatever its logits are, and it adds nothing to the statistics.
 *
 * Tensors
 * An ols_tensor_t is a view: an address, a device, a dtype, and up to three dimensions with strides
 * in elements (not bytes). Devices and dtypes use DLPack's numbers; ols_dlpack.h converts a
 * DLTensor. Addresses need only the alignment of an element. Tensors are read and written in place,
 * without copies. As a member of a struct, a tensor whose bytes are all 0 means "not given".
 *
 * Logits are f32, f64, f16 or bf16; targets are i64, i32 or u8. S is always f32. Arithmetic is in
 * f32, or in f64 for f64 logits. The loss is f32, or f64 for f64 logits; the gradient has the dtype
 * of the logits.
 *
 * Memory
 * The library owns the criterion that ols_create returns and the memory that it allocates for it,
 * including the memory behind the views that it hands out; everything else belongs to the caller.
 * No pointer passed to a call is kept after it returns, except for state memory given in
 * ols_options_t, which is used until ols_destroy. On CUDA, memory is in use until the work enqueued
 * by the call has completed. An output must not overlap an input, another output or the state (byte
 * ranges are compared), except that the gradient may be written in place of the logits.
 *
 * Errors
 * Functions that can fail return an ols_status_t. A failed call has no effect: no output is written
 * and no state is changed. ols_last_error() then describes the error with the name of the argument,
 * the rule and the value; the message is per thread, and empty after a successful call. All
 * pointers are checked for NULL. Invalid values, such as targets or weights, are detected before
 * anything is written. No panic or exception crosses the boundary; an internal error is reported as
 * OLS_STATUS_PANIC. Errors that cannot be detected, such as a dangling pointer or a handle that has
 * been destroyed, are undefined behaviour.
 *
 * Compatibility
 * ols_options_t, ols_batch_t and the output structs start with struct_size, and may grow at the end
 * in later releases. A program keeps working with a newer library, and with an older one as long as
 * the members unknown to that library are 0. Always initialise them: options and batches with their
 * _init functions, output structs as in ols_report_t report = {.struct_size = sizeof report}. At
 * most struct_size bytes of an output struct are written. Enums are passed as int32_t and checked;
 * unknown values and unknown flags are errors. Status numbers are permanent.
 *
 * Thread safety
 * All functions may be called from any thread. Calls on the same criterion are serialised;
 * different criteria share no state. Views of S and of the statistics are plain memory: do not
 * access them while another thread is in a call on their criterion. Worker threads are created for
 * the first batch that is large enough; if the system cannot provide any, the calling thread does
 * all the work.
 *
 * Determinism
 * A, c and the counters are integers (p in units of 2^-30). On one kind of device S is therefore
 * bitwise identical for any number of threads, any order or split of the batches, any number of
 * ranks and any all-reduce algorithm. The bits of a sample's loss and gradient do not depend on the
 * other samples of the batch (except through the factor of the mean), nor on alignment, strides,
 * memory layout, the number of threads or the instruction set. On x86-64 results do not depend on
 * the calling thread's rounding mode and flush-to-zero flags, which are restored before a call
 * returns; on other processors these must have their default values.
 *
 * Fork
 * After a fork, with no call in progress in another thread, parent and child may both continue to
 * use a criterion; each has its own copy. A CUDA criterion cannot be used in the child: calls that
 * need the device fail with OLS_STATUS_INVALID_STATE.
 *
 * Environment variables
 *     OLS_ISA        portable, avx2 or avx512: the highest instruction set level that is used (only
 *                    portable is accepted on processors other than x86-64)
 *     OLS_CUDA_PATH  plain or hopper: the kernels that are used on a CUDA device
 * Results are bitwise identical in each case. An empty value counts as unset; any other value makes
 * ols_create fail (of OLS_CUDA_PATH, for CUDA criteria only). There are no others.
 *
 * CUDA
 * A criterion whose device_type is OLS_DEVICE_CUDA works on tensors of that device. It requires
 * compute capability 7.5 or newer and a driver for CUDA 12.0 or newer; otherwise ols_create fails
 * with OLS_STATUS_UNSUPPORTED. The kernels have been run on an H200; the test suite runs them on a
 * stand-in for the driver that emulates the device on the CPU.
 *
 * Calls enqueue their work on the given stream, in the primary context of the device (the one used
 * by the CUDA runtime and by PyTorch); the caller's context is current again when a call returns.
 * ols_forward, ols_backward, ols_accumulate, ols_next_epoch and ols_set_soft_labels neither
 * synchronise nor allocate, and may be captured in a CUDA graph, which remains valid across epochs.
 * A graph contains what its calls received by value: alpha, mode, flags and options. Capture it
 * again after changing any of these, and after loading a state. Replaying a captured ols_next_epoch
 * updates the soft labels, but the epoch number advances only when the function itself is called;
 * use ols_set_epoch to correct it. The state stays at the same address until ols_destroy, which
 * must not be called before the last replay has completed. The caller must order calls on one
 * criterion that use different streams.
 *
 * ols_report, ols_save, ols_load and their _memory variants wait for the given stream (but for a
 * query of the size alone); if it is being captured they fail with OLS_STATUS_INVALID_STATE before
 * anything changes. ols_create and ols_destroy may be called while other streams are captured,
 * except that ols_create waits for the whole device, and invalidates such captures, if it is given
 * state memory.
 *
 * Values in device memory cannot be reported as errors of the call that uses them. Instead:
 *   - A target out of range has a loss and gradient of 0. It is counted by ols_forward and
 *     ols_accumulate, in both modes, but not with OLS_BATCH_NO_UPDATE or OLS_BATCH_TAKE_BACK.
 *   - A sample weight or lam that violates its rule makes the loss and gradient of its sample NaN,
 *     and with reduction mean those of the whole batch.
 *   - A row passed to ols_accumulate with entries outside [0, 1] is skipped, and counted as
 *     skipped.
 *   - A batch to be taken back that has more samples of a class than were added is not taken back
 *     at all; ols_report then fails for this epoch and throughout the next one.
 *   - Soft labels with an invalid entry are not applied, and the next ols_report fails.
 *
 * Generated from src/capi by: OLS_BLESS=1 cargo test --test header. Do not edit.
 */
#ifndef OLS_H
#define OLS_H

#include <stddef.h>
#include <stdint.h>

/** The version of this header; see `ols_version`. */
#define OLS_VERSION "0.1.0"
#define OLS_VERSION_MAJOR 0
#define OLS_VERSION_MINOR 1
#define OLS_VERSION_PATCH 0
/** The version as one number, for comparisons: `major*1000000 + minor*1000 + patch`. */
#define OLS_VERSION_NUMBER 1000

/** The ABI version of this header; see `ols_abi_version`. */
#define OLS_ABI_VERSION 0

/** `dtype_code` of signed integers. */
#define OLS_CODE_INT 0

/** `dtype_code` of unsigned integers. */
#define OLS_CODE_UINT 1

/** `dtype_code` of IEEE 754 floating-point numbers. */
#define OLS_CODE_FLOAT 2

/** `dtype_code` of bfloat16, the upper half of an IEEE 754 binary32. */
#define OLS_CODE_BFLOAT 4

/** Host memory. */
#define OLS_DEVICE_CPU 1

/** Memory of the CUDA device `device_id`. */
#define OLS_DEVICE_CUDA 2

/** Pinned host memory (`cudaMallocHost`); treated as host memory. */
#define OLS_DEVICE_CUDA_HOST 3

/** CUDA managed memory; not supported yet. */
#define OLS_DEVICE_CUDA_MANAGED 13

/**
 * Flag of `ols_options_t`: the memory given as `soft_labels`, `sums`, `counts` and `counters`
 * already holds a state, which is used as it is instead of being initialised.
 */
#define OLS_OPTIONS_ADOPT_STATE 1

/**
 * Flag of `ols_batch_t`: do not update the statistics, even in training mode. For a second pass
 * over a batch that has been counted already.
 */
#define OLS_BATCH_NO_UPDATE 1

/**
 * Flag of `ols_batch_t`: subtract a batch that was added earlier, exactly undoing its effect on the
 * statistics.
 *
 * Logits, targets, `targets2`, `lam` and `sample_weights` must be the same as when the batch was
 * added, so the logits must not have been overwritten by the gradient. Works in both modes. Cannot
 * be combined with `OLS_BATCH_NO_UPDATE`, nor with a gradient in place of the logits.
 */
#define OLS_BATCH_TAKE_BACK 2

/** Number of fraction bits of the sums A: they are integers in units of 2^-30. */
#define OLS_FRACTION_BITS 30

/** Number of counters; those without a name are 0. */
#define OLS_COUNTERS 4

/**
 * Index of the counter of rows that were skipped because they contain NaN or +inf, or are -inf
 * throughout.
 */
#define OLS_COUNTER_SKIPPED_NON_FINITE 0

/**
 * Index of the counter of targets that are neither a class nor the ignore index. Used on CUDA; on
 * the CPU such a target is an error, and nothing is counted.
 */
#define OLS_COUNTER_TARGETS_OUT_OF_RANGE 1

/**
 * Index of the counter of rows that could not be taken back. Used on CUDA; on the CPU this is an
 * error, and nothing is counted.
 */
#define OLS_COUNTER_TAKE_BACKS_REFUSED 2

/**
 * The result of a call. The numbers are permanent and never reused. New ones may be added: treat an
 * unknown status as a failure.
 */
enum ols_status_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** The call succeeded and all outputs have been written. */
    OLS_STATUS_OK = 0,
    /**
     * An argument is NULL, misaligned, not finite, out of range, or inconsistent with another
     * one.
     */
    OLS_STATUS_INVALID_ARGUMENT = 1,
    /** A tensor has a dtype that is not supported for this argument. */
    OLS_STATUS_INVALID_DTYPE = 2,
    /** A tensor has the wrong number of dimensions, a wrong size, or unusable strides. */
    OLS_STATUS_INVALID_SHAPE = 3,
    /** A tensor is on a different device from the criterion, or there is no such device. */
    OLS_STATUS_INVALID_DEVICE = 4,
    /** A target is neither a class nor the ignore index. */
    OLS_STATUS_TARGET_OUT_OF_RANGE = 5,
    /**
     * The call is not valid in the criterion's current state. After a panic, every call on the
     * criterion returns this status.
     */
    OLS_STATUS_INVALID_STATE = 6,
    /** This build or this machine does not support the request. */
    OLS_STATUS_UNSUPPORTED = 7,
    /** Memory could not be allocated. */
    OLS_STATUS_OUT_OF_MEMORY = 8,
    /** The operating system could not read or write a file. */
    OLS_STATUS_IO = 9,
    /** The data is not a saved state, or is truncated or corrupted. */
    OLS_STATUS_INVALID_FILE = 10,
    /** CUDA reported an error. */
    OLS_STATUS_CUDA = 11,
    /**
     * An internal error (a bug in libols). The criterion then rejects every call except
     * `ols_destroy`.
     */
    OLS_STATUS_PANIC = 255,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ols_status_t ols_status_t;
#else
typedef int32_t ols_status_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Element types, for the `dtype` argument of `ols_tensor_0d` to `ols_tensor_3d`. The value is
 * `dtype_code | dtype_bits << 8`.
 */
enum ols_dtype_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** IEEE 754 binary32: `float`. */
    OLS_DTYPE_F32 = 8194,
    /** IEEE 754 binary64: `double`. */
    OLS_DTYPE_F64 = 16386,
    /** IEEE 754 binary16. */
    OLS_DTYPE_F16 = 4098,
    /** bfloat16: the upper half of an IEEE 754 binary32. */
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

/** How the soft labels of the first epoch are initialised. */
enum ols_initial_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** `1 - smoothing` for the class itself, `smoothing / (K - 1)` for every other class. */
    OLS_INITIAL_SMOOTHING = 0,
    /** 1/K for every class. */
    OLS_INITIAL_UNIFORM = 1,
    /** 0 for every class. */
    OLS_INITIAL_ZERO = 2,
    /** 1 for the class itself, 0 for every other class. */
    OLS_INITIAL_ONE_HOT = 3,
    /** The matrix `initial_soft_labels`. */
    OLS_INITIAL_MATRIX = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ols_initial_t ols_initial_t;
#else
typedef int32_t ols_initial_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** Which soft label a class gets at the end of an epoch in which it was not measured. */
enum ols_empty_class_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** The class keeps its current row. */
    OLS_EMPTY_CLASS_KEEP = 0,
    /** 1/K for every class, as in the authors' code. */
    OLS_EMPTY_CLASS_UNIFORM = 1,
    /** The row that the class had in the first epoch. */
    OLS_EMPTY_CLASS_INITIAL = 2,
    /** 1 for the class itself, 0 for every other class. */
    OLS_EMPTY_CLASS_ONE_HOT = 3,
    /**
     * 0 for every class, as in the PyTorch package: the class then trains on its hard label
     * alone.
     */
    OLS_EMPTY_CLASS_ZERO = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ols_empty_class_t ols_empty_class_t;
#else
typedef int32_t ols_empty_class_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** How the losses of a batch are reduced. `v` are the sample weights, `w` the class weights. */
enum ols_reduction_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** No reduction: `v*loss` for each sample. */
    OLS_REDUCTION_NONE = 0,
    /**
     * `sum v*loss / sum v*w[y]` over all samples that are not ignored, as in PyTorch's cross
     * entropy; 0 if the divisor is 0. With two targets `w[y]` is replaced by `lam*w[y] +
     * (1-lam)*w[y2]`.
     */
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

/** Whether forward passes update the statistics. */
enum ols_mode_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /** Forward passes add the predictions of correctly classified samples to the statistics. */
    OLS_MODE_TRAIN = 0,
    /** Forward passes change no state. */
    OLS_MODE_EVAL = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ols_mode_t ols_mode_t;
#else
typedef int32_t ols_mode_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/** Sets of options that reproduce other implementations. */
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
 * A criterion: the loss function together with the soft labels that it learns. Opaque; created by
 * `ols_create` and destroyed by `ols_destroy`.
 *
 * A criterion may be used from any thread. Calls on the same criterion are serialised; different
 * criteria share no state.
 */
typedef struct ols_criterion_t ols_criterion_t;

/**
 * A non-owning view of up to three dimensions. `ols_tensor_0d` to `ols_tensor_3d` create views of
 * row-major host memory; `ols_dlpack.h` creates one from a `DLTensor`.
 *
 * The layout of this struct is frozen: unlike the other structs, it never grows. As a member of
 * another struct, a tensor whose bytes are all 0 means "not given".
 */
typedef struct ols_tensor_t {
    /**
     * Address of the element whose indices are all 0, aligned to the size of an element. May be
     * NULL only if the tensor is empty (some size is 0).
     */
    void *data;
    /** Where the memory is: one of the `OLS_DEVICE_` constants (DLPack's numbers). */
    int32_t device_type;
    /** Index of the CUDA device; ignored for host memory. */
    int32_t device_id;
    /** Kind of element: one of the `OLS_CODE_` constants (DLPack's numbers). */
    uint8_t dtype_code;
    /** Bits per element: 8, 16, 32 or 64. */
    uint8_t dtype_bits;
    /** Must be 1. */
    uint16_t dtype_lanes;
    /** Number of dimensions, 0 to 3. A tensor with 0 dimensions is a single value. */
    int32_t ndim;
    /** Sizes of the first `ndim` dimensions, each >= 0; the remaining entries are ignored. */
    int64_t shape[3];
    /**
     * Strides of the first `ndim` dimensions in elements (not bytes); the remaining entries are
     * ignored. Strides may be negative. A stride of 0 repeats an element and is allowed for inputs
     * only.
     */
    int64_t strides[3];
    /** Must be 0. */
    uint64_t reserved;
} ols_tensor_t;

/**
 * The options of a criterion. Initialise the struct with `ols_options_init`, set `num_classes`,
 * then change whatever should differ from the defaults.
 *
 * The state of a criterion may be kept in memory of the caller, given as `soft_labels`, `sums`,
 * `counts` and `counters`; the library allocates whatever is not given. Rows must be contiguous,
 * but may be more than K elements apart, and the blocks must not overlap. The caller may read and
 * modify this memory between calls. This serves three purposes: state in the tensors of a
 * framework, which then saves and transfers them itself; state in memory shared between processes;
 * state that outlives its criterion.
 */
typedef struct ols_options_t {
    /** Size of this struct in bytes: `sizeof(ols_options_t)`. */
    size_t struct_size;
    /** Number of classes K, at least 2. Must be set; there is no default. */
    int64_t num_classes;
    /**
     * Weight of the hard label, in [0, 1]; the soft label has the weight `1 - alpha`. Default:
     * 0.5.
     */
    double alpha;
    /** Smoothing of `OLS_INITIAL_SMOOTHING`, in [0, 1]. Default: 0.1. */
    double smoothing;
    /** Fraction of the old soft label that is kept in the new one, in [0, 1). Default: 0. */
    double momentum;
    /**
     * Threshold, greater than 0: a class whose largest soft label is at least this value keeps its
     * row from then on. Default: INFINITY, that is, never. Note that the default initialisation
     * puts 0.9 on the diagonal, so that 0.88 would freeze every class from the start.
     */
    double freeze_above;
    /**
     * Number of samples per epoch from which on a class counts as measured, at least 1.
     * Default: 1.
     */
    int64_t min_count;
    /** Samples with this target are ignored. Default: -100. */
    int64_t ignore_index;
    /** Initial soft labels: an `ols_initial_t`. Default: `OLS_INITIAL_SMOOTHING`. */
    int32_t initial;
    /**
     * Policy for classes that were not measured: an `ols_empty_class_t`. Default:
     * `OLS_EMPTY_CLASS_KEEP`.
     */
    int32_t empty_class;
    /** Reduction of the loss: an `ols_reduction_t`. Default: `OLS_REDUCTION_MEAN`. */
    int32_t reduction;
    /** Initial mode: an `ols_mode_t`. Default: `OLS_MODE_TRAIN`. */
    int32_t mode;
    /** Device of the criterion: `OLS_DEVICE_CPU` (default) or `OLS_DEVICE_CUDA`. */
    int32_t device_type;
    /** Index of the CUDA device; ignored on the CPU. Default: 0. */
    int32_t device_id;
    /**
     * Maximum number of threads that a call uses, including the calling one. 0 means as many as the
     * process may run on. Results do not depend on it. Default: 0. Threads are created for the
     * first batch that is large enough, sleep between calls, and end with the criterion.
     */
    int32_t n_threads;
    /** 0 or `OLS_OPTIONS_ADOPT_STATE`. */
    uint32_t flags;
    /**
     * Class weights w: f32 or f64 of shape (K), finite and >= 0, in host memory; copied. Optional;
     * the default is 1 for every class.
     */
    ols_tensor_t class_weights;
    /**
     * Initial soft labels: f32 or f64 of shape (K, K), one row per class, finite and >= 0 as f32,
     * in host memory; copied. To be given with `OLS_INITIAL_MATRIX`, and only then.
     */
    ols_tensor_t initial_soft_labels;
    /** Memory for the soft labels S: f32 of shape (K, K). Optional. */
    ols_tensor_t soft_labels;
    /** Memory for the sums A: i64 of shape (K, K). Optional. */
    ols_tensor_t sums;
    /** Memory for the counts c: i64 of shape (K). Optional. */
    ols_tensor_t counts;
    /** Memory for the counters: i64 of shape (`OLS_COUNTERS`). Optional. */
    ols_tensor_t counters;
} ols_options_t;

/**
 * A batch of N samples, or of N x inner samples such as the pixels of N images. Initialise the
 * struct with `ols_batch_init`, then set `logits`, `targets` and any optional members.
 *
 * The struct itself is copied by the call. The memory that its tensors refer to is used until the
 * call returns (on CUDA: until the enqueued work has completed).
 */
typedef struct ols_batch_t {
    /** Size of this struct in bytes: `sizeof(ols_batch_t)`. */
    size_t struct_size;
    /**
     * Logits z: f32, f64, f16 or bf16 of shape (N, K) or (N, K, inner), with any strides; data of
     * shape (N, inner, K) is described by permuting the strides. A row that contains NaN or +inf,
     * or that is -inf throughout, has a NaN loss and gradient and adds nothing to the statistics.
     * An entry of -inf in any other row masks its class.
     */
    ols_tensor_t logits;
    /**
     * Targets y: i64, i32 or u8 of shape (N) or (N, inner). Each is in [target_offset,
     * target_offset + K) or equal to the ignore index.
     */
    ols_tensor_t targets;
    /**
     * Sample weights v: f32 or f64, of the shape of the targets, finite and >= 0. A sample of
     * weight 0 is ignored. Optional; the default is 1 for every sample.
     */
    ols_tensor_t sample_weights;
    /**
     * Second targets y2, for Mixup and CutMix: as `targets`. The target distribution is then
     * `lam*q(y) + (1-lam)*q(y2)`. Optional; requires `lam`.
     */
    ols_tensor_t targets2;
    /**
     * Weight of the first target, in [0, 1]: f32 or f64, of the shape of the targets or a single
     * value for all samples (`ndim` 0 or shape (1)). Required with `targets2`, and not allowed
     * without it.
     */
    ols_tensor_t lam;
    /**
     * Upstream gradient, by which the gradient is multiplied: f32 or f64, a single value (`ndim` 0
     * or shape (1)) or, with `OLS_REDUCTION_NONE`, of the shape of the targets. Optional; the
     * default is 1. A loss scale belongs here, because it is applied before a 16-bit gradient is
     * rounded.
     */
    ols_tensor_t grad_loss;
    /**
     * Value of the first class: the class is `target - target_offset`, so use 1 for one-based
     * labels. The ignore index is compared with the target as given. Default: 0.
     */
    int64_t target_offset;
    /** The `cudaStream_t` on which the work is enqueued. Ignored on the CPU. */
    void *stream;
    /** 0, `OLS_BATCH_NO_UPDATE` or `OLS_BATCH_TAKE_BACK`. */
    uint32_t flags;
    /** Must be 0. */
    uint32_t reserved;
} ols_batch_t;

/**
 * Views of the statistics of the current epoch, as returned by `ols_statistics`.
 *
 * All values are integers, so that sums over threads, batches and ranks are exact in any order: a
 * sum all-reduce of the three tensors before `ols_next_epoch` gives every rank bitwise identical
 * soft labels.
 */
typedef struct ols_statistics_t {
    /** Size of this struct in bytes: `sizeof(ols_statistics_t)`. */
    size_t struct_size;
    /** Sums A: i64 of shape (K, K), one row per class; summed probabilities in units of 2^-30. */
    ols_tensor_t sums;
    /**
     * Counts c: i64 of shape (K); number of samples in each row of A. A class with 2^32 samples is
     * full and accepts no more.
     */
    ols_tensor_t counts;
    /** Counters: i64 of shape (`OLS_COUNTERS`), indexed by the `OLS_COUNTER_` constants. */
    ols_tensor_t counters;
} ols_statistics_t;

/**
 * A summary of the last completed epoch and of the current one, as returned by `ols_report`.
 * `rows_measured` and the other `rows_` members add up to K.
 */
typedef struct ols_report_t {
    /** Size of this struct in bytes: `sizeof(ols_report_t)`. */
    size_t struct_size;
    /**
     * Number of the last completed epoch, counted from 1. It is 0, like all other members for the
     * completed epoch, if no epoch has ended since the criterion was created or a state was loaded.
     */
    int64_t epoch;
    /** Number of classes whose new soft label was measured. */
    int64_t rows_measured;
    /**
     * Number of classes that kept their row: by `OLS_EMPTY_CLASS_KEEP`, or because nothing at all
     * was accumulated.
     */
    int64_t rows_kept;
    /** Number of classes that got a uniform row by `OLS_EMPTY_CLASS_UNIFORM`. */
    int64_t rows_uniform;
    /** Number of classes that got their initial row back by `OLS_EMPTY_CLASS_INITIAL`. */
    int64_t rows_initial;
    /** Number of classes that got a one-hot row by `OLS_EMPTY_CLASS_ONE_HOT`. */
    int64_t rows_one_hot;
    /** Number of classes that got a row of zeros by `OLS_EMPTY_CLASS_ZERO`. */
    int64_t rows_zero;
    /** Number of classes that kept their row because of `freeze_above`. */
    int64_t rows_frozen;
    /** Number of samples that were accumulated, that is, classified correctly. */
    int64_t samples_accumulated;
    /**
     * Number of samples that were skipped because their logits contain NaN or +inf, or are -inf
     * throughout.
     */
    int64_t samples_skipped;
    /** Number of classes that were full and accepted no more samples. */
    int64_t classes_full;
    /**
     * Number of targets that were neither a class nor the ignore index (CUDA only; an error on the
     * CPU).
     */
    int64_t targets_out_of_range;
    /** Number of the current epoch, counted from 1. */
    int64_t running_epoch;
    /** Number of samples accumulated so far in the current epoch. */
    int64_t running_samples_accumulated;
    /** Number of samples skipped so far in the current epoch. */
    int64_t running_samples_skipped;
    /** Number of classes that are full. */
    int64_t running_classes_full;
    /** Number of targets so far that were neither a class nor the ignore index (CUDA only). */
    int64_t running_targets_out_of_range;
} ols_report_t;

#if defined(__cplusplus) && defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast"
#endif

/**
 * Creates a view of a single value in host memory, with 0 dimensions.
 *
 * `dtype` is an `ols_dtype_t`, here and below. A view owns nothing. These functions are safe to
 * call from any thread and cannot fail: an invalid view is detected by the call that uses it.
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
 * Creates a view of a row-major array of three dimensions in host memory: element [i][j][k] is at
 * index (i*size1 + j)*size2 + k.
 */
static inline ols_tensor_t ols_tensor_3d(const void *data, int32_t dtype, int64_t size0,
                                         int64_t size1, int64_t size2) {
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
 * Creates a view of a row-major matrix in host memory: element [i][j] is at index i*size1 + j.
 */
static inline ols_tensor_t ols_tensor_2d(const void *data, int32_t dtype, int64_t size0,
                                         int64_t size1) {
    ols_tensor_t tensor = ols_tensor_3d(data, dtype, size0, size1, 1);
    tensor.ndim = 2;
    return tensor;
}

/**
 * Creates a view of `size0` contiguous values in host memory.
 */
static inline ols_tensor_t ols_tensor_1d(const void *data, int32_t dtype, int64_t size0) {
    ols_tensor_t tensor = ols_tensor_3d(data, dtype, size0, 1, 1);
    tensor.ndim = 1;
    return tensor;
}

#if defined(__cplusplus) && defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/* ==== Versions ==== */

/**
 * Returns the version of the loaded library, such as "0.1.0". Compare it with `OLS_VERSION`, the
 * version of this header.
 *
 * The string is constant, never NULL, and valid for as long as the library is loaded. Safe to call
 * from any thread. Cannot fail.
 */
const char *ols_version(void);

/**
 * Returns the ABI version of the loaded library. A program may use any library whose ABI version
 * equals its own `OLS_ABI_VERSION`.
 *
 * The value 0 denotes the releases before 1.0, whose ABI may change with each minor version; for
 * those, compare `ols_version` as well, and the SONAME has both numbers (`libols.so.0.1`). From 1.0
 * on, the ABI version is the number in the SONAME. Within one ABI version, functions, constants and
 * fields at the end of structs may be added; nothing is changed or removed. Safe to call from any
 * thread. Cannot fail.
 */
uint32_t ols_abi_version(void);

/* ==== Errors ==== */

/**
 * Returns the name of a status: "INVALID_SHAPE" for `OLS_STATUS_INVALID_SHAPE`, or "UNKNOWN" for a
 * number that this library does not define.
 *
 * The string is constant, never NULL, and valid for as long as the library is loaded. Safe to call
 * from any thread. Cannot fail, and does not change the text of `ols_last_error`.
 */
const char *ols_status_string(int32_t status);

/**
 * Returns the error message of the calling thread's most recent call that returns a status, or an
 * empty string if that call succeeded.
 *
 * The message is in English and names the function, the argument, the rule and the value, for
 * example `ols_forward: target[17] = 1003 is outside [0, 1000) and is not ignore_index (-100)`.
 *
 * The string is owned by the library, is never NULL, and holds at most 1023 bytes of UTF-8. It is
 * valid until the same thread makes another call that returns a status, or exits: copy it to keep
 * it. Each thread has its own message. Cannot fail.
 */
const char *ols_last_error(void);

/* ==== Options ==== */

/**
 * Initialises options with their default values. `num_classes` is set to 0 and must be filled in.
 *
 * Call it as `ols_options_init(&options, sizeof options)`. Options own no memory and need no
 * cleanup. Safe to call from any thread. On failure (`options` is NULL, or `struct_size` is not a
 * size that this struct can have) nothing is written.
 *
 * Requirements: `options` is NULL or points to `struct_size` writable bytes.
 */
ols_status_t ols_options_init(ols_options_t *options, size_t struct_size);

/**
 * Applies a preset, an `ols_preset_t`: sets `initial`, `smoothing` and `empty_class`, and leaves
 * all other options unchanged.
 *
 * No ownership is transferred. Safe to call from any thread. On failure `*options` is unchanged.
 *
 * Requirements: `options` is NULL or points to a writable, initialised `ols_options_t`.
 */
ols_status_t ols_options_preset(ols_options_t *options, int32_t preset);

/**
 * Retrieves the current options of a criterion, including changes made by `ols_set_alpha`,
 * `ols_set_mode` and by loading a state.
 *
 * `class_weights` (f64) and `initial_soft_labels` (f32) are read-only views of the criterion's own
 * copies; they are valid until a state is loaded into the criterion or it is destroyed. The tensors
 * of the state and `flags` are left empty, so that `*out` can be passed to `ols_create` to create
 * another criterion with a state of its own. Safe to call from any thread. On failure `*out` is
 * unchanged. Set `out->struct_size` before the call.
 *
 * Requirements: `criterion` is NULL or a live criterion; `out` is NULL or points to a writable
 * `ols_options_t` whose `struct_size` is set.
 */
ols_status_t ols_get_options(const ols_criterion_t *criterion, ols_options_t *out);

/* ==== Batches ==== */

/**
 * Initialises a batch: no tensors, no flags, an offset of 0.
 *
 * Call it as `ols_batch_init(&batch, sizeof batch)`. A batch owns no memory and needs no cleanup.
 * Safe to call from any thread. On failure (`batch` is NULL, or `struct_size` is not a size that
 * this struct can have) nothing is written.
 *
 * Requirements: `batch` is NULL or points to `struct_size` writable bytes.
 */
ols_status_t ols_batch_init(ols_batch_t *batch, size_t struct_size);

/* ==== Creating and destroying ==== */

/**
 * Creates a criterion and stores its handle in `*out`.
 *
 * The options are copied, including the class weights and the initial soft labels. Memory given as
 * `soft_labels`, `sums`, `counts` or `counters` remains the property of the caller and is used
 * until `ols_destroy`; it is initialised to the state of a new criterion unless
 * `OLS_OPTIONS_ADOPT_STATE` is set. Destroy the criterion with `ols_destroy`. Safe to call from any
 * thread. On failure `*out` and the caller's memory are unchanged.
 *
 * Fails if an option is out of range or if memory overlaps; with `OLS_STATUS_UNSUPPORTED` if the
 * device is not available on this machine; and with `OLS_STATUS_OUT_OF_MEMORY`: a criterion that
 * owns its state needs 12 K^2 bytes.
 *
 * Requirements: `options` is NULL or points to an initialised `ols_options_t` whose tensors refer
 * to readable memory, and to writable memory for the state; `out` is NULL or points to a writable
 * pointer, which need not be initialised.
 */
ols_status_t ols_create(const ols_options_t *options, ols_criterion_t **out);

/**
 * Destroys a criterion. Passing NULL is a no-op.
 *
 * Waits for outstanding work on the criterion's device, then frees everything that the library
 * allocated for it. The handle and all views of its state become invalid; state memory given by the
 * caller is not freed and is no longer used. No other call on the criterion may be in progress or
 * follow. May be called from any thread, not only the one that created the criterion. Cannot fail,
 * and does not change the text of `ols_last_error`.
 *
 * Requirements: `criterion` is NULL or came from `ols_create` and has not been destroyed.
 */
void ols_destroy(ols_criterion_t *criterion);

/* ==== Loss and gradient ==== */

/**
 * Computes the loss of a batch and its gradient with respect to the logits and, in training mode,
 * updates the statistics, all in one pass over the logits.
 *
 * `loss` and `grad` describe the outputs. Each may be NULL if it is not wanted; if both are NULL,
 * only the statistics are updated. The memory of outputs and batch remains the property of the
 * caller and is used until the call returns (on CUDA: until the enqueued work has completed). Safe
 * to call from any thread; calls on the same criterion are serialised. On failure outputs and state
 * are unchanged.
 *
 * `loss` is f32 (f64 for f64 logits): a single value (`ndim` 0 or shape (1)) or, with
 * `OLS_REDUCTION_NONE`, of the shape of the targets. `grad` has the shape and dtype of the logits.
 * It may be the logits themselves (same data, shape and strides), which are then overwritten by the
 * gradient. No other overlap with inputs, state or another output is allowed. With `q` and `p` as
 * defined under "What is computed" and `Q[n] = sum_k q[n,k]`,
 *
 *     loss[n]   = -sum_k q[n,k] * log p[n,k]
 *     grad[n,k] = Q[n]*p[n,k] - q[n,k]
 *
 * each multiplied by the sample weight and by the factor of the reduction, and the gradient also by
 * `grad_loss` (Zhang et al. 2021, equations 3 to 6). A sample is classified correctly if the argmax
 * of its logits is its target; the first index wins a tie. With two targets, the one of larger
 * weight counts (the first if `lam` is 0.5). Such a sample adds p to the sums of its class.
 *
 * Fails on wrong dtypes, devices, shapes and strides; on overlapping memory; on weights that are
 * negative or not finite; on `lam` outside [0, 1]; with `OLS_STATUS_TARGET_OUT_OF_RANGE`; and with
 * `OLS_STATUS_INVALID_STATE` if a batch to be taken back has more samples of a class than were
 * added.
 *
 * Requirements: `criterion` is NULL or a live criterion; `batch` is NULL or points to an
 * initialised `ols_batch_t`; `loss` and `grad` are NULL or point to tensors. All memory that the
 * tensors refer to is readable, that of `loss` and `grad` is writable, and nothing else uses it
 * during the call.
 */
ols_status_t ols_forward(ols_criterion_t *criterion,
                         const ols_batch_t *batch,
                         const ols_tensor_t *loss,
                         const ols_tensor_t *grad);

/**
 * Computes only the gradient of a batch, from its logits. The result is bitwise identical to that
 * of `ols_forward`. No state is changed.
 *
 * `grad_loss` is the upstream gradient, as in the batch. If it is NULL, the one in the batch is
 * used, or 1; it is an error to give both. `grad` may be the logits themselves. The flag
 * `OLS_BATCH_TAKE_BACK` is an error here. Ownership, threads, failure, dtypes, shapes and overlaps
 * are as for `ols_forward`.
 *
 * Any number of forward passes may come between a forward pass and its backward pass. The gradients
 * agree as long as S, alpha and the batch are the same, so `ols_next_epoch` must not come between
 * them.
 *
 * Requirements: As for `ols_forward`.
 */
ols_status_t ols_backward(ols_criterion_t *criterion,
                          const ols_batch_t *batch,
                          const ols_tensor_t *grad_loss,
                          const ols_tensor_t *grad);

/**
 * Updates the statistics from probabilities that the caller has computed already: `batch->logits`
 * holds p, with entries in [0, 1].
 *
 * The mode, the flags, targets, weights and `lam` have the same effect as in `ols_forward`; a
 * sample is classified correctly if its largest probability is that of its target. A row that
 * contains NaN or an infinity is skipped and counted as such; in any other row an entry outside [0,
 * 1] is an error. It is an error to set `grad_loss` in the batch. Ownership, threads, failure,
 * dtypes and shapes are as for `ols_forward`.
 *
 * Requirements: As for `ols_forward`.
 */
ols_status_t ols_accumulate(ols_criterion_t *criterion, const ols_batch_t *batch);

/* ==== Statistics and epochs ==== */

/**
 * Retrieves views of the statistics of the current epoch, in place, for an all-reduce by NCCL, Gloo
 * or MPI.
 *
 * The memory belongs to the criterion, or to the caller if it was given to `ols_create`; the views
 * are valid until `ols_destroy`. It may be read and written while no call on the criterion is in
 * progress. Safe to call from any thread. On failure `*out` is unchanged. Set `out->struct_size`
 * before the call.
 *
 * Requirements: `criterion` is NULL or a live criterion; `out` is NULL or points to a writable
 * `ols_statistics_t` whose `struct_size` is set.
 */
ols_status_t ols_statistics(ols_criterion_t *criterion, ols_statistics_t *out);

/**
 * Ends the epoch: computes the soft labels of the next epoch from the statistics, then resets the
 * statistics (Zhang et al. 2021, equations 4 and 5).
 *
 * A class with at least `min_count` samples gets the mean of their predictions; the others are
 * handled according to `empty_class`. `momentum` and `freeze_above` apply. If nothing at all was
 * accumulated, S is unchanged, whatever the policy; the epoch number advances in any case.
 * `ols_report` returns a summary. Works in both modes.
 *
 * S is updated in place, so that views of it remain valid. `stream` is the `cudaStream_t` on which
 * the work is enqueued; ignored on the CPU. Safe to call from any thread. On failure the state is
 * unchanged.
 *
 * Requirements: `criterion` is NULL or a live criterion.
 */
ols_status_t ols_next_epoch(ols_criterion_t *criterion, void *stream);

/**
 * Retrieves a summary of the last completed epoch, and of the current epoch so far.
 *
 * `*out` refers to no other memory. `stream` is a `cudaStream_t`; ignored on the CPU. On CUDA this
 * is the only call of a training loop that may wait for the device. Safe to call from any thread.
 * On failure `*out` is unchanged. Set `out->struct_size` before the call.
 *
 * Requirements: `criterion` is NULL or a live criterion; `out` is NULL or points to a writable
 * `ols_report_t` whose `struct_size` is set.
 */
ols_status_t ols_report(const ols_criterion_t *criterion,
                        void *stream,
                        ols_report_t *out);

/* ==== Soft labels ==== */

/**
 * Retrieves a view of the soft labels S, in place: f32 of shape (K, K), one row per class.
 *
 * The memory belongs to the criterion, or to the caller if it was given to `ols_create`; the view
 * is valid until `ols_destroy` and always shows the current S. It may be read and written while no
 * call on the criterion is in progress; values must be finite and >= 0. Safe to call from any
 * thread. On failure `*out` is unchanged.
 *
 * Requirements: `criterion` is NULL or a live criterion; `out` is NULL or points to a writable
 * `ols_tensor_t`.
 */
ols_status_t ols_soft_labels(ols_criterion_t *criterion, ols_tensor_t *out);

/**
 * Replaces the soft labels S by `soft_labels`: f32 or f64 of shape (K, K), finite and >= 0 as f32.
 * Rows need not sum to 1.
 *
 * The values are copied. The tensor remains the property of the caller and must not overlap S
 * itself. `stream` is the `cudaStream_t` on which the work is enqueued; ignored on the CPU. Safe to
 * call from any thread; takes effect with the next call. On failure S is unchanged.
 *
 * Requirements: `criterion` is NULL or a live criterion; `soft_labels` is NULL or points to a
 * tensor whose memory can be read.
 */
ols_status_t ols_set_soft_labels(ols_criterion_t *criterion,
                                 const ols_tensor_t *soft_labels,
                                 void *stream);

/* ==== Mode, alpha and epoch number ==== */

/**
 * Sets the mode, an `ols_mode_t`, which determines whether forward passes update the statistics.
 *
 * No ownership is transferred. Safe to call from any thread. On failure (not an `ols_mode_t`) the
 * mode is unchanged.
 *
 * Requirements: `criterion` is NULL or a live criterion.
 */
ols_status_t ols_set_mode(ols_criterion_t *criterion, int32_t mode);

/**
 * Retrieves the mode, an `ols_mode_t`.
 *
 * No ownership is transferred. Safe to call from any thread. On failure `*out` is unchanged.
 *
 * Requirements: `criterion` is NULL or a live criterion; `out` is NULL or points to a writable
 * `int32_t`.
 */
ols_status_t ols_mode(const ols_criterion_t *criterion, int32_t *out);

/**
 * Sets alpha, the weight of the hard label, in [0, 1], for example to follow a schedule.
 *
 * No ownership is transferred. Safe to call from any thread; takes effect with the next call. On
 * failure (NaN, or outside [0, 1]) alpha is unchanged.
 *
 * Requirements: `criterion` is NULL or a live criterion.
 */
ols_status_t ols_set_alpha(ols_criterion_t *criterion, double alpha);

/**
 * Retrieves the number of completed epochs; initially 0.
 *
 * No ownership is transferred. Safe to call from any thread. On failure `*out` is unchanged.
 *
 * Requirements: `criterion` is NULL or a live criterion; `out` is NULL or points to a writable
 * `int64_t`.
 */
ols_status_t ols_epoch(const ols_criterion_t *criterion, int64_t *out);

/**
 * Sets the number of completed epochs, for callers that save and restore the state themselves.
 *
 * No ownership is transferred. Safe to call from any thread. On failure (negative, or INT64_MAX)
 * the number is unchanged.
 *
 * Requirements: `criterion` is NULL or a live criterion.
 */
ols_status_t ols_set_epoch(ols_criterion_t *criterion, int64_t epoch);

/* ==== Saving and loading ==== */

/**
 * Saves a criterion to the file `path`: the state (S, statistics, counters, epoch) and the options
 * that affect the results.
 *
 * The file is in the safetensors format, with a checksum. Saving is atomic: at any moment, even
 * after a crash, `path` names either the old file or the complete new one.
 *
 * `path` is a null-terminated string in the encoding of the operating system (UTF-8 on Windows); it
 * is not used after the call returns. `stream` is the `cudaStream_t` to synchronise with; ignored
 * on the CPU. Safe to call from any thread. On failure an existing file is unchanged:
 * `OLS_STATUS_IO`; `OLS_STATUS_OUT_OF_MEMORY`; `OLS_STATUS_INVALID_STATE` if the file could not be
 * loaded, for example because of negative sums after a batch was taken back that had not been
 * added. Exceeding the file size limit (`RLIMIT_FSIZE`) is such a failure only if the program
 * ignores `SIGXFSZ`; otherwise that signal terminates the program.
 *
 * Requirements: `criterion` is NULL or a live criterion; `path` is NULL or a string.
 */
ols_status_t ols_save(const ols_criterion_t *criterion, const char *path, void *stream);

/**
 * Restores a criterion from the file `path`, written by `ols_save`. A criterion that is saved and
 * loaded continues bitwise identically to one that was never interrupted.
 *
 * Replaces the state, the epoch, and the options that affect the results: alpha, class weights,
 * ignore index, policies, momentum, min_count, freeze_above and initial soft labels. Mode,
 * reduction, device and number of threads are not changed.
 *
 * State memory given by the caller is written in place. Views of S and of the statistics remain
 * valid; those obtained from `ols_get_options` do not. `stream` is a `cudaStream_t`: the call waits
 * for the work on it and for the load itself; ignored on the CPU. Safe to call from any thread. On
 * failure the criterion is unchanged: `OLS_STATUS_IO`; `OLS_STATUS_INVALID_FILE` if the file is
 * truncated, corrupted, or not a saved state; `OLS_STATUS_INVALID_ARGUMENT` if the number of
 * classes differs; `OLS_STATUS_OUT_OF_MEMORY`.
 *
 * Requirements: `criterion` is NULL or a live criterion; `path` is NULL or a string.
 */
ols_status_t ols_load(ols_criterion_t *criterion, const char *path, void *stream);

/**
 * Saves a criterion to memory: writes the contents of the file that `ols_save` would write to
 * `buffer`, and their size in bytes to `*size`.
 *
 * Call it first with a NULL `buffer` and a `capacity` of 0 to obtain the size, then with a buffer
 * of that capacity; no other call on the criterion may come between the two. The buffer remains the
 * property of the caller. `stream` is the `cudaStream_t` to synchronise with; ignored on the CPU.
 * Safe to call from any thread. On failure neither `*size` nor the buffer is written. If `capacity`
 * is too small the status is `OLS_STATUS_INVALID_ARGUMENT`, and the message contains the required
 * size. A state that `ols_save` refuses is refused here as well.
 *
 * Requirements: `criterion` is NULL or a live criterion; `buffer` is NULL or points to `capacity`
 * writable bytes; `size` is NULL or points to a writable `size_t`.
 */
ols_status_t ols_save_memory(const ols_criterion_t *criterion,
                             void *buffer,
                             size_t capacity,
                             void *stream,
                             size_t *size);

/**
 * Restores a criterion from `size` bytes at `buffer`, written by `ols_save_memory` or `ols_save`.
 *
 * The buffer remains the property of the caller, is read only until the call returns, and need not
 * be aligned. In all other respects as `ols_load`.
 *
 * Requirements: `criterion` is NULL or a live criterion; `buffer` is NULL or points to `size`
 * readable bytes.
 */
ols_status_t ols_load_memory(ols_criterion_t *criterion,
                             const void *buffer,
                             size_t size,
                             void *stream);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* OLS_H */
