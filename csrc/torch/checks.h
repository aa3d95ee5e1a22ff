// Argument checks, each in one place; all run before anything is drawn, allocated or written.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/SymIntArrayRef.h>

#include <optional>

#include "core/scalar.h"
#include "torch/ops.h"

namespace dropout {

// TypeError unless the tensor is strided and of a floating point type with a kernel.
void check_input(const at::Tensor& input);

// ValueError unless 0 <= p <= 1, in the words of torch.nn.Dropout, and unless the mask strides
// are as many as the sizes and give no element a mask index below zero.
void check_args(c10::SymIntArrayRef sizes, const DropoutArgs& args);

// `rng_state`: int64, on the device of the input, of shape [2], or [*batch, 2] where `sizes`
// begins with *batch.
void check_rng_state(const at::Tensor& rng_state, c10::SymIntArrayRef sizes, c10::Device device);

// The three above.
void check_dropout(const at::Tensor& input, const at::Tensor& rng_state, const DropoutArgs& args);

// `rng_state`: int64 of shape [*batch, 2]; `number`: int64 of shape [*batch] on the same device.
void check_fold_in(const at::Tensor& rng_state, const at::Tensor& number);

// TypeError unless p is a real tensor without dimensions.
void check_p(const at::Tensor& p);

void check_generator(const std::optional<at::Generator>& generator, c10::Device device);

// RuntimeError if two elements of a tensor that is to be written share memory.
void check_writable(const at::Tensor& tensor);

ScalarType scalar_type(const at::Tensor& tensor);

}  // namespace dropout
