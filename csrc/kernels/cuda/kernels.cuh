// The kernels. Two loops cover every layout: along rows whose mask indices are consecutive, a
// warp at a time; and over everything else, a run of mask indices per thread.
#pragma once

#include <cstdint>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernel.h"

namespace dropout::cuda {

constexpr int kWarp = 32;
constexpr int kThreads = 256;
// What a warp handles together: each lane draws the decisions of one block.
constexpr int kTile = kWarp * kBlock;
// Mask indices that a thread of the strided kernel handles along the run dimension.
constexpr int kRun = 16;

// V elements that are read or written in one access.
template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  T element[V];
};

// n / size and n % size; most operands fit 32 bits, whose division is several times cheaper.
__device__ __forceinline__ int64_t divide(int64_t n, int64_t size, int64_t& remainder) {
  if (static_cast<uint64_t>(n | size) >> 32 == 0) {
    const uint32_t quotient = static_cast<uint32_t>(n) / static_cast<uint32_t>(size);
    remainder = static_cast<uint32_t>(n) - quotient * static_cast<uint32_t>(size);
    return quotient;
  }
  const int64_t quotient = n / size;
  remainder = n - quotient * size;
  return quotient;
}

// `step` leads to the state of this sample.
__device__ __forceinline__ RngState load_state(const StateSource& source, int64_t step = 0) {
  RngState state = source.value;
  if (source.seed != nullptr) {
    state.seed = static_cast<uint64_t>(source.seed[step]);
  }
  if (source.offset != nullptr) {
    state.offset += static_cast<uint64_t>(source.offset[step]);
  }
  state.offset >>= source.shift;
  if (source.written != nullptr && blockIdx.x == 0 && threadIdx.x == 0) {
    source.written[0] = static_cast<int64_t>(state.seed);
    source.written[1] = static_cast<int64_t>(state.offset);
  }
  return state;
}

// (seed, offset) of `count` consecutive calls, each of which reserves two counters.
__global__ void write_states(StateSource source, int64_t count) {
  int64_t* written = source.written;
  source.written = nullptr;
  const RngState state = load_state(source);
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t k = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; k < count;
       k += threads) {
    written[2 * k] = static_cast<int64_t>(state.seed);
    written[2 * k + 1] = static_cast<int64_t>(state.offset + 2 * static_cast<uint64_t>(k));
  }
}

// Where a unit of work begins.
struct Start {
  int64_t in;
  int64_t out;
  uint64_t mask;

  __device__ __forceinline__ void move(int64_t n, const Dim& dim) {
    in += n * dim.in;
    out += n * dim.out;
    mask += static_cast<uint64_t>(n * dim.mask);
  }
};

// The dimensions beside those a kernel walks along.
struct Outer {
  int ndim;
  Dim dims[IndexMap::kMaxDims];

  __device__ __forceinline__ void move(Start& start, int64_t index) const {
    for (int d = 0; d < ndim; ++d) {
      int64_t position;
      index = divide(index, dims[d].size, position);
      start.move(position, dims[d]);
    }
  }
};

struct Rows {
  Dim row;  // mask stride 1; dense where packs have more than one element
  int64_t tiles_per_row;
  int64_t tiles;
  uint64_t base;
  Outer outer;
};

