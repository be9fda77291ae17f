// The kernels of ols.cu for compute capability 9.0, with instructions that older devices lack. Same bits.
#include "ols.cu"
