// What a device offers to the operators. Arguments have been checked, `out` is not empty, and
// some but not all elements are dropped.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <optional>

#include "core/coefficients.h"
#include "core/index_map.h"
#include "core/mask.h"

namespace dropout {

struct Application {
  at::Tensor in;  // undefined: `out` is boolean and receives the mask itself
  at::Tensor out;
  Threshold threshold;
  Coefficients coefficients;
  IndexMap map;     // of a sample
  Samples samples;  // of which `in` and `out` are the first
};

namespace cpu {

// The states of as many calls as `batch` says, int64 of shape [*batch, 2]: seed and offset. They
// are those that as many calls in turn would draw.
at::Tensor draw(
    const at::Tensor& input,
    at::IntArrayRef batch,
    const std::optional<at::Generator>& generator);

// `rng_state` has shape [2] and is that of the first sample.
void apply(const Application& application, const at::Tensor& rng_state);

// draw and apply at once. Returns the rng_state, undefined unless it is wanted.
at::Tensor draw_and_apply(
    const Application& application,
    const std::optional<at::Generator>& generator,
    bool want_state);

// Asks for large pages for memory that was just allocated and not yet touched. The system maps
// such memory when it is first written, page by page, which for large results takes longer than
// everything else.
void prefer_huge_pages(const at::Tensor& fresh);

}  // namespace cpu

// As cpu, whose last function has no counterpart; in a build without CUDA each of these is an
// error that says so.
namespace cuda {

at::Tensor draw(
    const at::Tensor& input,
    at::IntArrayRef batch,
    const std::optional<at::Generator>& generator);

void apply(const Application& application, const at::Tensor& rng_state);

at::Tensor draw_and_apply(
    const Application& application,
    const std::optional<at::Generator>& generator,
    bool want_state);

}  // namespace cuda
}  // namespace dropout
