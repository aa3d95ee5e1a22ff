// What the kernels share: the size of their blocks, the state, and where a unit of work lies.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernel.h"

namespace dropout::cuda {

constexpr int kWarp = 32;
constexpr int kThreads = 256;

__device__ __forceinline__ int lane_number() {
  return static_cast<int>(threadIdx.x % kWarp);
}
// Of this warp in the grid, and how many there are.
__device__ __forceinline__ uint32_t warp_number() {
  return blockIdx.x * (kThreads / kWarp) + threadIdx.x / kWarp;
}
__device__ __forceinline__ uint32_t warps() {
  return gridDim.x * (kThreads / kWarp);
}

// n / size for n and size below 2^31, as a product and a shift.
struct Divisor {
  uint32_t size = 1;
  uint32_t magic = 0x80000000u;  // 2^shift / size, rounded up
  int shift = 31;

  Divisor() = default;
  explicit Divisor(int64_t n) : size(static_cast<uint32_t>(n)) {
    while (int64_t{1} << (shift - 31) < n) {
      ++shift;
    }
    magic = static_cast<uint32_t>(((uint64_t{1} << shift) + size - 1) / size);
  }

  __device__ __forceinline__ uint32_t divide(uint32_t n, uint32_t& remainder) const {
    const auto quotient = static_cast<uint32_t>(uint64_t{n} * magic >> shift);
    remainder = n - quotient * size;
    return quotient;
  }
};

struct Place {
  int64_t in;
  int64_t out;
  uint64_t mask;
  int64_t state;

  __device__ __forceinline__ void move(int64_t n, const Dim& dim) {
    in += n * dim.in;
    out += n * dim.out;
    mask += static_cast<uint64_t>(n * dim.mask);
  }

  // Moves to the tile of this number. How many of its `size` elements there are.
  __device__ __forceinline__ int enter(const Dim& dim, uint32_t tile, int size) {
    const int64_t first = int64_t{tile} * size;
    move(first, dim);
    return dim.size - first < size ? static_cast<int>(dim.size - first) : size;
  }
};

// The dimensions beside those a kernel walks along. Of the samples, which are the last one where
// they have states of their own, each finds its state `state` after the one before.
template <int kDims = IndexMap::kMaxDims>
struct Outer {
  uint64_t base;
  int64_t state;
  int ndim = 0;
  Divisor sizes[std::max(kDims, 1)];
  Dim dims[std::max(kDims, 1)];

  __device__ __forceinline__ Place place(uint32_t index) const {
    Place at{0, 0, base, 0};
    if constexpr (kDims > 0) {
#pragma unroll 1
      for (int d = 0; d < ndim; ++d) {
        uint32_t position;
        index = sizes[d].divide(index, position);
        at.move(position, dims[d]);
        at.state = position * state;
      }
    }
    return at;
  }
};

// `step` leads to the state of a sample.
__device__ __forceinline__ RngState load_state(const StateSource& source, int64_t step = 0) {
  RngState state = source.value;
  if (source.seed != nullptr) {
    state.seed = static_cast<uint64_t>(source.seed[step]);
  }
  if (source.offset != nullptr) {
    state.offset += static_cast<uint64_t>(source.offset[step]);
  }
  state.offset >>= source.shift;
  return state;
}

// Writes the state down where that is asked for.
__device__ __forceinline__ void record_state(const StateSource& source) {
  if (source.written != nullptr && blockIdx.x == 0 && threadIdx.x == 0) {
    const RngState state = load_state(source);
    source.written[0] = static_cast<int64_t>(state.seed);
    source.written[1] = static_cast<int64_t>(state.offset);
  }
}

// What every kernel is given beside its work.
template <class Rule>
struct Call {
  using T = typename Rule::Element;
  const T* x;
  T* y;
  StateSource source;
  Threshold threshold;
  Rule rule;
};

}  // namespace dropout::cuda
