// The CUDA kernels' device header for a host compiler: found on the include path before the real
// one. Kernels run when they are launched.
#pragma once

#include "../../warps.h"

namespace dropout::cuda {

constexpr int64_t kMostElements = 1 << 18;  // so that large tensors take several launches

template <class... Parameters, class... Arguments>
cudaError_t start(
    void (*kernel)(Parameters...),
    unsigned blocks,
    unsigned threads,
    cudaStream_t /*stream*/,
    const Arguments&... arguments) {
  return emulation::run(kernel, blocks, threads, arguments...);
}

}  // namespace dropout::cuda
