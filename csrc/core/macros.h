// Qualifiers that let one definition serve host, device and constant evaluation.
#pragma once

#if defined(__CUDACC__)
#define DROPOUT_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define DROPOUT_HOST_DEVICE inline
#endif
