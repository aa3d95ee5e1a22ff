// Work for a stream of the mock CUDA runtime: run once, or on each replay of the graph that the
// stream is captured into.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>

namespace mock_runtime {

using Work = std::function<void()>;

inline bool is_captured(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cudaStreamIsCapturing(stream, &status);
  return status == cudaStreamCaptureStatusActive;
}

inline cudaError_t submit(cudaStream_t stream, Work work) {
  auto* held = new Work(std::move(work));
  if (is_captured(stream)) {  // held as long as the process lives
    return cudaLaunchHostFunc(stream, [](void* data) { (*static_cast<Work*>(data))(); }, held);
  }
  const auto run_once = [](void* data) {
    const std::unique_ptr<Work> once(static_cast<Work*>(data));
    (*once)();
  };
  return cudaLaunchHostFunc(stream, run_once, held);
}

}  // namespace mock_runtime
