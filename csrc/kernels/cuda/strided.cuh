// Every other layout: neighbours in memory have decisions of their own, or one and the same.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/pack.cuh"

namespace dropout::cuda {

// Mask indices that a lane draws along the run dimension.
constexpr int kRun = 16;
// Accesses of a warp that wait for memory at the same time.
constexpr int kInFlight = 4;

// Keep bits of `count` mask indices, at most kRun.
__device__ __forceinline__ uint32_t
keep_run(RngState state, uint64_t first, int64_t count, Threshold threshold) {
  const int shift = static_cast<int>(first % kBlock);
  uint32_t bits = 0;
#pragma unroll 1
  for (int b = 0; b == 0 || b * kBlock < shift + count; ++b) {
    bits |= keep_block(state, first / kBlock + b, threshold) << (b * kBlock);
  }
  return bits >> shift;
}

// A tile is a piece of the plane of two dimensions: lanes x steps.
struct Strided {
  Dim lanes;   // neighbours in memory; dense where packs have many elements
  Dim run;     // mask stride 1, or of size 1
  int owners;  // lanes of a warp that draw for the same steps; 1 where decisions are shared
  int tile_lanes;
  int tile_steps;
  int groups;          // of kInFlight accesses, for a tile
  Divisor tile_packs;  // in a step of a tile
  Divisor lane_tiles;
  Divisor run_tiles;
  uint32_t total;  // tiles
  Outer outer;
};

// A warp draws runs, a lane each: its lanes lie side by side along both dimensions of the tile.
// Then it takes the packs of the tile in the order of memory, and asks for their decisions.
template <class Rule, int V>
__global__ void __launch_bounds__(kThreads) dropout_strided(
    const typename Rule::Element* x,
    typename Rule::Element* y,
    Strided strided,
    StateSource source,
    Threshold threshold,
    Rule rule) {
  using T = typename Rule::Element;
  const int lane = lane_number();
  const Dim& lanes = strided.lanes;
  const Dim& run = strided.run;
  for (uint32_t tile = (blockIdx.x * kThreads + threadIdx.x) / kWarp; tile < strided.total;
       tile += gridDim.x * (kThreads / kWarp)) {
    uint32_t part;
    const uint32_t rest = strided.lane_tiles.divide(tile, part);
    const int64_t first_lane = int64_t{part} * strided.tile_lanes;
    Place at = strided.outer.place(strided.run_tiles.divide(rest, part));
    const int64_t first_step = int64_t{part} * strided.tile_steps;
    at.move(first_lane, lanes);
    at.move(first_step, run);
    const int64_t lanes_left = lanes.size - first_lane;
    const int64_t steps_left = run.size - first_step;
    uint32_t keep = 0;
    for (int g = 0; g < strided.groups; ++g) {
      Pack<T, V> packs[kInFlight];
      T* to[kInFlight];
      uint32_t step[kInFlight];
      uint32_t element[kInFlight];  // along `lanes`
#pragma unroll
      for (int j = 0; j < kInFlight; ++j) {
        step[j] = strided.tile_packs.divide((g * kInFlight + j) * kWarp + lane, element[j]);
        element[j] *= V;
        const bool inside =
            step[j] < static_cast<uint32_t>(strided.tile_steps) && step[j] < steps_left && element[j] < lanes_left;
        packs[j] = load_pack<V>(x + at.in + element[j] * lanes.in + step[j] * run.in, inside);
        to[j] = inside ? y + at.out + element[j] * lanes.out + step[j] * run.out : nullptr;
      }
      if (g == 0) {
        const int first = lane / strided.owners * kRun;
        const uint64_t index =
            at.mask +
            static_cast<uint64_t>(lane % strided.owners * lanes.mask + first * run.mask);
        const int64_t count = steps_left - first < kRun ? steps_left - first : kRun;
        keep = keep_run(load_state(source, at.state), index, count, threshold);
      }
#pragma unroll
      for (int j = 0; j < kInFlight; ++j) {
        const int owner = static_cast<int>(step[j] / kRun) * strided.owners;
        uint32_t bits = 0;
        if (lanes.mask == 0) {
          bits = ((from_lane(keep, owner) >> (step[j] % kRun)) & 1) != 0 ? ~uint32_t{0} : 0;
        } else {
#pragma unroll
          for (int v = 0; v < V; ++v) {
            const uint32_t of_lane = from_lane(keep, owner + static_cast<int>(element[j]) + v);
            bits |= ((of_lane >> (step[j] % kRun)) & 1) << v;
          }
        }
        packs[j].apply(rule, bits);
        store(reinterpret_cast<Pack<T, V>*>(to[j]), packs[j], to[j] != nullptr);
      }
    }
  }
  record_state(source);
}

}  // namespace dropout::cuda
