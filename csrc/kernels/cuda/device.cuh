// What the kernels need of CUDA beyond the language; the host emulation of the tests replaces
// this file by its own.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace dropout::cuda {

// Blocks that a grid has room for in its second dimension.
constexpr int64_t kMaxSamples = 65535;

// `value` of the given lane. The whole warp calls this together.
__device__ __forceinline__ uint32_t from_lane(uint32_t value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}

template <class... Parameters, class... Arguments>
cudaError_t start(
    void (*kernel)(Parameters...),
    unsigned blocks,
    unsigned samples,
    unsigned threads,
    cudaStream_t stream,
    const Arguments&... arguments) {
  kernel<<<dim3(blocks, samples), threads, 0, stream>>>(arguments...);
  return cudaGetLastError();
}

}  // namespace dropout::cuda
