// Chooses a kernel, the width of its accesses and its grid.
#include <algorithm>

#include "core/fold_in.h"
#include "kernels/cuda/row.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/strided.cuh"

namespace dropout::cuda {
namespace {

// Blocks are short, so that the last wave of many costs little. Beyond that a warp takes several
// units of work, which share what it does before the first.
constexpr int64_t kManyBlocks = 16384;
constexpr int64_t kUnitsPerWarp = 8;
// Elements for which a warp draws once where decisions are shared.
constexpr int64_t kSharedElements = 2560;

// (seed, offset) of `count` consecutive calls, each of which reserves two counters.
__global__ void write_states(StateSource source, int64_t count) {
  const RngState state = load_state(source);
  for (int64_t k = warp_number() * kWarp + lane_number(); k < count; k += warps() * kWarp) {
    source.written[2 * k] = static_cast<int64_t>(state.seed);
    source.written[2 * k + 1] = static_cast<int64_t>(state.offset + 2 * static_cast<uint64_t>(k));
  }
}

__global__ void fold_in_states(
    const int64_t* states, const int64_t* numbers, int64_t count, int64_t* folded) {
  for (int64_t k = warp_number() * kWarp + lane_number(); k < count; k += warps() * kWarp) {
    const RngState parent{
        static_cast<uint64_t>(states[2 * k]), static_cast<uint64_t>(states[2 * k + 1])};
    const RngState state = fold_in(parent, static_cast<uint64_t>(numbers[k]));
    folded[2 * k] = static_cast<int64_t>(state.seed);
    folded[2 * k + 1] = static_cast<int64_t>(state.offset);
  }
}

unsigned grid(int64_t units, int64_t units_per_block) {
  const int64_t blocks = divide_up(units, units_per_block);
  const int64_t each = std::clamp<int64_t>(blocks / kManyBlocks, 1, kUnitsPerWarp);
  return static_cast<unsigned>(std::min<int64_t>(divide_up(blocks, each), 0x7fffffff));
}

template <class Rule>
class Launch {
 public:
  Launch(const Task& task, const Call<Rule>& call, cudaStream_t stream)
      : call_(call),
        map_(task.map),
        state_step_(task.samples.count > 1 ? task.samples.state : 0),
        stream_(stream) {
    map_.push({task.samples.count, task.samples.in, task.samples.out, 0});
  }

  cudaError_t run() const {
    const Dim& inner = map_.dims[0];
    const bool dense = inner.in == 1 && inner.out == 1;
    const bool row = dense && inner.mask == 1;
    // Is output aligned where blocks of the mask begin?
    const bool level =
        row && multiples(kWidth<T>, number(call_.y) - map_.base, &Dim::out, &Dim::mask);
    if (level && map_.ndim == 1) {
      return run_long_rows<0>();
    }
    if (map_.numel() > kMostElements) {
      return run_halves();
    }
    if (level && 8 * inner.size >= 7 * tiles() * kTile<T>) {  // few lanes would be idle
      return run_long_rows<IndexMap::kMaxDims>();
    }
    constexpr int kNarrow = 8 / sizeof(T);  // as each neighbour needs decisions of its own
    return row                                                      ? run_rows()
           : dense && inner.size % kNarrow == 0 && aligned(kNarrow) ? run_strided<kNarrow>()
                                                                    : run_strided<1>();
  }

 private:
  using T = typename Rule::Element;

  static uint64_t number(const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) / sizeof(T);
  }
  // Do all rows along the first dimension begin at multiples of `width`, if the first does at
  // `start` and others strides of their dimensions further?
  bool multiples(
      int64_t width, uint64_t start, int64_t Dim::* stride, int64_t Dim::* less = nullptr) const {
    bool multiple = start % static_cast<uint64_t>(width) == 0;
    for (int d = 1; d < map_.ndim; ++d) {
      const Dim& dim = map_.dims[d];
      multiple = multiple && (dim.*stride - (less != nullptr ? dim.*less : 0)) % width == 0;
    }
    return multiple;
  }
  bool aligned(int64_t width) const {
    return multiples(width, number(call_.x), &Dim::in) &&
           multiples(width, number(call_.y), &Dim::out);
  }

  // Is there input that is not aligned where its output is?
  bool shifted() const {
    return !multiples(kWidth<T>, number(call_.x) - number(call_.y), &Dim::in, &Dim::out);
  }

  // All dimensions but these. The number of places there are along them.
  template <int kDims>
  int64_t set_outer(Outer<kDims>& outer, int without, int and_without) const {
    outer.base = map_.base;
    outer.state = state_step_;
    int64_t places = 1;
    for (int d = 0; d < map_.ndim; ++d) {
      if (d != without && d != and_without) {
        outer.sizes[outer.ndim] = Divisor(map_.dims[d].size);
        outer.dims[outer.ndim++] = map_.dims[d];
        places *= map_.dims[d].size;
      }
    }
    return places;
  }

  // Of rows, at most; they may begin within a block of the mask.
  int64_t tiles() const {
    const bool anywhere = !multiples(kBlock, map_.base, &Dim::mask);
    return divide_up(map_.dims[0].size + (anywhere ? kBlock - 1 : 0), kTile<T>);
  }

  template <int kDims>
  cudaError_t run_long_rows() const {
    LongRows<kDims> rows{map_.dims[0].size, Divisor(tiles()), 0, {}};
    rows.total = static_cast<uint32_t>(tiles() * set_outer(rows.outer, 0, 0));
    return start_warps(
        shifted() ? dropout_row<Rule, true, kDims> : dropout_row<Rule, false, kDims>, rows.total,
        rows);
  }

