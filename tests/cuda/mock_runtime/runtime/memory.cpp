// Memory of the host as that of devices.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "state.h"

using namespace mock_runtime;

namespace {

cudaError_t allocate(void** pointer, size_t size, int device) {
  constexpr size_t kAlignment = 512;
  const Lock lock(runtime().mutex);
  const size_t rounded = (std::max<size_t>(size, 1) + kAlignment - 1) / kAlignment * kAlignment;
  const bool fits = device < 0 || runtime().used[device] + rounded <= kMemory;
  *pointer = fits ? std::aligned_alloc(kAlignment, rounded) : nullptr;
  if (*pointer == nullptr) {
    return fail(cudaErrorMemoryAllocation);
  }
  std::memset(*pointer, 0xff, rounded);  // NaN, and no index that is valid
  runtime().blocks[reinterpret_cast<uintptr_t>(*pointer)] = {rounded, device};
  if (device >= 0) {
    runtime().used[device] += rounded;
    runtime().in_use[device] = true;
  }
  return cudaSuccess;
}

cudaError_t release(void* pointer) {
  for (int device = 0; device < kDevices; ++device) {
    finish_all(device);
  }
  const Lock lock(runtime().mutex);
  const auto found = runtime().blocks.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == runtime().blocks.end()) {
    return pointer == nullptr ? cudaSuccess : fail(cudaErrorInvalidValue);
  }
  if (found->second.device >= 0) {
    runtime().used[found->second.device] -= found->second.size;
  }
  runtime().blocks.erase(found);
  std::free(pointer);
  return cudaSuccess;
}

// Memory that is not pinned is read before the call returns, and written by then.
cudaError_t copy(void* to, const void* from, size_t size, cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (find_block(from) == nullptr) {
    const auto* bytes = static_cast<const char*>(from);
    return submit(stream, [to, held = std::vector<char>(bytes, bytes + size)] {
      std::memcpy(to, held.data(), held.size());
    });
  }
  submit(stream, [=] { std::memmove(to, from, size); });
  CUstream_st& on = find(stream);
  return find_block(to) == nullptr ? finish(on, on.end()) : cudaSuccess;
}

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** pointer, size_t size) {
  return allocate(pointer, size, current_device);
}
cudaError_t cudaFree(void* pointer) {
  return release(pointer);
}
cudaError_t cudaMallocHost(void** pointer, size_t size) {
  return allocate(pointer, size, -1);
}
cudaError_t cudaHostAlloc(void** pointer, size_t size, unsigned) {
  return allocate(pointer, size, -1);
}
cudaError_t cudaFreeHost(void* pointer) {
  return release(pointer);
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const Lock lock(runtime().mutex);
  *free = kMemory - runtime().used[current_device];
  *total = kMemory;
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  const Lock lock(runtime().mutex);
  const auto* block = find_block(pointer);
  *attributes = {};
  attributes->type = cudaMemoryTypeUnregistered;
  if (block != nullptr) {
    const int device = block->second.device;
    attributes->type = device < 0 ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
    attributes->device = std::max(device, 0);
    attributes->devicePointer = attributes->hostPointer = const_cast<void*>(pointer);
  }
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(
    void* to, const void* from, size_t size, cudaMemcpyKind, cudaStream_t stream) {
  return copy(to, from, size, stream);
}
cudaError_t cudaMemcpyPeerAsync(
    void* to, int, const void* from, int, size_t size, cudaStream_t stream) {
  return copy(to, from, size, stream);
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind) {
  return copy(to, from, size, nullptr);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t stream) {
  return submit(stream, [=] { std::memset(to, value, size); });
}

}  // extern "C"
