// Every other layout: neighbours in memory have decisions of their own, or one and the same.
#pragma once

#include <cstdint>

#include "kernels/cuda/pack.cuh"

namespace dropout::cuda {

// Mask indices that a lane draws along the run dimension, as a power of two.
constexpr int kRunBits = 4;
constexpr int kRun = 1 << kRunBits;
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

// One of two dimensions, of which a tile is a piece.
struct Side {
  Dim dim;
  int tile;       // elements of it
  Divisor tiles;  // along the dimension
  int run_bits;   // a lane draws for 2^run_bits of them
};

struct Strided {
  Side near;  // neighbours in memory; dense where packs have many elements
  Side far;
  int owners;      // lanes of a warp that draw for the same far elements
  Divisor packs;   // of a tile, for one far element
  int slots;       // for packs of a tile, as many for each lane
  uint32_t total;  // tiles
  Outer<> outer;
};

// A warp draws runs, a lane each, that together cover a tile. Then it takes the packs of the tile
// in the order of memory, and asks for their decisions.
template <class Rule, int V>
__global__ void __launch_bounds__(kThreads, 3) dropout_strided(Call<Rule> call, Strided strided) {
  using T = typename Rule::Element;
  const int lane = lane_number();
  const Side& near = strided.near;
  const Side& far = strided.far;
  for (uint32_t unit = warp_number(); unit < strided.total; unit += warps()) {
    uint32_t near_tile;
    uint32_t far_tile;
    const uint32_t rest = far.tiles.divide(near.tiles.divide(unit, near_tile), far_tile);
    Place at = strided.outer.place(rest);
    const int near_left = at.enter(near.dim, near_tile, near.tile);
    const int far_left = at.enter(far.dim, far_tile, far.tile);
    const int n0 = lane % strided.owners << near.run_bits;
    const int f0 = lane / strided.owners << far.run_bits;
    const int left = far.run_bits == kRunBits ? far_left - f0 : near_left - n0;
    const uint32_t keep = keep_run(
        load_state(call.source, at.state),
        at.mask + static_cast<uint64_t>(n0 * near.dim.mask + f0 * far.dim.mask),
        left < kRun ? left : kRun, call.threshold);
    for (int slot = lane; slot < strided.slots; slot += kInFlight * kWarp) {
      Pack<T, V> packs[kInFlight];
      uint32_t n[kInFlight];
      uint32_t f[kInFlight];
      bool inside[kInFlight];
#pragma unroll
      for (int j = 0; j < kInFlight; ++j) {
        f[j] = strided.packs.divide(slot + j * kWarp, n[j]);
        n[j] *= V;
        inside[j] = static_cast<int>(n[j]) < near_left && static_cast<int>(f[j]) < far_left;
        packs[j] =
            load_pack<V>(call.x + at.in + n[j] * near.dim.in + f[j] * far.dim.in, inside[j]);
      }
#pragma unroll
      for (int j = 0; j < kInFlight; ++j) {
        uint32_t bits = 0;
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const uint32_t owner =
              (f[j] >> far.run_bits) * strided.owners + ((n[j] + v) >> near.run_bits);
          const uint32_t run = far.run_bits == kRunBits ? f[j] : n[j] + v;
          bits |= ((from_lane(keep, owner) >> (run % kRun)) & 1) << v;
        }
        packs[j].apply(call.rule, bits);
        T* to = call.y + at.out + n[j] * near.dim.out + f[j] * far.dim.out;
        store(reinterpret_cast<Pack<T, V>*>(to), packs[j], inside[j]);
      }
    }
  }
  record_state(call.source);
}

}  // namespace dropout::cuda
