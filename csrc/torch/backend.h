// What a device offers to device.cpp. Arguments have been checked, the output is not empty, and
// some but not all elements are dropped.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>

#include "kernels/task.h"

namespace dropout {

struct Backend {
  at::Tensor (*empty)(at::IntArrayRef size, at::ScalarType dtype, at::Device device);

  // Fills `states`, int64 of shape [..., 2], with (seed, offset) of as many calls in turn.
  void (*draw)(const at::Tensor& states, const std::optional<at::Generator>& generator);

  // Reserves what a call reserves, without writing down a state: nothing is launched.
  void (*reserve)(const std::optional<at::Generator>& generator, at::Device device);

  // `rng_state` has shape [2] and is that of the first sample.
  void (*apply)(const Task& task, const at::Tensor& rng_state);

  // Both at once; the task writes to `out`. Returns the state, undefined unless it is wanted.
  at::Tensor (*draw_and_apply)(
      const Task& task,
      const at::Tensor& out,
      const std::optional<at::Generator>& generator,
      bool want_state);

  // `folded`: (seed, offset) of each state and its number, all contiguous.
  void (*fold_in)(
      const at::Tensor& rng_states, const at::Tensor& numbers, const at::Tensor& folded);
};

namespace cpu {

const Backend& backend();

// Asks for large pages for memory that was just allocated and not yet touched. The system maps
// such memory when it is first written, page by page, which for large results takes longer than
// everything else.
void prefer_huge_pages(const at::Tensor& fresh);

}  // namespace cpu

namespace cuda {

const Backend& backend();  // in a build without CUDA an error that says so

}  // namespace cuda

inline const Backend& backend_of(const at::Tensor& tensor) {
  return tensor.is_cuda() ? cuda::backend() : cpu::backend();
}

}  // namespace dropout
