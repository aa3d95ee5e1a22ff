// Chooses a kernel, the width of its accesses and its grid.
#include <algorithm>

#include "kernels/cuda/row.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/states.cuh"
#include "kernels/cuda/strided.cuh"
#include "kernels/cuda/unaligned.cuh"

namespace dropout::cuda {
namespace {

// A block is short, so that the last wave of many costs little. Where it would be a hundredth, a
// warp takes several units of work, which share what it does before the first.
constexpr int64_t kManyBlocks = 16384;
constexpr int64_t kUnitsPerWarp = 8;
// Elements for which a warp draws once where decisions are shared.
constexpr int64_t kSharedElements = 2048;

unsigned grid(int64_t units, int64_t units_per_block) {
  const int64_t blocks = divide_up(units, units_per_block);
  const int64_t each = std::clamp<int64_t>(blocks / kManyBlocks, 1, kUnitsPerWarp);
  return static_cast<unsigned>(std::min<int64_t>(divide_up(blocks, each), 0x7fffffff));
}

template <class Rule>
class Launch {
 public:
  using T = typename Rule::Element;

  Launch(const Task& task, const StateSource& source, const Rule& rule, cudaStream_t stream)
      : task_(task), map_(task.map), source_(source), rule_(rule), stream_(stream) {}

  cudaError_t run() const {
    const Dim& inner = map_.dims[0];
    const bool rows = inner.mask == 1;
    const bool wide = aligned(0, kWidth<T>);
    if (rows && wide && map_.ndim == 1 && task_.samples.count == 1 && map_.base % kBlock == 0) {
      const auto first_block = static_cast<uint64_t>(map_.base / kBlock);
      return start_kernel(
          dropout_row<Rule>, divide_up(inner.size, kTile<T>), inner.size, first_block);
    }
    if (task_.samples.count * map_.numel() > kMostElements) {
      return run_halves();
    }
    return rows ? run_rows(wide) : run_strided();
  }

 private:
  static uint64_t number(const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) / sizeof(T);
  }

  // Do all lines along dimension `line` begin at multiples of `width`? The first does at `start`,
  // others a `stride` of their dimension or a step of the samples further.
  template <class Stride>
  bool multiples(
      int line, int64_t width, uint64_t start, int64_t sample, const Stride& stride) const {
    bool multiple = start % static_cast<uint64_t>(width) == 0 && sample % width == 0;
    for (int d = 0; d < map_.ndim; ++d) {
      multiple = multiple && (d == line || stride(map_.dims[d]) % width == 0);
    }
    return multiple;
  }
  bool out_aligned(int line, int64_t width) const {
    return multiples(line, width, number(task_.out), task_.samples.out, [](const Dim& dim) {
      return dim.out;
    });
  }
  // In memory, in input and output; and are they dense?
  bool aligned(int line, int64_t width) const {
    return map_.dims[line].in == 1 && map_.dims[line].out == 1 && out_aligned(line, width) &&
           multiples(line, width, number(task_.in), task_.samples.in, [](const Dim& dim) {
             return dim.in;
           });
  }
  // Do accesses of this width hold lines and nothing else?
  bool fits(int line, int64_t width) const {
    return map_.dims[line].size % width == 0 && aligned(line, width);
  }

  // All dimensions but these. The number of places there are along them.
  int64_t set_outer(Outer& outer, int without, int and_without) const {
    outer.base = map_.base;
    outer.samples = task_.samples;
    int64_t places = task_.samples.count;
    for (int d = 0; d < map_.ndim; ++d) {
      if (d != without && d != and_without) {
        outer.sizes[outer.ndim] = Divisor(map_.dims[d].size);
        outer.dims[outer.ndim++] = map_.dims[d];
        places *= map_.dims[d].size;
      }
    }
    return places;
  }

  cudaError_t run_rows(bool wide) const {
    constexpr int kHalf = 8 / sizeof(T) < kWidth<T> ? 8 / sizeof(T) : 1;
    const auto mask_aligned = [&](int64_t width) {
      return multiples(0, width, map_.base, 0, [](const Dim& dim) { return dim.mask; });
    };
    const auto whole = [&](int64_t width) { return fits(0, width) && mask_aligned(width); };
    const bool dense = map_.dims[0].in == 1 && map_.dims[0].out == 1;
    const bool unaligned = dense && sizeof(T) < 8 && !whole(kHalf);
    // Between where a row begins in the mask and in memory, modulo a block.
    const bool apart =
        unaligned && !multiples(
                         0, kBlock, number(task_.out) - map_.base, task_.samples.out,
                         [](const Dim& dim) { return dim.out - dim.mask; });
    const bool lead = unaligned ? !out_aligned(0, kBlock) : !mask_aligned(kBlock);
    const int64_t size = map_.dims[0].size + (lead ? kBlock - 1 : 0) + (apart ? kBlock - 1 : 0);
    Rows rows{map_.dims[0], Divisor(divide_up(size, kBlock)), 0, apart ? 1 : 0, {}};
    rows.total = static_cast<uint32_t>(rows.blocks.size * set_outer(rows.outer, 0, 0));
    const auto kernel = unaligned                  ? dropout_unaligned_rows<Rule>
                        : wide && whole(kWidth<T>) ? dropout_rows<Rule, kWidth<T>>
                        : whole(kHalf)             ? dropout_rows<Rule, kHalf>
                                                   : dropout_rows<Rule, 1>;
    return start_kernel(kernel, divide_up(rows.total, kWarp - rows.overlap), rows);
  }

