// Every kernel by its name. All take one struct by value.
#include "pass_rows.h"
#include "pass_samples.h"
#include "epoch.h"

// The variants, by the number of classes K. src/cuda/variants.rs chooses; docs/cuda.md has the reasons.
//   rows8     K <= 32      8 lanes per row, 32 rows per block; statistics in shared memory
//   samples   K <= 32      a thread per sample, where samples and not classes lie side by side; the bits of rows8
//   rows32    K <= 256     a warp per row, in registers
//   rows128   K <= 2048    128 threads per row, in registers
//   rows512   above        512 threads per row, in shared memory or read again
#define OLS_PASS_KERNELS(name, type)                                                                                                     \
    KERNEL(256) ols_rows8_##name(const Pass pass) { pass_rows<type, 8, 4>(pass); }                                                      \
    KERNEL(256) ols_samples_##name(const Pass pass) { pass_samples<type>(pass); }                                                       \
    KERNEL(256) ols_rows32_##name(const Pass pass) { pass_rows<type, 32, 8>(pass); }                                                    \
    KERNEL(128) ols_rows128_##name(const Pass pass) { pass_rows<type, 128, 16>(pass); }                                                 \
    KERNEL(512) ols_rows512_##name(const Pass pass) { pass_rows<type, 512, 0>(pass); }                                                  \
    KERNEL(128) ols_accumulate_##name(const Pass pass) { accumulate<type>(pass); }

OLS_PASS_KERNELS(f32, float)
OLS_PASS_KERNELS(f64, double)
OLS_PASS_KERNELS(f16, f16)
OLS_PASS_KERNELS(bf16, bf16)

KERNEL(256) ols_divisor(const Pass pass) { divisor_kernel(pass); }
KERNEL(256) ols_epoch_begin(const Epoch epoch) { epoch_begin(epoch); }
KERNEL(256) ols_epoch_rows(const Epoch epoch) { epoch_rows(epoch); }
KERNEL(256) ols_check_soft_labels(const Fill fill) { check_soft_labels(fill); }
KERNEL(256) ols_fill_soft_labels(const Fill fill) { fill_soft_labels(fill); }
