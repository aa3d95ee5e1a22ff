// What a device offers to device.cpp. Arguments have been checked, the output is not empty, and
// some but not all elements are dropped.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>

#include "kernels/task.h"

namespace dropout {

// Fills `states`, int64 of shape [..., 2], with (seed, offset) of as many calls in turn.
using Draw = void(const at::Tensor& states, const std::optional<at::Generator>& generator);

// `rng_state` has shape [2] and is that of the first sample.
using Apply = void(const Task& task, const at::Tensor& rng_state);

// Both at once; the task writes to `out`. Returns the state, undefined unless it is wanted.
using DrawAndApply = at::Tensor(
    const Task& task,
    const at::Tensor& out,
    const std::optional<at::Generator>& generator,
    bool want_state);

// `folded`: (seed, offset) of each state and its number, all contiguous.
using FoldInTo =
    void(const at::Tensor& rng_states, const at::Tensor& numbers, const at::Tensor& folded);

namespace cpu {

Draw draw;
Apply apply;
DrawAndApply draw_and_apply;
FoldInTo fold_in;

// Asks for large pages for memory that was just allocated and not yet touched. The system maps
// such memory when it is first written, page by page, which for large results takes longer than
// everything else.
void prefer_huge_pages(const at::Tensor& fresh);

}  // namespace cpu

// In a build without CUDA each of these is an error that says so.
namespace cuda {

Draw draw;
Apply apply;
DrawAndApply draw_and_apply;
FoldInTo fold_in;

at::Tensor empty(at::IntArrayRef size, at::ScalarType dtype, at::Device device);

// Reserves what a call reserves, without writing down a state: nothing is launched.
void reserve(const std::optional<at::Generator>& generator, at::Device device);

}  // namespace cuda
}  // namespace dropout
