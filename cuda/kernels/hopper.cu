// The kernels for compute capability 9.0 on, by their names: rows as in ols.cu, with other means and the same bits. src/cuda/variants.rs chooses.
//   bulk128    K <= 2048   rows128, with statistics added by the copy engine
//   bulk512    above       rows512, so too
//   cluster    above       eight blocks of 512 threads per row, each with a part of it in its shared memory; statistics as above
#include "pass_rows.h"

#define OLS_HOPPER_KERNELS(name, type)                                                                                                   \
    KERNEL(128) ols_bulk128_##name(const Pass pass) { pass_rows<type, 128, 16, BulkWay>(pass); }                                        \
    KERNEL(512) ols_bulk512_##name(const Pass pass) { pass_rows<type, 512, 0, BulkWay>(pass); }
// Not for f64, which would spill registers.
#define OLS_CLUSTER_KERNELS(name, type)                                                                                                  \
    KERNEL(512) ols_cluster_##name(const Pass pass) { pass_rows<type, 512, 0, ClusterWay>(pass); }

OLS_HOPPER_KERNELS(f32, float)
OLS_HOPPER_KERNELS(f64, double)
OLS_HOPPER_KERNELS(f16, f16)
OLS_HOPPER_KERNELS(bf16, bf16)

OLS_CLUSTER_KERNELS(f32, float)
OLS_CLUSTER_KERNELS(f16, f16)
OLS_CLUSTER_KERNELS(bf16, bf16)
