// CUDA kernels on a host. The lanes of a warp are fibers that take turns, so that an exchange
// between them sees what each of them has put in; warps and blocks run one after the other, which
// is one of the orders a GPU may choose.
#pragma once

#include <cuda_runtime_api.h>
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <source_location>
#include <utility>
#include <vector>

#include "counts.h"

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct Index {
  unsigned x = 0;
};
inline thread_local Index blockIdx, blockDim, threadIdx, gridDim;

namespace emulation {

constexpr size_t kStackBytes = 64 * 1024;

class Warp {
 public:
  static Warp& current() {
    static thread_local Warp warp;
    return warp;
  }

  // Runs `body` once for each of the threads first ... first + count - 1.
  void run(unsigned first, int count, const std::function<void()>& body) {
    body_ = &body;
    count_ = count;
    for (int lane = 0; lane < count; ++lane) {
      finished_[lane] = false;
      exchanges_[lane] = 0;
      work_[lane] = {};
    }
    for (bool running = true; running;) {
      running = false;
      for (lane_ = 0; lane_ < count; ++lane_) {
        if (!finished_[lane_]) {
          threadIdx.x = first + static_cast<unsigned>(lane_);
          work_[lane_].swap_in();
          resume();
          work_[lane_].swap_out();
          running = running || !finished_[lane_];
        }
      }
    }
    if (mode == Mode::kCount) {
      Work most;
      for (const Work& work : work_) {
        most = {std::max(most.calls, work.calls), std::max(most.applied, work.applied)};
      }
      accesses_.tally(count, most.calls, most.applied);
    }
  }

  void note_access(
      bool is_store, const std::source_location& place, bool active, const void* at, int bytes) {
    if (mode == Mode::kCount) {
      accesses_.add(lane_, is_store, place.line(), place.column(), active, at, bytes);
    }
  }

  // __shfl_sync with a full mask: every lane waits until all have arrived. A lane that has left
  // the kernel, or is at another exchange, is the error that it is on a GPU.
  uint32_t exchange(uint32_t value, int from) {
    const int me = lane_;
    const int slot = exchanges_[me]++ % 2;
    values_[slot][me] = value;
    pause();
    for (int lane = 0; lane < kLanes; ++lane) {
      const int ahead = exchanges_[lane] - exchanges_[me];
      diverged_ = diverged_ || lane >= count_ || ahead < 0 || ahead > 1;
    }
    return values_[slot][from];
  }

  // Whether lanes missed each other since this was last asked.
  bool take_diverged() { return std::exchange(diverged_, false); }

 private:
  // What a lane has done so far.
  struct Work {
    int64_t calls = 0;
    int64_t applied = 0;

    void swap_in() {
      emulation::calls() = calls;
      emulation::applied() = applied;
    }
    void swap_out() { *this = {emulation::calls(), emulation::applied()}; }
  };

  // A lane goes on where it paused, or begins. Jumps, as swapcontext makes system calls.
  void resume() {
    if (_setjmp(scheduler_) != 0) {
      return;
    }
    if (!stacks_[lane_].empty()) {
      _longjmp(fibers_[lane_], 1);
    }
    ucontext_t fiber;
    getcontext(&fiber);
    stacks_[lane_].resize(kStackBytes);
    fiber.uc_stack.ss_sp = stacks_[lane_].data();
    fiber.uc_stack.ss_size = kStackBytes;
    fiber.uc_link = nullptr;
    makecontext(&fiber, &Warp::enter, 0);
    setcontext(&fiber);
  }

  void pause() {
    if (_setjmp(fibers_[lane_]) == 0) {
      _longjmp(scheduler_, 1);
    }
  }

  // A fiber outlives the kernels that it runs.
  static void enter() {
    Warp& warp = current();
    for (;;) {
      (*warp.body_)();
      warp.finished_[warp.lane_] = true;
      warp.pause();
    }
  }

  const std::function<void()>* body_ = nullptr;
  int count_ = 0;
  int lane_ = 0;
  bool diverged_ = false;
  bool finished_[kLanes] = {};
  int exchanges_[kLanes] = {};
  uint32_t values_[2][kLanes] = {};
  jmp_buf scheduler_ = {};
  jmp_buf fibers_[kLanes] = {};
  std::vector<char> stacks_[kLanes];
  Work work_[kLanes];
  Accesses accesses_;
};

// Runs a kernel, and says whether its lanes met at every exchange.
template <class... Parameters, class... Arguments>
cudaError_t run(
    void (*kernel)(Parameters...),
    unsigned blocks,
    unsigned threads,
    const Arguments&... arguments) {
  Warp& warp = Warp::current();
  gridDim.x = blocks;
  blockDim.x = threads;
  ++counts.launches;
  counts.blocks += blocks;
  counts.parameter_bytes =
      std::max<int64_t>(counts.parameter_bytes, (0 + ... + sizeof(Parameters)));
  if (mode == Mode::kPlan) {
    return cudaSuccess;
  }
  for (unsigned block = 0; block < blocks; ++block) {
    blockIdx.x = block;
    for (unsigned first = 0; first < threads; first += kLanes) {
      const int count = static_cast<int>(std::min<unsigned>(kLanes, threads - first));
      warp.run(first, count, [&] { kernel(arguments...); });
    }
  }
  return warp.take_diverged() ? cudaErrorLaunchFailure : cudaSuccess;
}

}  // namespace emulation

namespace dropout::cuda {

inline uint32_t from_lane(uint32_t value, int lane) {
  return emulation::Warp::current().exchange(value, lane);
}

template <class T>
T load(
    const T* from,
    bool active = true,
    std::source_location place = std::source_location::current()) {
  emulation::Warp::current().note_access(false, place, active, from, sizeof(T));
  return active ? *from : T{};
}

template <class T>
void store(
    T* to,
    const T& value,
    bool active = true,
    std::source_location place = std::source_location::current()) {
  emulation::Warp::current().note_access(true, place, active, to, sizeof(T));
  if (active) {
    *to = value;
  }
}

inline void prefetch(const void* /*from*/) {}

}  // namespace dropout::cuda
