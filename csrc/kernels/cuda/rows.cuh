// Dense rows along which mask indices are consecutive, however short and wherever they begin.
#pragma once

#include <cstdint>

#include "kernels/cuda/pack.cuh"

namespace dropout::cuda {

// Groups of eight elements whose output is aligned, numbered through all rows.
struct Rows {
  int size;        // of a row
  Divisor groups;  // of a row, the first and the last of which it may fill in part
  uint32_t total;  // groups
  int overlap;     // 1: a group may lie in two blocks of the mask, 0: it is a block
  bool shifted;    // is there input that is not aligned where its output is?
  Outer<> outer;
};

// A lane a group. If its decisions lie in two blocks, that of its first element is drawn, and the
// other is the next lane's; warps overlap by the lane that only draws.
template <class Rule>
__global__ void __launch_bounds__(kThreads, 4 - kBlock / kWidth<typename Rule::Element> / 2)
    dropout_rows(Call<Rule> call, Rows rows) {
  using T = typename Rule::Element;
  constexpr int V = kWidth<T>;
  constexpr int kAccesses = kBlock / V;
  const int lane = lane_number();
  const int lanes = kWarp - rows.overlap;
  uint32_t in_row;
  const auto locate = [&](uint32_t group, int& position) {
    const Place at = rows.outer.place(rows.groups.divide(group, in_row));
    position = static_cast<int>(in_row) * kBlock - elements_beyond<kBlock>(call.y + at.out);
    return at;
  };
  RngState state{};
  const uint32_t begins = warp_number() * lanes;
  for (uint32_t first = begins; first < rows.total; first += warps() * lanes) {
    Pack<T, V> packs[kAccesses];
    T* to[kAccesses];
    int begin[kAccesses];
    int end[kAccesses];
    Place own;
    int own_position;
#pragma unroll
    for (int j = 0; j < kAccesses; ++j) {
      const int element = (j * kWarp + lane) * V;
      own = locate(first + element / kBlock, own_position);
      const int position = own_position + element % kBlock;
      const bool exists = first + element / kBlock < rows.total;
      const bool follows = in_row + 1 < rows.groups.size || element % kBlock + V < kBlock;
      to[j] = call.y + own.out + position;
      begin[j] = -position;
      end[j] = exists ? rows.size - position : -V;
      const T* const from = call.x + own.in + position;
      const int shift = rows.shifted ? elements_beyond<V>(from) : 0;
      packs[j] = load_first<V>(from, shift, begin[j], end[j]);
      if (rows.shifted) {
        packs[j] =
            join_next(packs[j], from, shift, begin[j], end[j], lane < kWarp - 1 && follows);
      }
      end[j] = element / kBlock < lanes ? end[j] : 0;
    }
    if constexpr (kAccesses > 1) {
      own = locate(first + lane, own_position);
    }
    const uint64_t index = own.mask + static_cast<uint64_t>(int64_t{own_position});
    if (first == begins || rows.outer.state != 0) {  // when the input has been asked for
      state = load_state(call.source, first + lane < rows.total ? own.state : 0);
    }
    uint32_t keep = keep_block(state, index / kBlock, call.threshold);
    if (rows.overlap != 0) {
      keep = (keep | from_lane(keep, (lane + 1) % kWarp) << kBlock) >> (index % kBlock);
    }
#pragma unroll
    for (int j = 0; j < kAccesses; ++j) {
      packs[j].apply(call.rule, keep_of_pack<V>(keep, j));
      store_part(to[j], packs[j], begin[j], end[j]);
    }
  }
  record_state(call.source);
}

}  // namespace dropout::cuda
