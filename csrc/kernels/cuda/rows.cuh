// Rows along which mask indices are consecutive: a warp at a time.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/pack.cuh"

namespace dropout::cuda {

struct Rows {
  Dim row;  // mask stride 1; dense where packs have more than one element
  int64_t tiles_per_row;
  int64_t tiles;
  uint64_t base;
  Outer outer;
};

// Blocks whose decisions a lane draws at once. Two Philox calls share what is prepared for a
// round; there are enough of them only where elements are narrow and rows are long.
template <class T, bool kSingleRow>
constexpr int kLaneBlocks = kSingleRow && sizeof(T) <= 2 ? 2 : 1;

// What a warp handles together: mask indices that follow each other.
template <class T, bool kSingleRow>
constexpr int kTile = kWarp * kBlock * kLaneBlocks<T, kSingleRow>;

// The part of a tile that belongs to the row: positions begin ... end - 1.
struct Part {
  int begin;
  int end;

  template <bool kWhole>
  __device__ __forceinline__ bool has(int first, int count) const {
    return kWhole || (first >= begin && first + count <= end);
  }
};

// The j-th access of a warp touches V * kWarp consecutive elements. Pointers are those of the
// tile's first position, whether that belongs to the row or not.
template <bool kWhole, class T, int V, int kAccesses>
__device__ __forceinline__ void load_tile(
    Pack<T, V> (&packs)[kAccesses], const T* x, int64_t stride, int lane, Part part) {
#pragma unroll
  for (int j = 0; j < kAccesses; ++j) {
    const int position = (j * kWarp + lane) * V;
    const T* from = x + position * stride;
    if (part.has<kWhole>(position, V)) {
      packs[j] = load(reinterpret_cast<const Pack<T, V>*>(from));
    } else {
      packs[j] = {};
      for (int v = 0; v < V; ++v) {
        if (part.has<kWhole>(position + v, 1)) {
          packs[j].set(v, load(from + v));
        }
      }
    }
  }
}

template <bool kWhole, class T, int V, int kAccesses>
__device__ __forceinline__ void store_tile(
    const Pack<T, V> (&packs)[kAccesses], T* y, int64_t stride, int lane, Part part) {
#pragma unroll
  for (int j = 0; j < kAccesses; ++j) {
    const int position = (j * kWarp + lane) * V;
    T* to = y + position * stride;
    if (part.has<kWhole>(position, V)) {
      store(reinterpret_cast<Pack<T, V>*>(to), packs[j]);
    } else {
      for (int v = 0; v < V; ++v) {
        if (part.has<kWhole>(position + v, 1)) {
          store(to + v, packs[j].get(v));
        }
      }
    }
  }
}

// Rows along which mask indices are consecutive, a warp a tile. Tiles begin where blocks do, so
// that a row that begins inside a block has a first tile with idle lanes, and every element's
// decision is the one its block gives. Lanes ask each other for the decisions of what they hold:
// accesses are wide and coalesced for every dtype at one Philox call for eight elements.
template <class Rule, int V, bool kSingleRow>
__global__ void __launch_bounds__(kThreads) dropout_rows(
    const typename Rule::Element* x,
    typename Rule::Element* y,
    Rows rows,
    StateSource source,
    Threshold threshold,
    Rule rule,
    Samples samples,
    int64_t first_sample) {
  using T = typename Rule::Element;
  constexpr int kBlocks = kLaneBlocks<T, kSingleRow>;
  constexpr int kPositions = kTile<T, kSingleRow>;
  constexpr int kAccesses = kBlock / V;  // per block of a lane
  const RngState state = begin_sample(x, y, source, samples, first_sample);
  const int64_t in_stride = V > 1 ? 1 : rows.row.in;
  const int64_t out_stride = V > 1 ? 1 : rows.row.out;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  // Asked of a lane, so that the compiler knows it to be the warp's: index arithmetic and
  // branches below are uniform.
  const uint32_t warp = from_lane(threadIdx.x / kWarp, 0);
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kThreads / kWarp);
  for (int64_t unit = static_cast<int64_t>(blockIdx.x) * (kThreads / kWarp) + warp;
       unit < rows.tiles; unit += warps) {
    Start start{0, 0, rows.base};
    int64_t tile = unit;
    if constexpr (!kSingleRow) {
      rows.outer.move(start, divide(unit, rows.tiles_per_row, tile));
    }
    // Of the tile, in elements of the row.
    const int64_t origin = tile * kPositions - static_cast<int64_t>(start.mask % kBlock);
    const int64_t rest = rows.row.size - origin;
    if (!kSingleRow && rest <= 0) {
      continue;  // the row begins earlier in its first block than others, and needs a tile less
    }
    const Part part{
        origin < 0 ? static_cast<int>(-origin) : 0,
        rest < kPositions ? static_cast<int>(rest) : kPositions};
    const bool whole = origin >= 0 && rest >= kPositions;

    Pack<T, V> packs[kBlocks * kAccesses];
    const T* from = x + start.in + origin * in_stride;
    if (whole) {
      load_tile<true>(packs, from, in_stride, lane, part);
    } else {
      load_tile<false>(packs, from, in_stride, lane, part);
    }
    const int64_t block = tile * (kWarp * kBlocks) + lane;
    const KeepBlocks<kBlocks> own = keep_blocks<kBlocks>(
        state, start.mask / kBlock + static_cast<uint64_t>(block), kWarp, threshold);
#pragma unroll
    for (int j = 0; j < kBlocks * kAccesses; ++j) {
      uint32_t keep = own.bits[j / kAccesses];
      if constexpr (V < kBlock) {
        const int position = (j % kAccesses * kWarp + lane) * V;
        keep = from_lane(keep, position / kBlock) >> (position % kBlock);
      }
      packs[j].apply(rule, keep);
    }
    T* to = y + start.out + origin * out_stride;
    if (whole) {
      store_tile<true>(packs, to, out_stride, lane, part);
    } else {
      store_tile<false>(packs, to, out_stride, lane, part);
    }
  }
}

}  // namespace dropout::cuda
