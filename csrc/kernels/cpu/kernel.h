// CPU dropout over raw pointers. The caller splits [0, plan.units) among its threads.
#pragma once

#include <cstdint>

#include "kernels/task.h"

namespace dropout::cpu {

// Elements per keep word, the unit in which masks are generated: bit j of word g says whether
// the element with mask index 64 * g + j is kept.
constexpr int64_t kWord = 64;
// Longest piece of a row whose keep words are held in a buffer.
constexpr int64_t kSegment = 2048;
// A transposed tile is this many elements along dims[0] by this many along the run dimension. It
// is wide, for memory is read in long pieces then; but where runs do not begin at multiples of
// kWord they take one word more each, which long runs make up for.
constexpr int64_t kAlignedTileColumns = 512;
constexpr int64_t kAlignedTileRun = kWord;
constexpr int64_t kTileColumns = 256;
constexpr int64_t kTileRun = 2 * kWord;

// What one unit of work is.
enum class Kind : uint8_t {
  kFlat,    // one dense run from a mask index that is a multiple of kWord: a word per unit
  kRows,    // a segment of a row along dims[0]
  kPacked,  // short rows that are adjacent in memory, taken together as a segment
  kTile,    // a piece of dims[0] by a piece of the run dimension: the keep words are made along
            // the run and transposed
};

struct Plan {
  Kind kind;
  bool adjacent;  // kTile: the rows of a tile follow each other in memory
  bool stream;    // kFlat: write past the caches
  Dim row;        // dims[0]
  Dim run;        // kTile: the run dimension; kPacked: the dimension of the short rows
  int row_loop;   // index of the loop over pieces of `row`; -1 if a unit spans it
  int run_loop;   // likewise for `run`
  int64_t row_piece;
  int64_t run_piece;
  uint64_t base;
  int nloops;
  Dim loops[IndexMap::kMaxDims + 2];  // what the units are counted along; loops[0] is the fastest
  int64_t units;
  int64_t grain;  // units that are worth waking a thread for
};

Plan make_plan(const Task& task);

// Units [begin, end) of the plan for one of the task's samples, on the active path.
void run(
    const Plan& plan,
    const Task& task,
    int64_t sample,
    RngState state,
    int64_t begin,
    int64_t end);

// The instruction sets this build knows, best last.
enum class Path : uint8_t { kScalar, kAvx2, kAvx512 };
constexpr int kPaths = 3;

const char* path_name(Path path);
bool path_supported(Path path);
Path active_path();
// False if this machine cannot run the path; nothing is changed then.
bool set_active_path(Path path);

}  // namespace dropout::cpu
