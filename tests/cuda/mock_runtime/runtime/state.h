// The mock CUDA runtime: its devices are this machine's memory. LD_PRELOAD loads it before the real
// one. It defines what torch calls; all else goes to the real runtime and fails there.
//
// Work is what cudaLaunchHostFunc, the copies and memset are given. Kernels of torch cannot run:
// their launch is an error that names them. The two kinds of streams are as far apart as the
// rules let them be, so that work on the wrong stream is seen: the default stream runs work when
// it is launched, any other when something waits for it. Captured work is kept in the graph and
// runs on its replays.
//
// It is laxer than CUDA in this: a capture may end before streams that joined it are joined;
// while one goes on, other streams may do what it forbids them; queries wait, and never find work
// unfinished; priorities, peer access and memory pools do nothing.
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

using Work = std::function<void()>;

struct CUgraph_st {
  std::vector<Work> work;
};

struct CUgraphExec_st {
  std::vector<Work> work;
};

struct CUstream_st {
  int device = 0;
  bool is_default = false;
  std::deque<Work> waiting;
  uint64_t finished = 0;
  CUgraph_st* captured = nullptr;
  bool captures_first = false;  // where the capture began

  uint64_t end() const { return finished + waiting.size(); }

  void run_until(uint64_t position) {
    while (finished < position && !waiting.empty()) {
      const Work work = std::move(waiting.front());
      waiting.pop_front();
      ++finished;
      work();
    }
  }
};

using Clock = std::chrono::steady_clock;

// What was in the stream when it was recorded.
struct CUevent_st {
  CUstream_st* stream = nullptr;
  uint64_t position = 0;
  CUgraph_st* captured = nullptr;
  std::shared_ptr<Clock::time_point> time;
};

namespace mock_runtime {

constexpr int kDevices = 2;
constexpr size_t kMemory = size_t{8} << 30;  // of each device
constexpr int kVersion = 13000;

struct Block {
  size_t size;
  int device;  // -1: pinned memory of the host
};

struct Runtime {
  std::recursive_mutex mutex;
  CUstream_st defaults[kDevices];
  std::set<CUstream_st*> streams;
  std::map<uintptr_t, Block> blocks;
  size_t used[kDevices] = {};
  bool in_use[kDevices] = {};
  std::unordered_map<const void*, const char*> kernels;

  Runtime() {
    for (int device = 0; device < kDevices; ++device) {
      defaults[device].device = device;
      defaults[device].is_default = true;
      streams.insert(&defaults[device]);
    }
  }
};

// Never destroyed: torch still calls when the process ends.
inline Runtime& runtime() {
  static auto* const found = new Runtime;
  return *found;
}

using Lock = std::lock_guard<std::recursive_mutex>;

inline thread_local int current_device = 0;
inline thread_local cudaError_t last_error = cudaSuccess;

inline cudaError_t fail(cudaError_t error) {
  last_error = error;
  return error;
}

inline CUstream_st& find(cudaStream_t stream) {
  const bool is_default =
      stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread;
  return is_default ? runtime().defaults[current_device] : *stream;
}

inline cudaError_t submit(cudaStream_t to, Work work) {
  const Lock lock(runtime().mutex);
  CUstream_st& stream = find(to);
  runtime().in_use[stream.device] = true;
  if (stream.captured != nullptr) {
    stream.captured->work.push_back(std::move(work));
    return cudaSuccess;
  }
  stream.waiting.push_back(std::move(work));
  if (stream.is_default) {
    stream.run_until(stream.end());
  }
  return cudaSuccess;
}

inline cudaError_t finish(CUstream_st& stream, uint64_t position) {
  if (stream.captured != nullptr) {
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  stream.run_until(position);
  return cudaSuccess;
}

inline cudaError_t finish_all(int device) {
  const Lock lock(runtime().mutex);
  for (CUstream_st* stream : runtime().streams) {
    if (stream->device == device && stream->captured == nullptr) {
      stream->run_until(stream->end());
    }
  }
  return cudaSuccess;
}

inline const std::pair<const uintptr_t, Block>* find_block(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  auto after = runtime().blocks.upper_bound(address);
  if (after == runtime().blocks.begin()) {
    return nullptr;
  }
  --after;
  return address < after->first + after->second.size ? &*after : nullptr;
}

}  // namespace mock_runtime
