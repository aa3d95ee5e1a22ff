// The CUDA kernels' device header for a host compiler: found on the include path before the real
// one. The lanes of a warp are fibers that take turns, so that an exchange between them sees what
// each of them has put in; warps and blocks run one after the other, which is one of the orders
// a GPU may choose.
#pragma once

#include <cuda_runtime_api.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(threads)

struct Index3 {
  unsigned x = 0;
  unsigned y = 0;
};
inline thread_local Index3 blockIdx, blockDim, threadIdx, gridDim;

namespace emulation {

constexpr int kLanes = 32;
constexpr size_t kStackBytes = 64 * 1024;

class Warp {
 public:
  // Runs `body` once for each of the threads first ... first + count - 1.
  void run(unsigned first, int count, const std::function<void()>& body) {
    current() = this;
    body_ = &body;
    count_ = count;
    for (int lane = 0; lane < count; ++lane) {
      stacks_[lane].resize(kStackBytes);
      getcontext(&fibers_[lane]);
      fibers_[lane].uc_stack.ss_sp = stacks_[lane].data();
      fibers_[lane].uc_stack.ss_size = kStackBytes;
      fibers_[lane].uc_link = &scheduler_;
      makecontext(&fibers_[lane], &Warp::enter, 0);
      finished_[lane] = false;
      exchanges_[lane] = 0;
    }
    for (bool running = true; running;) {
      running = false;
      for (lane_ = 0; lane_ < count; ++lane_) {
        if (!finished_[lane_]) {
          threadIdx.x = first + static_cast<unsigned>(lane_);
          swapcontext(&scheduler_, &fibers_[lane_]);
          running = running || !finished_[lane_];
        }
      }
    }
  }

  // __shfl_sync with a full mask: every lane waits until all have arrived. A lane that has left
  // the kernel, or is at another exchange, is the error that it is on a GPU.
  uint32_t exchange(uint32_t value, int from) {
    const int me = lane_;
    const int slot = exchanges_[me]++ % 2;
    values_[slot][me] = value;
    swapcontext(&fibers_[me], &scheduler_);
    for (int lane = 0; lane < kLanes; ++lane) {
      const int ahead = exchanges_[lane] - exchanges_[me];
      diverged_ = diverged_ || lane >= count_ || ahead < 0 || ahead > 1;
    }
    return values_[slot][from];
  }

  static Warp*& current() {
    static thread_local Warp* warp = nullptr;
    return warp;
  }

  bool diverged() const { return diverged_; }

 private:
  static void enter() {
    Warp* warp = current();
    (*warp->body_)();
    warp->finished_[warp->lane_] = true;
  }

  const std::function<void()>* body_ = nullptr;
  int count_ = 0;
  int lane_ = 0;
  bool diverged_ = false;
  bool finished_[kLanes] = {};
  int exchanges_[kLanes] = {};
  uint32_t values_[2][kLanes] = {};
  ucontext_t scheduler_ = {};
  ucontext_t fibers_[kLanes] = {};
  std::vector<char> stacks_[kLanes];
};

}  // namespace emulation

namespace dropout::cuda {

constexpr int64_t kMaxSamples = 2;  // so that a few samples take several launches

inline uint32_t from_lane(uint32_t value, int lane) {
  return emulation::Warp::current()->exchange(value, lane);
}

template <class T>
void store(T* to, const T& value) {
  *to = value;
}

template <class... Parameters, class... Arguments>
cudaError_t start(
    void (*kernel)(Parameters...),
    unsigned blocks,
    unsigned samples,
    unsigned threads,
    cudaStream_t /*stream*/,
    const Arguments&... arguments) {
  const auto warp = std::make_unique<emulation::Warp>();
  gridDim.x = blocks;
  blockDim.x = threads;
  gridDim.y = samples;
  for (unsigned block = 0; block < blocks * samples; ++block) {
    blockIdx.x = block % blocks;
    blockIdx.y = block / blocks;
    for (unsigned first = 0; first < threads; first += emulation::kLanes) {
      const int count = static_cast<int>(std::min<unsigned>(emulation::kLanes, threads - first));
      warp->run(first, count, [&] { kernel(arguments...); });
    }
  }
  return warp->diverged() ? cudaErrorLaunchFailure : cudaSuccess;
}

}  // namespace dropout::cuda
