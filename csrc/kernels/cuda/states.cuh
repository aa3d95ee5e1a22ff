// States without elements.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"

namespace dropout::cuda {

// (seed, offset) of `count` consecutive calls, each of which reserves two counters.
__global__ void write_states(StateSource source, int64_t count) {
  const RngState state = load_state(source);
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t k = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; k < count;
       k += threads) {
    source.written[2 * k] = static_cast<int64_t>(state.seed);
    source.written[2 * k + 1] = static_cast<int64_t>(state.offset + 2 * static_cast<uint64_t>(k));
  }
}

}  // namespace dropout::cuda
