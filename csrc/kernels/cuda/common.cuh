// What the kernels share: the size of their blocks, the state, and where a unit of work begins.
#pragma once

#include <cstdint>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernel.h"

namespace dropout::cuda {

constexpr int kWarp = 32;
constexpr int kThreads = 256;

// n / size and n % size; most operands fit 32 bits, whose division is several times cheaper.
__device__ __forceinline__ int64_t divide(int64_t n, int64_t size, int64_t& remainder) {
  if (static_cast<uint64_t>(n | size) >> 32 == 0) {
    const uint32_t quotient = static_cast<uint32_t>(n) / static_cast<uint32_t>(size);
    remainder = static_cast<uint32_t>(n) - quotient * static_cast<uint32_t>(size);
    return quotient;
  }
  const int64_t quotient = n / size;
  remainder = n - quotient * size;
  return quotient;
}

// Where a unit of work begins.
struct Start {
  int64_t in;
  int64_t out;
  uint64_t mask;

  __device__ __forceinline__ void move(int64_t n, const Dim& dim) {
    in += n * dim.in;
    out += n * dim.out;
    mask += static_cast<uint64_t>(n * dim.mask);
  }
};

// The dimensions beside those a kernel walks along.
struct Outer {
  int ndim;
  Dim dims[IndexMap::kMaxDims];

  __device__ __forceinline__ void move(Start& start, int64_t index) const {
    for (int d = 0; d < ndim; ++d) {
      int64_t position;
      index = divide(index, dims[d].size, position);
      start.move(position, dims[d]);
    }
  }
};

// `step` leads to the state of this sample.
__device__ __forceinline__ RngState load_state(const StateSource& source, int64_t step = 0) {
  RngState state = source.value;
  if (source.seed != nullptr) {
    state.seed = static_cast<uint64_t>(source.seed[step]);
  }
  if (source.offset != nullptr) {
    state.offset += static_cast<uint64_t>(source.offset[step]);
  }
  state.offset >>= source.shift;
  if (source.written != nullptr && blockIdx.x == 0 && threadIdx.x == 0) {
    source.written[0] = static_cast<int64_t>(state.seed);
    source.written[1] = static_cast<int64_t>(state.offset);
  }
  return state;
}

// Moves the pointers to the sample of this block; its state.
template <class T>
__device__ __forceinline__ RngState begin_sample(
    const T*& x, T*& y, const StateSource& source, const Samples& samples, int64_t first_sample) {
  const int64_t sample = first_sample + blockIdx.y;
  if (sample != 0) {
    x += sample * samples.in;
    y += sample * samples.out;
  }
  return load_state(source, sample * samples.state);
}

}  // namespace dropout::cuda