  cudaError_t run_rows() const {
    const uint64_t out = number(call_.y);
    const bool apart = !multiples(kBlock, out - map_.base, &Dim::out, &Dim::mask);
    const int64_t lead =
        (multiples(kBlock, out, &Dim::out) ? 0 : kBlock - 1) + (apart ? kBlock - 1 : 0);
    Rows rows{static_cast<int>(map_.dims[0].size), {}, 0, apart ? 1 : 0, shifted(), {}};
    rows.groups = Divisor(divide_up(rows.size + lead, kBlock));
    rows.total = static_cast<uint32_t>(rows.groups.size * set_outer(rows.outer, 0, 0));
    return start_warps(dropout_rows<Rule>, divide_up(rows.total, kWarp - rows.overlap), rows);
  }

  template <int V>
  cudaError_t run_strided() const {
    const int run_dim = map_.run_dim();
    const bool near_run = run_dim == 0;
    const int far_dim = !near_run ? run_dim : map_.ndim - (state_step_ != 0) > 1 ? 1 : -1;
    const Dim& near = map_.dims[0];
    const Dim far = far_dim < 0 ? Dim{1, 0, 0, 0} : map_.dims[far_dim];
    const bool shared = near.mask == 0;
    int64_t owners = near_run ? divide_up(near.size, kRun) : near.size;
    owners = shared ? 1 : std::min<int64_t>(owners, kWarp);
    int64_t near_tile = near_run ? owners * kRun : owners;
    int64_t far_tile = kWarp / owners * (near_run ? 1 : kRun);
    if (shared) {
      const int64_t elements = kSharedElements * (far.size > kBlock ? 2 : 1);
      near_tile = elements / std::min<int64_t>(far.size, kRun) / kWarp * kWarp;
      far_tile = kRun * std::clamp<int64_t>(
                            elements / (kRun * std::min(near_tile, near.size)), 1, kWarp);
    }
    near_tile = std::min(near_tile, near.size);
    far_tile = std::min(far_tile, far.size);
    const int64_t packs = divide_up(near_tile, V);
    const Divisor near_tiles(divide_up(near.size, near_tile));
    const Divisor far_tiles(divide_up(far.size, far_tile));
    const auto slots = static_cast<int>(divide_up(packs * far_tile, kWarp) * kWarp);
    const int near_bits = shared ? 31 : near_run ? kRunBits : 0;
    Strided strided{
        {near, static_cast<int>(near_tile), near_tiles, near_bits},
        {far, static_cast<int>(far_tile), far_tiles, near_run ? 0 : kRunBits},
        static_cast<int>(owners),
        Divisor(packs),
        slots,
        0,
        {}};
    const int64_t places = set_outer(strided.outer, 0, far_dim);
    strided.total = static_cast<uint32_t>(places * near_tiles.size * far_tiles.size);
    return start_warps(dropout_strided<Rule, V>, strided.total, strided);
  }

  // The halves of the outermost dimension that has any, one after the other.
  cudaError_t run_halves() const {
    int d = map_.ndim - 1;
    while (map_.dims[d].size == 1) {
      --d;
    }
    Launch first = *this;
    Launch second = *this;
    const Dim& dim = map_.dims[d];
    const int64_t half = dim.size < 2 * kBlock ? dim.size / 2 : dim.size / 2 / kBlock * kBlock;
    first.map_.dims[d].size = half;
    second.map_.dims[d].size -= half;
    second.map_.base += static_cast<uint64_t>(half * dim.mask);
    second.call_.x += half * dim.in;
    second.call_.y += half * dim.out;
    if (state_step_ != 0 && d == map_.ndim - 1) {
      second.call_.source.seed += half * state_step_;
      second.call_.source.offset += half * state_step_;
    }
    const cudaError_t error = first.run();
    return error == cudaSuccess ? second.run() : error;
  }

  // A warp for each unit of work.
  template <class... Parameters, class... Work>
  cudaError_t start_warps(
      void (*kernel)(Parameters...), int64_t units, const Work&... work) const {
    return start(kernel, grid(units, kThreads / kWarp), kThreads, stream_, call_, work...);
  }

  Call<Rule> call_;
  IndexMap map_;
  int64_t state_step_;  // between samples, which are the last dimension then; 0 if there are none
  cudaStream_t stream_;
};

}  // namespace

cudaError_t launch(const Task& task, const StateSource& source, cudaStream_t stream) {
  return with_rule(task.dtype, task.coefficients, [&](const auto& rule) {
    using Rule = std::decay_t<decltype(rule)>;
    using T = typename Rule::Element;
    const Call<Rule> call{
        static_cast<const T*>(task.in), static_cast<T*>(task.out), source, task.threshold, rule};
    return Launch<Rule>(task, call, stream).run();
  });
}

cudaError_t launch_write_states(const StateSource& source, int64_t count, cudaStream_t stream) {
  return start(write_states, grid(count, kThreads), kThreads, stream, source, count);
}

cudaError_t launch_fold_in(
    const int64_t* states,
    const int64_t* numbers,
    int64_t count,
    int64_t* folded,
    cudaStream_t stream) {
  return start(
      fold_in_states, grid(count, kThreads), kThreads, stream, states, numbers, count, folded);
}

}  // namespace dropout::cuda
