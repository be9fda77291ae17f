// Entry points of all kernels. Each takes one struct by value.
#include "pass_rows.h"
#include "pass_samples.h"
#include "epoch.h"

// The variants, by the number of classes K. src/cuda/variants.rs chooses among them; docs/cuda.md has the reasons.
//   staged    K <= 32      a thread per row, in registers; contiguous rows, staged through shared memory
//   samples   K <= 32      a thread per sample, in registers; samples, not classes, are adjacent
//   few32     K <= 32      a warp per row, for few rows
//   rows8     K <= 32      8 lanes per row, for other layouts; same bits as the three above
//   rows32    K <= 256     a warp per row, in registers
//   rows128   K <= 1024    128 threads per row, in registers
//   wide32    K <= 1024    a warp per row, in registers, for many rows; same bits as rows128
//   rows256   K <= 2048    256 threads per row, in registers
//   rows512   above        512 threads per row, in shared memory or re-read from global memory
// On compute capability 9.0, where the copy engine brings rows to shared memory:
//   shared32  K <= 1024    a warp per row, for many rows; same bits as rows128
//   stream512 K > 6144     512 threads per row, if it fits into shared memory; same bits as rows512
// Kernels with `any` in their names are the general form, with class and sample weights, second targets, strided
// classes, f64 and batches to be taken back. They give the same bits as the usual form.
//
// The second argument of KERNEL is the minimum number of resident blocks per multiprocessor (__launch_bounds__),
// which limits the registers per thread.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define BLOCKS_OF_LONG_ROWS 1 // two would spill registers
#else
#define BLOCKS_OF_LONG_ROWS 2
#endif
#define OLS_PASS_KERNELS(name, type)                                                                                                     \
    KERNEL(256, 2) ols_staged_##name(const Pass pass) { pass_samples<type, false, true>(pass); }                                        \
    KERNEL(256, 2) ols_samples_##name(const Pass pass) { pass_samples<type, false>(pass); }                                             \
    KERNEL(128, 4) ols_few32_##name(const Pass pass) { pass_rows<type, 32, 1, false>(pass); }                                           \
    KERNEL(128, 6) ols_rows32_##name(const Pass pass) { pass_rows<type, 32, 8, false>(pass); }                                          \
    KERNEL(128, 4) ols_rows128_##name(const Pass pass) { pass_rows<type, 128, 8, false>(pass); }                                        \
    KERNEL(128, 5) ols_wide32_##name(const Pass pass) { pass_rows<type, 32, 32, false>(pass); }                                         \
    KERNEL(256, 3) ols_rows256_##name(const Pass pass) { pass_rows<type, 256, 8, false>(pass); }                                        \
    KERNEL(512, BLOCKS_OF_LONG_ROWS) ols_rows512_##name(const Pass pass) { pass_rows<type, 512, 0, false>(pass); }
#define OLS_ANY_PASS_KERNELS(name, type)                                                                                                 \
    KERNEL(256, 1) ols_rows8_any_##name(const Pass pass) { pass_rows<type, 8, 4, true>(pass); }                                         \
    KERNEL(256, 1) ols_samples_any_##name(const Pass pass) { pass_samples<type, true>(pass); }                                          \
    KERNEL(128, 1) ols_rows32_any_##name(const Pass pass) { pass_rows<type, 32, 8, true>(pass); }                                       \
    KERNEL(128, 1) ols_rows128_any_##name(const Pass pass) { pass_rows<type, 128, 8, true>(pass); }                                     \
    KERNEL(256, 1) ols_rows256_any_##name(const Pass pass) { pass_rows<type, 256, 8, true>(pass); }                                     \
    KERNEL(512, 1) ols_rows512_any_##name(const Pass pass) { pass_rows<type, 512, 0, true>(pass); }                                     \
    KERNEL(128, 1) ols_accumulate_##name(const Pass pass) { accumulate<type>(pass); }

#define OLS_COPYING_PASS_KERNELS(name, type)                                                                                             \
    KERNEL(128, 8) ols_shared32_##name(const Pass pass) { pass_rows<type, 32, 32, false, true>(pass); }                                 \
    KERNEL(576, 1) ols_stream512_##name(const Pass pass) { pass_rows<type, 512, 0, false, true>(pass); }

OLS_PASS_KERNELS(f32, float)
OLS_PASS_KERNELS(f16, f16)
OLS_PASS_KERNELS(bf16, bf16)
OLS_ANY_PASS_KERNELS(f32, float)
OLS_ANY_PASS_KERNELS(f64, double)
OLS_ANY_PASS_KERNELS(f16, f16)
OLS_ANY_PASS_KERNELS(bf16, bf16)
#ifdef OLS_COPY_ENGINE
OLS_COPYING_PASS_KERNELS(f32, float)
OLS_COPYING_PASS_KERNELS(f16, f16)
OLS_COPYING_PASS_KERNELS(bf16, bf16)
#endif

KERNEL(256, 1) ols_divisor(const Pass pass) { divisor_kernel(pass); }
KERNEL(256, 1) ols_epoch_begin(const Epoch epoch) { epoch_begin(epoch); }
KERNEL(256, 1) ols_epoch_rows(const Epoch epoch) { epoch_rows(epoch); }
KERNEL(256, 1) ols_check_soft_labels(const Fill fill) { check_soft_labels(fill); }
KERNEL(256, 1) ols_fill_soft_labels(const Fill fill) { fill_soft_labels(fill); }
