// One long row, dense, whose output is aligned: a warp a tile.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/pack.cuh"

namespace dropout::cuda {

// Blocks whose decisions a lane draws at once. Two Philox calls share what is prepared for a
// round; there are enough of them only where elements are narrow.
template <class T>
constexpr int kLaneBlocks = sizeof(T) <= 2 ? 2 : 1;

// What a warp handles together: mask indices that follow each other.
template <class T>
constexpr int kTile = kWarp * kBlock * kLaneBlocks<T>;

// Lanes ask each other for the decisions of what they hold: the j-th access of a warp touches
// V * kWarp consecutive elements, whatever the type, at one Philox call for eight elements.
// Input that is `kShifted` against the output is read in aligned packs, of which two make one; a
// pack that is read holds an element of the row.
template <class Rule, bool kShifted>
__global__ void __launch_bounds__(kThreads)
    dropout_row(Call<Rule> call, int64_t size, uint64_t first_block) {
  using T = typename Rule::Element;
  constexpr int V = kWidth<T>;
  constexpr int kBlocks = kLaneBlocks<T>;
  constexpr int kPerBlock = kBlock / V;  // accesses
  constexpr int kAccesses = kBlocks * kPerBlock;
  const int lane = lane_number();
  const int shift = kShifted ? elements_beyond<V>(call.x) : 0;
  const T* const x = call.x - shift;
  // Asked of a lane, so that the compiler knows it to be the warp's: index arithmetic and
  // branches below are uniform.
  const uint32_t warp = from_lane(threadIdx.x / kWarp, 0);
  const int64_t step = static_cast<int64_t>(gridDim.x) * (kThreads / kWarp) * kTile<T>;
  int64_t origin = (static_cast<int64_t>(blockIdx.x) * (kThreads / kWarp) + warp) * kTile<T>;
  const int64_t sector = origin + lane * (kTile<T> / kWarp);
  if (call.source.seed != nullptr && sector < size) {
    prefetch(call.x + sector);  // while the state is waited for
  }
  const RngState state = load_state(call.source);
  for (; origin < size; origin += step) {
    const bool whole = size - origin >= kTile<T>;
    const int rest = whole ? kTile<T> : static_cast<int>(size - origin);
    Pack<T, V> packs[kAccesses + (kShifted ? 1 : 0)];
#pragma unroll
    for (int j = 0; j < kAccesses; ++j) {
      const int position = (j * kWarp + lane) * V;
      packs[j] = load_pack<V>(x + origin + position, position < rest + shift);
    }
    if constexpr (kShifted) {
      packs[kAccesses] =
          load_pack<V>(x + origin + kTile<T>, lane == 0 && kTile<T> < rest + shift);
#pragma unroll
      for (int j = 0; j < kAccesses; ++j) {
        const Pack<T, V> asked = lane == 0 ? packs[j + 1] : packs[j];
        packs[j].shift_in(asked.of_lane((lane + 1) % kWarp), shift);
      }
    }
    const KeepBlocks<kBlocks> own = keep_blocks<kBlocks>(
        state, first_block + static_cast<uint64_t>(origin / kBlock + lane), kWarp,
        call.threshold);
#pragma unroll
    for (int j = 0; j < kAccesses; ++j) {
      uint32_t keep = own.bits[j / kPerBlock];
      if constexpr (V < kBlock) {
        const int position = (j % kPerBlock * kWarp + lane) * V;
        keep = from_lane(keep, position / kBlock) >> (position % kBlock);
      }
      packs[j].apply(call.rule, keep);
    }
#pragma unroll
    for (int j = 0; j < kAccesses; ++j) {
      const int position = (j * kWarp + lane) * V;
      if (whole) {
        store(reinterpret_cast<Pack<T, V>*>(call.y + origin + position), packs[j]);
      } else if (position < rest) {
        store_part(call.y + origin + position, packs[j], 0, rest - position);
      }
    }
  }
  record_state(call.source);
}

}  // namespace dropout::cuda
