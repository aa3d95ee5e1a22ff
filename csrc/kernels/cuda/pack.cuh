// Elements that are read or written in one access.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/mask.h"
#include "core/scalar.h"
#include "kernels/cuda/common.cuh"

namespace dropout::cuda {

// V elements that are read or written in one access.
template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  static constexpr bool kPairs = sizeof(T) == 2 && V > 1;  // of 16 bits, rounded together
  std::conditional_t<kPairs, uint32_t, T> unit[kPairs ? V / 2 : V];
  static constexpr int kWords = sizeof(T) * V / 4;

  // That of another lane. The whole warp calls this together.
  __device__ __forceinline__ Pack of_lane(int lane) const {
    uint32_t words[kWords];
    memcpy(words, this, sizeof(words));
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      words[w] = from_lane(words[w], lane);
    }
    Pack pack;
    memcpy(&pack, words, sizeof(words));
    return pack;
  }

  // Drops the first `elements`; those of `next` follow.
  __device__ __forceinline__ void shift_in(const Pack& next, int elements) {
    uint32_t words[2 * kWords];
    memcpy(words, this, sizeof(*this));
    memcpy(words + kWords, &next, sizeof(*this));
    const int bits = elements * 8 * static_cast<int>(sizeof(T));
#pragma unroll
    for (int step = kWords / 2; step > 0; step /= 2) {
      const bool move = (bits & (32 * step)) != 0;
#pragma unroll
      for (int w = 0; w < kWords + step; ++w) {
        words[w] = move ? words[w + step] : words[w];
      }
    }
    if constexpr (sizeof(T) < 4) {
#pragma unroll
      for (int w = 0; w < kWords; ++w) {
        words[w] =
            static_cast<uint32_t>((uint64_t{words[w + 1]} << 32 | words[w]) >> (bits % 32));
      }
    }
    memcpy(this, words, sizeof(*this));
  }

  // Bit v of `keep` is the decision on element v.
  template <class Rule>
  __device__ __forceinline__ void apply(const Rule& rule, uint32_t keep) {
    const auto kept = [&](int v) { return ((keep >> v) & 1) != 0; };
#pragma unroll
    for (int v = 0; v < V; v += kPairs ? 2 : 1) {
      if constexpr (kPairs) {
        uint32_t& pair = unit[v / 2];
        const T first{static_cast<uint16_t>(pair)};
        const T second{static_cast<uint16_t>(pair >> 16)};
        pair = apply_rule_to_pair(first, kept(v), second, kept(v + 1), rule);
      } else {
        unit[v] = apply_rule(unit[v], kept(v), rule);
      }
    }
  }
};

// The widest accesses.
template <class T>
constexpr int kWidth = sizeof(T) > 2 ? 16 / sizeof(T) : kBlock;

template <int V, class T>
__device__ __forceinline__ Pack<T, V> load_pack(const T* from, bool active = true) {
  return load(reinterpret_cast<const Pack<T, V>*>(from), active);
}

// How many elements beyond an address that is a multiple of V.
template <int V, class T>
__device__ __forceinline__ int elements_beyond(const T* at) {
  return static_cast<int>(reinterpret_cast<uintptr_t>(at) / sizeof(T) % V);
}

// Of the V elements at `from`, begin ... end - 1 are of the row. The aligned pack in which the
// first lies, `shift` elements beyond its begin, if it holds an element of the row; memory is
// mapped in larger pieces, and what else it brings is not used.
template <int V, class T>
__device__ __forceinline__ Pack<T, V> load_first(const T* from, int shift, int begin, int end) {
  return load_pack<V>(from - shift, begin < V - shift && end > -shift);
}

// Joins that pack and the one behind it: taken from the next lane, or loaded where there is none
// that `has_next`. The whole warp calls this together.
template <int V, class T>
__device__ __forceinline__ Pack<T, V> join_next(
    Pack<T, V> pack, const T* from, int shift, int begin, int end, bool has_next) {
  Pack<T, V> next = pack.of_lane((lane_number() + 1) % kWarp);
  if (!has_next && begin < V && end > V - shift) {
    next = load_pack<V>(from - shift + V);
  }
  pack.shift_in(next, shift);
  return pack;
}

// Stores elements begin ... end - 1 in the widest accesses that lie among them.
template <class T, int V, int W = V>
__device__ __forceinline__ void store_part(T* to, const Pack<T, V>& pack, int begin, int end) {
  const auto has = [&](int v, int width) { return v >= begin && v + width <= end; };
#pragma unroll
  for (int v = 0; v < V; v += W) {
    const bool wider = W < V && has(v / (2 * W) * (2 * W), 2 * W);
    Pack<T, W> part;
    memcpy(&part, reinterpret_cast<const char*>(&pack) + v * sizeof(T), sizeof(part));
    store(reinterpret_cast<Pack<T, W>*>(to + v), part, has(v, W) && !wider);
  }
  if constexpr (W > 1) {
    if (!has(0, V)) {
      store_part<T, V, W / 2>(to, pack, begin, end);
    }
  }
}

// Lanes have drawn a block each. Of the j-th pack of a lane, where packs of a warp follow each
// other: bit v is the decision on element v. The whole warp calls this together.
template <int V>
__device__ __forceinline__ uint32_t keep_of_pack(uint32_t block, int j) {
  const int element = (j * kWarp + lane_number()) * V;
  return V == kBlock ? block : from_lane(block, element / kBlock) >> (element % kBlock);
}

}  // namespace dropout::cuda
