// Chooses a kernel, the width of its accesses and its grid.
#include <algorithm>
#include <numeric>

#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/states.cuh"
#include "kernels/cuda/strided.cuh"

namespace dropout::cuda {
namespace {

constexpr int64_t kMaxAccessBytes = 16;
// Rows shorter than this leave too many lanes of a warp without an element.
constexpr int64_t kShortestRow = kWarp * kBlock / 2;
// A thread executes about a hundred instructions before its first unit of work, a third of those
// of a unit. Beyond some waves on the largest device it is given more units instead.
constexpr int64_t kManyBlocks = 4096;
constexpr int64_t kUnitsPerThread = 8;

unsigned grid(int64_t units, int64_t units_per_block) {
  const int64_t blocks = divide_up(units, units_per_block);
  const int64_t capped =
      std::min(blocks, std::max(kManyBlocks, divide_up(blocks, kUnitsPerThread)));
  return static_cast<unsigned>(std::min<int64_t>(capped, 0x7fffffff));
}

// Can all accesses be `width` elements wide? That is so if the pointers and every step between
// the starts of accesses are multiples of the width; likewise for mask indices if
// `split_blocks` is false, so that no access spans two blocks.
bool wide_accesses(
    const Task& task, int dense_dim, int64_t element_size, int64_t width, bool split_blocks) {
  const IndexMap& map = task.map;
  const Dim& dense = map.dims[dense_dim];
  const auto aligned = [&](const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % static_cast<uint64_t>(width * element_size) ==
           0;
  };
  bool wide = dense.in == 1 && dense.out == 1 && aligned(task.in) && aligned(task.out) &&
              (split_blocks || map.base % static_cast<uint64_t>(width) == 0);
  const Samples& samples = task.samples;
  wide = wide && samples.in % width == 0 && samples.out % width == 0;
  for (int d = 0; d < map.ndim; ++d) {
    const Dim& dim = map.dims[d];
    wide = wide && (d == dense_dim || (dim.in % width == 0 && dim.out % width == 0 &&
                                       (split_blocks || dim.mask % width == 0)));
  }
  return wide;
}

Outer outer_dims(const IndexMap& map, int without, int and_without) {
  Outer outer;
  outer.ndim = 0;
  for (int d = 0; d < map.ndim; ++d) {
    if (d != without && d != and_without) {
      outer.dims[outer.ndim++] = map.dims[d];
    }
  }
  return outer;
}

int64_t product(const Outer& outer) {
  int64_t n = 1;
  for (int d = 0; d < outer.ndim; ++d) {
    n *= outer.dims[d].size;
  }
  return n;
}

// Launches the kernel on every sample, as many at a time as a grid has room for.
template <class T, class Kernel, class Work, class Rule>
cudaError_t launch_samples(
    const Kernel& kernel,
    unsigned blocks,
    const Task& task,
    const StateSource& source,
    const Work& work,
    const Rule& rule,
    cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  for (int64_t first = 0; error == cudaSuccess && first < task.samples.count;
       first += kMaxSamples) {
    const int64_t count = std::min(kMaxSamples, task.samples.count - first);
    error = start(
        kernel, blocks, static_cast<unsigned>(count), kThreads, stream,
        static_cast<const T*>(task.in), static_cast<T*>(task.out), work, source, task.threshold,
        rule, task.samples, first);
  }
  return error;
}

// How far into its first block a row may begin: all rows do so at the same position modulo what
// the other mask strides have in common with the size of a block.
int64_t largest_lead(const IndexMap& map) {
  uint64_t common = kBlock;
  for (int d = 1; d < map.ndim; ++d) {
    common = std::gcd(common, static_cast<uint64_t>(map.dims[d].mask));
  }
  return static_cast<int64_t>(map.base % common + kBlock - common);
}

template <class Rule>
cudaError_t launch_rows(
    const Task& task, const StateSource& source, const Rule& rule, cudaStream_t stream) {
  using T = typename Rule::Element;
  const IndexMap& map = task.map;
  constexpr int kWidth =
      static_cast<int>(std::min<int64_t>(kBlock, kMaxAccessBytes / int64_t{sizeof(T)}));
  Rows rows;
  rows.row = map.dims[0];
  rows.base = map.base;
  rows.outer = outer_dims(map, 0, 0);
  const bool single = rows.outer.ndim == 0;
  const int64_t lead = largest_lead(map);
  const int64_t tile = single ? kTile<T, true> : kTile<T, false>;
  rows.tiles_per_row = divide_up(rows.row.size + lead, tile);
  rows.tiles = rows.tiles_per_row * product(rows.outer);
  const bool wide = wide_accesses(task, 0, sizeof(T), kWidth, /*split_blocks=*/false);
  const auto kernel =
      wide ? (single ? dropout_rows<Rule, kWidth, true> : dropout_rows<Rule, kWidth, false>)
           : (single ? dropout_rows<Rule, 1, true> : dropout_rows<Rule, 1, false>);
  const unsigned blocks = grid(rows.tiles, kThreads / kWarp);
  return launch_samples<T>(kernel, blocks, task, source, rows, rule, stream);
}

template <class Rule>
cudaError_t launch_strided(
    const Task& task, const StateSource& source, const Rule& rule, cudaStream_t stream) {
  using T = typename Rule::Element;
  const IndexMap& map = task.map;
  // Narrower than elsewhere, as each neighbour needs decisions of its own.
  constexpr int kWidth = static_cast<int>(std::min<int64_t>(4, 8 / int64_t{sizeof(T)}));
  const int run_dim = map.run_dim();
  const int lane_dim = run_dim == 0 ? (map.ndim > 1 ? 1 : -1) : 0;
  constexpr Dim kNone{1, 0, 0, 0};
  Strided strided;
  strided.lanes = lane_dim < 0 ? kNone : map.dims[lane_dim];
  strided.run = run_dim < 0 ? kNone : map.dims[run_dim];
  strided.base = map.base;
  strided.outer = outer_dims(map, run_dim, lane_dim);
  const bool wide = lane_dim >= 0 && strided.lanes.size % kWidth == 0 &&
                    wide_accesses(task, lane_dim, sizeof(T), kWidth, /*split_blocks=*/true);
  strided.packs = wide ? strided.lanes.size / kWidth : strided.lanes.size;
  strided.runs_per_dim = divide_up(strided.run.size, kRun);
  strided.units = strided.packs * strided.runs_per_dim * product(strided.outer);
  const auto kernel = wide ? dropout_strided<Rule, kWidth> : dropout_strided<Rule, 1>;
  return launch_samples<T>(
      kernel, grid(strided.units, kThreads), task, source, strided, rule, stream);
}

}  // namespace

cudaError_t launch(const Task& task, const StateSource& source, cudaStream_t stream) {
  const IndexMap& map = task.map;
  const bool rows = map.dims[0].mask == 1 && (map.ndim == 1 || map.dims[0].size >= kShortestRow);
  return with_rule(task.dtype, task.coefficients, [&](const auto& rule) {
    return rows ? launch_rows(task, source, rule, stream)
                : launch_strided(task, source, rule, stream);
  });
}

cudaError_t launch_write_states(const StateSource& source, int64_t count, cudaStream_t stream) {
  return start(write_states, grid(count, kThreads), 1, kThreads, stream, source, count);
}

}  // namespace dropout::cuda
