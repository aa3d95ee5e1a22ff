// Elements that are read or written in one access.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/scalar.h"
#include "kernels/cuda/device.cuh"

namespace dropout::cuda {

// Two elements of 16 bits, which are rounded together; the first is the lower half.
template <class T>
struct Pair {
  uint32_t bits;

  __device__ __forceinline__ T get(int i) const {
    return {static_cast<uint16_t>(bits >> (16 * i))};
  }
  __device__ __forceinline__ void set(int i, T x) {
    bits = (bits & (0xffff0000u >> (16 * i))) | static_cast<uint32_t>(x.bits) << (16 * i);
  }
};

// V elements that are read or written in one access.
template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  using Element = T;
  static constexpr bool kPairs = sizeof(T) == 2 && V > 1;
  using Unit = std::conditional_t<kPairs, Pair<T>, T>;
  Unit unit[kPairs ? V / 2 : V];

  __device__ __forceinline__ T get(int v) const {
    if constexpr (kPairs) {
      return unit[v / 2].get(v % 2);
    } else {
      return unit[v];
    }
  }
  __device__ __forceinline__ void set(int v, T x) {
    if constexpr (kPairs) {
      unit[v / 2].set(v % 2, x);
    } else {
      unit[v] = x;
    }
  }

  // Bit v of `keep` is the decision on element v.
  template <class Rule>
  __device__ __forceinline__ void apply(const Rule& rule, uint32_t keep) {
    const auto kept = [&](int v) { return ((keep >> v) & 1) != 0; };
    if constexpr (kPairs) {
#pragma unroll
      for (int v = 0; v < V; v += 2) {
        unit[v / 2].bits = apply_rule_to_pair(get(v), kept(v), get(v + 1), kept(v + 1), rule);
      }
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        unit[v] = apply_rule(unit[v], kept(v), rule);
      }
    }
  }
};

}  // namespace dropout::cuda
