// Dense rows that begin or end anywhere: wide accesses all the same.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/rows.cuh"

namespace dropout::cuda {

// A lane has eight elements whose output is aligned. Their decisions lie in two blocks: that of
// the first one is drawn, the next is the next lane's. Where this is needed at all, warps overlap
// by the lane that only draws. Input is read in aligned packs, of which two make one; the next
// lane has the second, but at the end of a row or warp. A pack that is read holds an element of
// the row, and memory is mapped in larger pieces; what else it brings is not used.
template <class Rule>
__global__ void __launch_bounds__(kThreads) dropout_unaligned_rows(
    const typename Rule::Element* x,
    typename Rule::Element* y,
    Rows rows,
    StateSource source,
    Threshold threshold,
    Rule rule) {
  using T = typename Rule::Element;
  constexpr int V = kWidth<T>;
  constexpr int kAccesses = kBlock / V;
  const int lane = lane_number();
  const int next_lane = (lane + 1) % kWarp;
  const uint32_t lanes = kWarp - rows.overlap;
  const uint32_t warp = (blockIdx.x * kThreads + threadIdx.x) / kWarp;
  const int64_t size = rows.row.size;
  for (uint32_t first = warp * lanes; first < rows.total;
       first += gridDim.x * (kThreads / kWarp) * lanes) {
    const auto locate = [&](uint32_t number, int64_t& position) {
      uint32_t in_row;
      const Place at = rows.outer.place(rows.blocks.divide(number, in_row));
      position = int64_t{in_row} * kBlock - elements_beyond<kBlock>(y + at.out);
      return at;
    };
    Pack<T, V> packs[kAccesses];
    T* to[kAccesses];
    int begin[kAccesses];
    int end[kAccesses];
    Place own;
    int64_t own_position;
#pragma unroll
    for (int j = 0; j < kAccesses; ++j) {
      const int element = (j * kWarp + lane) * V;
      const uint32_t number = first + element / kBlock;
      int64_t position;
      own = locate(number, position);
      own_position = position;
      position += element % kBlock;
      to[j] = y + own.out + position;
      const bool exists = number < rows.total;
      begin[j] = position < 0 ? static_cast<int>(-position) : 0;
      end[j] = position + V <= size ? V : static_cast<int>(size - position);
      if (!exists || static_cast<uint32_t>(element / kBlock) >= lanes) {
        end[j] = 0;
      }
      const int shift = elements_beyond<V>(x + own.in + position);
      position -= shift;
      const T* from = x + own.in + position;
      packs[j] = load_pack<V>(from, exists && position + V > 0 && position < size);
      Pack<T, V> second = packs[j].of_lane(next_lane);
      const bool asked = next_lane != 0 && position + shift + V < size;
      const bool missing =
          exists && !asked && shift != 0 && position + 2 * V > 0 && position + V < size;
      if (missing) {
        second = load_pack<V>(from + V);
      }
      packs[j].shift_in(second, shift);
    }
    if constexpr (kAccesses > 1) {
      own = locate(first + lane, own_position);
    }
    const uint64_t index = own.mask + static_cast<uint64_t>(own_position);
    const RngState state = load_state(source, first + lane < rows.total ? own.state : 0);
    uint32_t keep = keep_block(state, index / kBlock, threshold);
    if (rows.overlap != 0) {
      keep = (keep | from_lane(keep, next_lane) << kBlock) >> (index % kBlock);
    }
#pragma unroll
    for (int j = 0; j < kAccesses; ++j) {
      const int element = (j * kWarp + lane) * V;
      packs[j].apply(
          rule, V < kBlock ? from_lane(keep, element / kBlock) >> (element % kBlock) : keep);
      store_part(to[j], packs[j], begin[j], end[j]);
    }
  }
  record_state(source);
}

}  // namespace dropout::cuda
