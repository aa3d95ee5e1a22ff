// The few names of the CUDA runtime that the kernels' interface uses.
#pragma once

using cudaStream_t = void*;

enum cudaError_t { cudaSuccess = 0, cudaErrorLaunchFailure = 719 };
