// Dense rows, long, along which mask indices are consecutive: a warp has a tile of one row.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/pack.cuh"

namespace dropout::cuda {

// Blocks whose decisions a lane draws at once. Two Philox calls share what is prepared for a
// round; there are enough of them only where elements are narrow.
template <class T>
constexpr int kLaneBlocks = sizeof(T) <= 2 ? 2 : 1;

// What a warp handles together: mask indices that follow each other, of one row.
template <class T>
constexpr int kTile = kWarp * kBlock * kLaneBlocks<T>;

// Rows whose output is aligned where blocks of the mask begin.
template <int kDims>
struct LongRows {
  int64_t size;    // of a row
  Divisor tiles;   // of a row, the first of which begins with a block of the mask
  uint32_t total;  // tiles
  Outer<kDims> outer;
};

// Lanes ask each other for the decisions of what they hold: the j-th access of a warp touches
// V * kWarp consecutive elements, whatever the type, at one Philox call for eight elements.
// `kShifted`: input is not aligned where the output is.
template <class Rule, bool kShifted, int kDims>
__global__ void __launch_bounds__(kThreads, 4)
    dropout_row(Call<Rule> call, LongRows<kDims> rows) {
  using T = typename Rule::Element;
  constexpr int V = kWidth<T>;
  constexpr int kBlocks = kLaneBlocks<T>;
  constexpr int kPerBlock = kBlock / V;  // accesses
  constexpr int kAccesses = kBlocks * kPerBlock;
  const int lane = lane_number();
  RngState state{};
  // Elements begin ... end - 1 of a tile; `whole` says at compile time that these are all.
  const auto handle = [&](const T* x, T* y, uint64_t block, int begin, int end, auto whole) {
    constexpr bool kWhole = decltype(whole)::value;
    const int shift = kShifted ? elements_beyond<V>(x) : 0;
    const auto begin_at = [&](int position) { return kWhole ? 0 : begin - position; };
    const auto end_at = [&](int position) { return kWhole ? V : end - position; };
    Pack<T, V> packs[kAccesses];
#pragma unroll
    for (int j = 0; j < kAccesses; ++j) {
      const int position = (j * kWarp + lane) * V;
      packs[j] = load_first<V>(x + position, shift, begin_at(position), end_at(position));
    }
    const KeepBlocks<kBlocks> own =
        keep_blocks<kBlocks>(state, block + static_cast<uint64_t>(lane), kWarp, call.threshold);
    if constexpr (kShifted) {
#pragma unroll
      for (int j = 0; j < kAccesses; ++j) {
        const int position = (j * kWarp + lane) * V;
        packs[j] = join_next(
            packs[j], x + position, shift, begin_at(position), end_at(position),
            lane < kWarp - 1);
      }
    }
#pragma unroll
    for (int j = 0; j < kAccesses; ++j) {
      const int position = (j * kWarp + lane) * V;
      packs[j].apply(call.rule, keep_of_pack<V>(own.bits[j / kPerBlock], j % kPerBlock));
      if constexpr (kWhole) {
        store(reinterpret_cast<Pack<T, V>*>(y + position), packs[j]);
      } else {
        store_part(y + position, packs[j], begin_at(position), end_at(position));
      }
    }
  };
  // Asked of a lane, so that the compiler knows it to be the warp's: index arithmetic and
  // branches below are uniform.
  const uint32_t begins = from_lane(warp_number(), 0);
  for (uint32_t unit = begins; unit < rows.total; unit += warps()) {
    uint32_t tile = unit;
    const Place row = rows.outer.place(kDims == 0 ? 0 : rows.tiles.divide(unit, tile));
    const int64_t origin = int64_t{tile} * kTile<T> - static_cast<int>(row.mask % kBlock);
    const int64_t left = rows.size - origin;
    const T* const x = call.x + row.in + origin;
    T* const y = call.y + row.out + origin;
    const uint64_t block = (row.mask + static_cast<uint64_t>(origin)) / kBlock;
    if (unit == begins || (kDims > 0 && rows.outer.state != 0)) {
      const int sector = lane * (kTile<T> / kWarp);
      if (call.source.seed != nullptr && origin + sector >= 0 && sector < left) {
        prefetch(x + sector);  // while the state is waited for
      }
      state = load_state(call.source, row.state);
    }
    if (origin >= 0 && left >= kTile<T>) {
      handle(x, y, block, 0, kTile<T>, std::true_type{});
    } else {
      const int begin = origin < 0 ? static_cast<int>(-origin) : 0;
      const int end = left < kTile<T> ? static_cast<int>(left) : kTile<T>;
      handle(x, y, block, begin, end, std::false_type{});
    }
  }
  record_state(call.source);
}

}  // namespace dropout::cuda
