// The kernels of ols.cu, compiled for compute capability 9.0: some use instructions that older devices lack. They give the same bits.
#include "ols.cu"