// Rows along which mask indices are consecutive. Tiles begin where blocks do, so that a row that
// begins inside a block has a first tile with idle lanes, and every element's decision is the
// one its block gives. The j-th access of a warp touches V * kWarp consecutive elements, whose
// decisions the lanes ask of each other: wide and coalesced for every dtype at one Philox call
// for eight elements.
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
  constexpr int kAccesses = kBlock / V;
  const int64_t sample = first_sample + blockIdx.y;
  x += sample * samples.in;
  y += sample * samples.out;
  const RngState state = load_state(source, sample * samples.state);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t first_warp = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kWarp;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kThreads / kWarp);
  for (int64_t unit = first_warp; unit < rows.tiles; unit += warps) {
    Start start{0, 0, rows.base};
    int64_t tile = unit;
    if constexpr (!kSingleRow) {
      rows.outer.move(start, divide(unit, rows.tiles_per_row, tile));
    }
    const int64_t lead = static_cast<int64_t>(start.mask % kBlock);
    const int64_t origin = tile * kTile - lead;  // of the tile, in elements of the row

    Pack<T, V> packs[kAccesses];
#pragma unroll
    for (int j = 0; j < kAccesses; ++j) {
      const int64_t e = origin + (j * kWarp + lane) * V;
      const T* from = x + start.in + e * rows.row.in;
      if (e >= 0 && e + V <= rows.row.size) {
        packs[j] = *reinterpret_cast<const Pack<T, V>*>(from);
      } else {
        for (int v = 0; v < V; ++v) {
          packs[j].element[v] = e + v >= 0 && e + v < rows.row.size ? from[v] : T{};
        }
      }
    }
    const uint64_t block = start.mask / kBlock + static_cast<uint64_t>(tile * kWarp + lane);
    const uint32_t own_keep = keep_block(state, block, threshold);
#pragma unroll
    for (int j = 0; j < kAccesses; ++j) {
      const int position = (j * kWarp + lane) * V;
      const uint32_t keep =
          V == kBlock ? own_keep : from_lane(own_keep, position / kBlock) >> (position % kBlock);
      const int64_t e = origin + position;
      T* to = y + start.out + e * rows.row.out;
#pragma unroll
      for (int v = 0; v < V; ++v) {
        T& element = packs[j].element[v];
        element = rule(element, ((keep >> v) & 1) != 0);
      }
      if (e >= 0 && e + V <= rows.row.size) {
        *reinterpret_cast<Pack<T, V>*>(to) = packs[j];
      } else {
        for (int v = 0; v < V; ++v) {
          if (e + v >= 0 && e + v < rows.row.size) {
            to[v] = packs[j].element[v];
          }
        }
      }
    }
  }
}

// Keep bits of kRun mask indices that are 0 or 1 apart.
__device__ __forceinline__ uint32_t
keep_run(RngState state, uint64_t first, int64_t stride, Threshold threshold) {
  const uint64_t block = first / kBlock;
  const int shift = static_cast<int>(first % kBlock);
  uint32_t bits = keep_block(state, block, threshold);
  if (stride == 0) {
    return ((bits >> shift) & 1) != 0 ? ~uint32_t{0} : 0;
  }
#pragma unroll
  for (int b = 1; b < kRun / kBlock; ++b) {
    bits |= keep_block(state, block + b, threshold) << (b * kBlock);
  }
  if (shift != 0) {
    bits |= keep_block(state, block + kRun / kBlock, threshold) << kRun;
  }
  return bits >> shift;
}

struct Strided {
  Dim lanes;  // neighbouring threads are neighbours here; dense where packs have many elements
  Dim run;    // mask stride 1, or of size 1
  int64_t packs;  // along `lanes`
  int64_t runs_per_dim;
  int64_t units;
  uint64_t base;
  Outer outer;
};

// Any layout: a thread has W neighbours in memory and walks kRun steps along the run dimension.
template <class Rule, int W>
__global__ void __launch_bounds__(kThreads) dropout_strided(
    const typename Rule::Element* x,
    typename Rule::Element* y,
    Strided strided,
    StateSource source,
    Threshold threshold,
    Rule rule,
    Samples samples,
    int64_t first_sample) {
  using T = typename Rule::Element;
  const int64_t sample = first_sample + blockIdx.y;
  x += sample * samples.in;
  y += sample * samples.out;
  const RngState state = load_state(source, sample * samples.state);
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t unit = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
       unit < strided.units; unit += threads) {
    Start start{0, 0, strided.base};
    int64_t pack;
    int64_t run;
    const int64_t rest = divide(unit, strided.packs, pack);
    strided.outer.move(start, divide(rest, strided.runs_per_dim, run));
    start.move(pack * W, strided.lanes);
    start.move(run * kRun, strided.run);
    const int64_t count = strided.run.size - run * kRun;  // may exceed kRun

    Pack<T, W> values[kRun];
#pragma unroll
    for (int r = 0; r < kRun; ++r) {
      if (r < count) {
        values[r] = *reinterpret_cast<const Pack<T, W>*>(x + start.in + r * strided.run.in);
      }
    }
    uint32_t keep[W];
#pragma unroll
    for (int w = 0; w < W; ++w) {
      keep[w] = w > 0 && strided.lanes.mask == 0
                    ? keep[0]
                    : keep_run(
                          state, start.mask + static_cast<uint64_t>(w * strided.lanes.mask),
                          strided.run.mask, threshold);
    }
#pragma unroll
    for (int r = 0; r < kRun; ++r) {
      if (r < count) {
#pragma unroll
        for (int w = 0; w < W; ++w) {
          T& element = values[r].element[w];
          element = rule(element, ((keep[w] >> r) & 1) != 0);
        }
        *reinterpret_cast<Pack<T, W>*>(y + start.out + r * strided.run.out) = values[r];
      }
    }
  }
}

}  // namespace dropout::cuda
