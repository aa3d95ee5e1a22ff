// Argument checks, each in one place; all run before anything is drawn, allocated or written.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/SymIntArrayRef.h>

#include <optional>

#include "core/scalar.h"

namespace dropout {

// ValueError unless 0 <= p <= 1, in the words of torch.nn.Dropout.
void check_probability(double p);

// TypeError unless the tensor is strided and of a floating point type with a kernel.
void check_input(const at::Tensor& input);

// `rng_state`: int64, on the device of the input, of shape [2], or [*batch, 2] where `sizes`
// begins with *batch.
void check_rng_state(const at::Tensor& rng_state, c10::SymIntArrayRef sizes, c10::Device device);

void check_generator(const std::optional<at::Generator>& generator, c10::Device device);

void check_mask_strides(size_t strides, size_t ndim);

// ValueError if an element has a mask index below zero.
void check_mask_indices(
    at::IntArrayRef sizes, at::OptionalIntArrayRef mask_strides, int64_t mask_base);

// RuntimeError if two elements of a tensor that is to be written share memory.
void check_writable(const at::Tensor& tensor);

ScalarType scalar_type(const at::Tensor& tensor);

}  // namespace dropout
