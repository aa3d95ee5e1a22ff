// CUDA dropout over raw device pointers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/task.h"

namespace dropout::cuda {

// Where a kernel finds the state of its mask. While a CUDA graph is captured neither seed nor
// offset are known on the host: each replay finds them in device memory.
struct StateSource {
  const int64_t* seed = nullptr;    // device memory; null: value.seed
  const int64_t* offset = nullptr;  // device memory, to which value.offset is added; null: 0
  RngState value{0, 0};
  int shift = 0;               // the sum is divided by 2^shift
  int64_t* written = nullptr;  // device memory that receives (seed, offset) as used; null: none
};

// On the current device. With many samples, each finds its state task.samples.state after the one
// before it, at source.seed and source.offset.
cudaError_t launch(const Task& task, const StateSource& source, cudaStream_t stream);

// Writes the states of `count` consecutive calls, two int64 each, to source.written.
cudaError_t launch_write_states(const StateSource& source, int64_t count, cudaStream_t stream);

// Writes the states that `count` states have for as many numbers; see core/fold_in.h.
cudaError_t launch_fold_in(
    const int64_t* states,
    const int64_t* numbers,
    int64_t count,
    int64_t* folded,
    cudaStream_t stream);

}  // namespace dropout::cuda
