// Turns an index map into units of work: which loop a layout gets.
#include <algorithm>

#include "kernels/cpu/kernel.h"

namespace dropout::cpu {
namespace {

// Elements that take about as long as waking a thread.
constexpr int64_t kGrainElements = 32768;
// A shared row is a decision and its copies: below this length, taking rows one by one shows.
constexpr int64_t kShortSharedRow = 512;
// Outputs this large are gone from the caches before they are read again.
constexpr int64_t kStreamBytes = int64_t{32} << 20;
constexpr uintptr_t kStreamAlignment = 64;

int64_t element_size(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::kFloat64:
      return 8;
    case ScalarType::kFloat32:
      return 4;
    case ScalarType::kBFloat16:
    case ScalarType::kFloat16:
      return 2;
    case ScalarType::kBool:
      break;
  }
  return 1;
}

bool is_flat(const IndexMap& map) {
  const Dim& row = map.dims[0];
  return map.ndim == 1 && row.mask == 1 && row.in == 1 && row.out == 1 && map.base % kWord == 0;
}

// Do rows of length row.size follow each other without a gap?
bool rows_adjacent(const Dim& row, const Dim& next) {
  return row.in == 1 && row.out == 1 && next.in == row.size && next.out == row.size;
}

// Do all runs begin at multiples of kWord?
bool runs_aligned(const IndexMap& map, int run_dim) {
  bool aligned = map.base % kWord == 0;
  for (int d = 0; d < map.ndim; ++d) {
    aligned = aligned && (d == run_dim || map.dims[d].mask % kWord == 0);
  }
  return aligned;
}

void push_loop(Plan& plan, int64_t size, const Dim& dim, int64_t step) {
  plan.loops[plan.nloops++] = {size, step * dim.in, step * dim.out, step * dim.mask};
}

int push_pieces(Plan& plan, const Dim& dim, int64_t piece) {
  if (dim.size <= piece) {
    return -1;
  }
  push_loop(plan, divide_up(dim.size, piece), dim, piece);
  return plan.nloops - 1;
}

}  // namespace

Plan make_plan(const Task& task) {
  const IndexMap& map = task.map;
  Plan plan;
  plan.row = map.dims[0];
  plan.run = {1, 0, 0, 0};
  plan.adjacent = false;
  plan.stream = false;
  plan.base = map.base;
  plan.nloops = 0;
  plan.row_loop = -1;
  plan.run_loop = -1;
  if (is_flat(map)) {
    plan.kind = Kind::kFlat;
    plan.units = divide_up(plan.row.size, kWord);
    plan.grain = kGrainElements / kWord;
    // In place the caches hold what is written, as it was read there.
    const bool in_place = task.in == task.out && task.dtype != ScalarType::kBool;
    // Of several samples only the first is known to be aligned.
    plan.stream = !in_place && task.samples.count == 1 &&
                  plan.row.size * element_size(task.dtype) >= kStreamBytes &&
                  reinterpret_cast<uintptr_t>(task.out) % kStreamAlignment == 0;
    return plan;
  }
  const int run_dim = map.run_dim();
  int inner = -1;  // the dimension that shares a unit with dims[0]
  const bool adjacent = map.ndim > 1 && rows_adjacent(plan.row, map.dims[1]);
  const bool shared_row = plan.row.mask == 0;
  // Decisions that are far apart cost a word each, which is more than taking rows one by one.
  const bool short_row =
      plan.row.size < (shared_row && adjacent && map.dims[1].mask <= 1 ? kShortSharedRow : kWord);
  if (run_dim > 0 && (!shared_row || (!adjacent && plan.row.size < kWord))) {
    plan.kind = Kind::kTile;
    inner = run_dim;
    const bool aligned = runs_aligned(map, run_dim);
    plan.row_piece = std::min(plan.row.size, aligned ? kAlignedTileColumns : kTileColumns);
    plan.run_piece = aligned ? kAlignedTileRun : kTileRun;
    plan.run = map.dims[inner];
    plan.adjacent = plan.row.size == plan.row_piece && rows_adjacent(plan.row, plan.run);
  } else if (adjacent && short_row) {
    plan.kind = Kind::kPacked;
    inner = 1;
    plan.row_piece = plan.row.size;
    plan.run_piece = kSegment / plan.row.size;
    plan.run = map.dims[inner];
  } else {
    plan.kind = Kind::kRows;
    plan.row_piece = std::min(plan.row.size, kSegment);
    plan.run_piece = 1;
  }
  // Dimensions that share their decisions come first: consecutive units then have the same words.
  for (const bool shared : {true, false}) {
    if (!shared) {
      plan.row_loop = push_pieces(plan, plan.row, plan.row_piece);
      plan.run_loop = push_pieces(plan, plan.run, plan.run_piece);
    }
    for (int d = 1; d < map.ndim; ++d) {
      if (d != inner && (map.dims[d].mask == 0) == shared) {
        push_loop(plan, map.dims[d].size, map.dims[d], 1);
      }
    }
  }
  plan.units = 1;
  for (int loop = 0; loop < plan.nloops; ++loop) {
    plan.units *= plan.loops[loop].size;
  }
  plan.grain = std::max<int64_t>(1, kGrainElements / divide_up(map.numel(), plan.units));
  return plan;
}

}  // namespace dropout::cpu
