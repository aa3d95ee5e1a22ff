// The CUDA kernels' device header for a host compiler, whose launches go to a stream of the mock
// CUDA runtime: found on the include path before the real one.
#pragma once

#include <stdexcept>

#include "../../../emulation/warps.h"
#include "../../work.h"
#include "kernels/cuda/kernel.h"

namespace dropout::cuda {

constexpr int64_t kMostElements = int64_t{1} << 29;

// Whether a kernel on the current device may follow a pointer.
inline bool reachable(const void* pointer) {
  int device = -1;
  cudaPointerAttributes attributes;
  cudaGetDevice(&device);
  cudaPointerGetAttributes(&attributes, pointer);
  return pointer == nullptr ||
         (attributes.type == cudaMemoryTypeDevice && attributes.device == device);
}
// The same for those of an argument: a StateSource, a Call or the work of a kernel.
template <class T>
bool all_reachable(const T& argument) {
  if constexpr (requires { argument.written; }) {
    return reachable(argument.seed) && reachable(argument.offset) && reachable(argument.written);
  } else if constexpr (requires { argument.source; }) {
    return reachable(argument.x) && reachable(argument.y) && all_reachable(argument.source);
  } else {
    return true;
  }
}

template <class... Parameters, class... Arguments>
cudaError_t start(
    void (*kernel)(Parameters...),
    unsigned blocks,
    unsigned threads,
    cudaStream_t stream,
    const Arguments&... arguments) {
  if (!(all_reachable(arguments) && ...)) {
    return cudaErrorIllegalAddress;
  }
  return mock_runtime::submit(stream, [=] {
    if (emulation::run(kernel, blocks, threads, arguments...) != cudaSuccess) {
      throw std::runtime_error("lanes of a warp did not meet at an exchange");
    }
  });
}

}  // namespace dropout::cuda