  cudaError_t run_strided() const {
    // Narrower than elsewhere, as each neighbour needs decisions of its own.
    constexpr int kNarrow = 8 / sizeof(T);
    constexpr Dim kNone{1, 0, 0, 0};
    const int run_dim = map_.run_dim();
    const Dim& lanes = map_.dims[0];
    const Dim& run = run_dim < 0 ? kNone : map_.dims[run_dim];
    const bool shared = lanes.mask == 0;
    const bool wide = fits(0, kNarrow);
    const int64_t width = wide ? kNarrow : 1;
    const int64_t runs = divide_up(run.size, kRun);
    int64_t tile_lanes = std::min<int64_t>(lanes.size, kWarp);
    int64_t tile_steps = kRun * std::min(runs, kWarp / tile_lanes);
    if (shared) {
      const int64_t elements = kSharedElements * (run.size > kBlock ? 2 : 1);
      const int64_t most = elements / std::min<int64_t>(run.size, kRun) / kWarp * kWarp;
      tile_lanes = std::min(lanes.size, most);
      tile_steps = kRun * std::clamp<int64_t>(
                              elements / (kRun * tile_lanes), 1, std::min<int64_t>(runs, kWarp));
    }
    tile_steps = std::min(tile_steps, run.size);
    const int64_t tile_packs = divide_up(tile_lanes, width);
    const Divisor lane_tiles(divide_up(lanes.size, tile_lanes));
    const Divisor run_tiles(divide_up(run.size, tile_steps));
    Strided strided{
        lanes,
        run,
        static_cast<int>(shared ? 1 : tile_lanes),
        static_cast<int>(tile_lanes),
        static_cast<int>(tile_steps),
        static_cast<int>(divide_up(tile_packs * tile_steps, kWarp * kInFlight)),
        Divisor(tile_packs),
        lane_tiles,
        run_tiles,
        0,
        {}};
    const int64_t places = set_outer(strided.outer, 0, run_dim);
    strided.total = static_cast<uint32_t>(places * lane_tiles.size * run_tiles.size);
    const auto kernel = wide ? dropout_strided<Rule, kNarrow> : dropout_strided<Rule, 1>;
    return start_kernel(kernel, strided.total, strided);
  }

  // The halves of the samples or of the outermost dimension one after the other.
  cudaError_t run_halves() const {
    Task parts[2] = {task_, task_};
    StateSource rest = source_;
    const Samples& samples = task_.samples;
    const Dim& outermost = map_.dims[map_.ndim - 1];
    int64_t half;
    Dim steps;
    if (samples.count > 1) {
      half = samples.count / 2;
      steps = {samples.count, samples.in, samples.out, 0};
      parts[0].samples.count = half;
      parts[1].samples.count -= half;
      rest.seed += half * samples.state;
      rest.offset += half * samples.state;
    } else {
      steps = outermost;
      half = steps.size / 2;
      half -= half > kBlock ? half % kBlock : 0;
      parts[0].map.dims[map_.ndim - 1].size = half;
      parts[1].map.dims[map_.ndim - 1].size -= half;
    }
    parts[1].in = static_cast<const T*>(task_.in) + half * steps.in;
    parts[1].out = static_cast<T*>(task_.out) + half * steps.out;
    parts[1].map.base += static_cast<uint64_t>(half * steps.mask);
    const cudaError_t error = Launch(parts[0], source_, rule_, stream_).run();
    return error == cudaSuccess ? Launch(parts[1], rest, rule_, stream_).run() : error;
  }

  // A warp for each unit of work.
  template <class... Parameters, class... Work>
  cudaError_t start_kernel(
      void (*kernel)(const T*, T*, Parameters...), int64_t units, const Work&... work) const {
    return start(
        kernel, grid(units, kThreads / kWarp), kThreads, stream_, static_cast<const T*>(task_.in),
        static_cast<T*>(task_.out), work..., source_, task_.threshold, rule_);
  }

  const Task& task_;
  const IndexMap& map_;
  const StateSource& source_;
  const Rule& rule_;
  cudaStream_t stream_;
};

}  // namespace

cudaError_t launch(const Task& task, const StateSource& source, cudaStream_t stream) {
  return with_rule(task.dtype, task.coefficients, [&](const auto& rule) {
    return Launch(task, source, rule, stream).run();
  });
}

cudaError_t launch_write_states(const StateSource& source, int64_t count, cudaStream_t stream) {
  return start(write_states, grid(count, kThreads), kThreads, stream, source, count);
}

}  // namespace dropout::cuda
