// The launcher of the CUDA kernels, for a host compiler.
#include "kernels/cuda/launch.cu"
