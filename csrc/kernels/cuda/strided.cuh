// Every other layout: a run of mask indices per thread.
#pragma once

#include <cstdint>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/pack.cuh"

namespace dropout::cuda {

// Mask indices that a thread handles along the run dimension.
constexpr int kRun = 16;

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

// The first `count` steps of a run; all of them if kWhole.
template <bool kWhole, class Access>
__device__ __forceinline__ void load_run(
    Access (&packs)[kRun], const typename Access::Element* from, int64_t stride, int count) {
#pragma unroll
  for (int r = 0; r < kRun; ++r) {
    packs[r] = load(reinterpret_cast<const Access*>(from), kWhole || r < count);
    from += stride;
  }
}

template <bool kWhole, class Access>
__device__ __forceinline__ void store_run(
    const Access (&packs)[kRun], typename Access::Element* to, int64_t stride, int count) {
#pragma unroll
  for (int r = 0; r < kRun; ++r) {
    store(reinterpret_cast<Access*>(to), packs[r], kWhole || r < count);
    to += stride;
  }
}

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
  const RngState state = begin_sample(x, y, source, samples, first_sample);
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
    const int64_t left = strided.run.size - run * kRun;
    const int count = left < kRun ? static_cast<int>(left) : kRun;

    Pack<T, W> packs[kRun];
    if (count == kRun) {
      load_run<true>(packs, x + start.in, strided.run.in, count);
    } else {
      load_run<false>(packs, x + start.in, strided.run.in, count);
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
      uint32_t neighbours = 0;
#pragma unroll
      for (int w = 0; w < W; ++w) {
        neighbours |= ((keep[w] >> r) & 1) << w;
      }
      packs[r].apply(rule, neighbours);
    }
    if (count == kRun) {
      store_run<true>(packs, y + start.out, strided.run.out, count);
    } else {
      store_run<false>(packs, y + start.out, strided.run.out, count);
    }
  }
}

}  // namespace dropout::cuda
