// What the kernels need of CUDA beyond the language; the host emulation of the tests replaces
// this file by its own.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/scalar.h"

namespace dropout::cuda {

// Of a launch that numbers its units of work, of which there are at most twice as many.
constexpr int64_t kMostElements = int64_t{1} << 29;

// `value` of the given lane. The whole warp calls this together.
__device__ __forceinline__ uint32_t from_lane(uint32_t value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}

// *from in one instruction, or nothing.
template <class T>
__device__ __forceinline__ T load(const T* from, bool active = true) {
  return active ? *from : T{};
}

// *to = value in one instruction, or nothing; of a plain assignment the compiler makes several
// now and then. `to` is global memory, whose generic addresses are its addresses.
template <class T>
__device__ __forceinline__ void store(T* to, const T& value, bool active = true) {
  if (!active) {
    return;
  }
  if constexpr (sizeof(T) == 16) {
    const auto words = detail::bit_cast<uint4>(value);
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(words.x), "r"(words.y),
                 "r"(words.z), "r"(words.w)
                 : "memory");
  } else if constexpr (sizeof(T) == 8) {
    *reinterpret_cast<uint64_t*>(to) = detail::bit_cast<uint64_t>(value);
  } else {
    *to = value;
  }
}

// Asks for the sector that holds *from.
__device__ __forceinline__ void prefetch(const void* from) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
}

template <class... Parameters, class... Arguments>
cudaError_t start(
    void (*kernel)(Parameters...),
    unsigned blocks,
    unsigned threads,
    cudaStream_t stream,
    const Arguments&... arguments) {
  kernel<<<blocks, threads, 0, stream>>>(arguments...);
  return cudaGetLastError();
}

}  // namespace dropout::cuda
