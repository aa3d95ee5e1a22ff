// Many rows along which mask indices are consecutive: a lane a block, wherever it lies.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/pack.cuh"

namespace dropout::cuda {

struct Rows {
  Dim row;         // mask stride 1; dense where packs have more than one element
  Divisor blocks;  // of a row
  uint32_t total;  // blocks, those of all rows
  int overlap;     // see unaligned.cuh
  Outer outer;
};

// Blocks of the mask, numbered through all rows. The first and the last one of a row may belong
// to it in part, but packs belong to a row or not: their width divides whatever rows begin and
// end at. The j-th access of a warp takes its packs in the order of memory, and lanes ask each
// other for decisions, unless a block is a pack.
template <class Rule, int V>
__global__ void __launch_bounds__(kThreads) dropout_rows(
    const typename Rule::Element* x,
    typename Rule::Element* y,
    Rows rows,
    StateSource source,
    Threshold threshold,
    Rule rule) {
  using T = typename Rule::Element;
  constexpr int kAccesses = kBlock / V;
  const int lane = lane_number();
  for (uint32_t first = blockIdx.x * kThreads + threadIdx.x - lane; first < rows.total;
       first += gridDim.x * kThreads) {
    Pack<T, V> packs[kAccesses];
    T* to[kAccesses];
    Place own;
    const auto locate = [&](uint32_t block, int64_t& position) {
      uint32_t number;
      const Place at = rows.outer.place(rows.blocks.divide(block, number));
      position = int64_t{number} * kBlock - static_cast<int64_t>(at.mask % kBlock);
      return at;
    };
#pragma unroll
    for (int j = 0; j < kAccesses; ++j) {
      const int element = (j * kWarp + lane) * V;
      const uint32_t block = first + element / kBlock;
      int64_t position;
      Place at = locate(block, position);
      position += element % kBlock;
      const bool inside = block < rows.total && position >= 0 && position < rows.row.size;
      at.in += V > 1 ? position : position * rows.row.in;
      at.out += V > 1 ? position : position * rows.row.out;
      at.mask += static_cast<uint64_t>(position);
      to[j] = inside ? y + at.out : nullptr;
      packs[j] = load_pack<V>(x + at.in, inside);
      own = at;
    }
    if constexpr (kAccesses > 1) {
      int64_t position;
      own = locate(first + lane, position);
      own.mask += static_cast<uint64_t>(position);
    }
    const RngState state = load_state(source, first + lane < rows.total ? own.state : 0);
    const uint32_t keep = keep_block(state, own.mask / kBlock, threshold);
#pragma unroll
    for (int j = 0; j < kAccesses; ++j) {
      const int element = (j * kWarp + lane) * V;
      packs[j].apply(
          rule, V < kBlock ? from_lane(keep, element / kBlock) >> (element % kBlock) : keep);
      store(reinterpret_cast<Pack<T, V>*>(to[j]), packs[j], to[j] != nullptr);
    }
  }
  record_state(source);
}

}  // namespace dropout::cuda
