// What a GPU would see of a kernel: the accesses of its warps and the work of its lanes.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <vector>

namespace emulation {

constexpr int kLanes = 32;
constexpr uint64_t kSectorBytes = 32;

// Sums over the kernels that ran. A warp executes what any of its lanes does, so that calls and
// elements are those of its busiest lane, 32 times.
struct Counts {
  int64_t load_sectors = 0;  // over the accesses of all warps
  int64_t store_sectors = 0;
  int64_t accesses = 0;    // of warps
  int64_t idle_lanes = 0;  // over these accesses
  int64_t calls = 0;       // of Philox
  int64_t applied = 0;     // elements that the rule was applied to
  int64_t threads = 0;
  int64_t busy_threads = 0;  // those that read or wrote anything
  int64_t launches = 0;
  int64_t blocks = 0;
  int64_t parameter_bytes = 0;  // of the largest launch
};

enum class Mode { kRun, kCount, kPlan };  // kPlan: kernels are launched, but not run

inline Mode mode = Mode::kRun;
inline Counts counts;

// Of the lane that runs.
inline int64_t& calls() {
  static thread_local int64_t number = 0;
  return number;
}
inline int64_t& applied() {
  static thread_local int64_t number = 0;
  return number;
}

// The accesses of one warp. Those of its lanes belong together that come from the same place in
// the source, at the same time around.
class Accesses {
 public:
  void add(
      int lane,
      bool is_store,
      uint32_t line,
      uint32_t column,
      bool active,
      const void* at,
      int bytes) {
    const uint64_t site = (uint64_t{line} << 16 | column) * 2 + (is_store ? 1 : 0);
    const uint64_t time = times_[site][lane]++;
    if (active) {
      const auto first = reinterpret_cast<uintptr_t>(at);
      for (uint64_t s = first / kSectorBytes; s <= (first + bytes - 1) / kSectorBytes; ++s) {
        touched_.push_back({time << 40 | site, s, lane});
      }
      busy_ |= uint32_t{1} << lane;
    }
  }

  // Adds what was noted to `counts`, and forgets it.
  void tally(int lanes, int64_t most_calls, int64_t most_applied) {
    std::sort(touched_.begin(), touched_.end());
    for (size_t k = 0; k < touched_.size(); ++k) {
      const bool fresh = k == 0 || touched_[k].access != touched_[k - 1].access;
      if (fresh) {
        tally_lanes(k);
      }
      if (fresh || touched_[k].sector != touched_[k - 1].sector) {
        ++(touched_[k].access % 2 == 1 ? counts.store_sectors : counts.load_sectors);
      }
    }
    counts.calls += kLanes * most_calls;
    counts.applied += kLanes * most_applied;
    counts.threads += lanes;
    counts.busy_threads += __builtin_popcount(busy_);
    touched_.clear();
    times_.clear();
    busy_ = 0;
  }

 private:
  struct Touched {
    uint64_t access;
    uint64_t sector;
    int lane;
    bool operator<(const Touched& other) const {
      return access != other.access ? access < other.access : sector < other.sector;
    }
  };

  void tally_lanes(size_t k) {
    uint32_t lanes = 0;
    for (size_t e = k; e < touched_.size() && touched_[e].access == touched_[k].access; ++e) {
      lanes |= uint32_t{1} << touched_[e].lane;
    }
    ++counts.accesses;
    counts.idle_lanes += kLanes - __builtin_popcount(lanes);
  }

  std::vector<Touched> touched_;
  std::map<uint64_t, std::array<uint64_t, kLanes>> times_;  // how often a lane came by
  uint32_t busy_ = 0;
};

}  // namespace emulation
