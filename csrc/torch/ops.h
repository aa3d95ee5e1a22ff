// The operators, as functions: device kernels, shapes alone, calls through the dispatcher, and
// the way in for eager code. Schemas and what the arguments mean: see register.cpp.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>
#include <c10/util/OptionalArrayRef.h>

#include <optional>

namespace dropout {

using at::Tensor;
using Generator = std::optional<at::Generator>;
using Strides = at::OptionalIntArrayRef;
using SymStrides = at::OptionalSymIntArrayRef;
using Factor = std::optional<double>;

// Signatures of the operators as the dispatcher calls them.
using Draw = Tensor(const Tensor& input, c10::SymIntArrayRef batch, Generator generator);
using Dropout = Tensor(
    const Tensor& input,
    double p,
    const Tensor& rng_state,
    SymStrides mask_strides,
    c10::SymInt mask_base,
    Factor scale,
    double shift,
    double fill);
using DropoutInplace = Tensor&(
    Tensor& input,
    double p,
    const Tensor& rng_state,
    SymStrides mask_strides,
    c10::SymInt mask_base,
    Factor scale,
    double shift,
    double fill);
using DropoutMask = Tensor(
    c10::SymIntArrayRef size,
    double p,
    const Tensor& rng_state,
    SymStrides mask_strides,
    c10::SymInt mask_base);

namespace ops {  // through the dispatcher

Draw draw;
Dropout dropout;
DropoutInplace dropout_;

}  // namespace ops

namespace meta {  // shapes and dtypes alone

Draw draw;
Dropout dropout;
DropoutInplace dropout_;
DropoutMask dropout_mask;

}  // namespace meta

namespace functionalize {

// What torch.func.functionalize and the compilers make of the in-place operator: the pure one,
// whose result takes the place of the input.
DropoutInplace dropout_;

}  // namespace functionalize

namespace kernels {  // for tensors in the memory of a device

Tensor draw(const Tensor& input, at::IntArrayRef batch, Generator generator);

Tensor dropout(
    const Tensor& input,
    double p,
    const Tensor& rng_state,
    Strides mask_strides,
    int64_t mask_base,
    Factor scale,
    double shift,
    double fill);

Tensor& dropout_(
    Tensor& input,
    double p,
    const Tensor& rng_state,
    Strides mask_strides,
    int64_t mask_base,
    Factor scale,
    double shift,
    double fill);

Tensor dropout_mask(
    at::IntArrayRef size,
    double p,
    const Tensor& rng_state,
    Strides mask_strides,
    int64_t mask_base);

}  // namespace kernels

// A call of eager code. What it makes of an element: see Coefficients.
struct Call {
  double p;
  bool inplace;
  Strides mask_strides;
  int64_t mask_base;
  Factor scale;
  double shift;
  double fill;
};

// Memory for the result, laid out as at::empty_like has it.
Tensor empty_output(const Tensor& input);

// draw, unless the state is given, and dropout at once, from `input` into `out`, which may be the
// same; all checked. Returns the rng_state, which may be undefined unless wanted.
Tensor apply_call(
    const Tensor& input,
    const Tensor& out,
    const Call& call,
    const Generator& generator,
    const std::optional<Tensor>& given_state,
    bool want_state);

// draw, unless rng_state is given, and dropout or dropout_, the cheapest way there is: without
// the dispatcher where nothing between autograd and the kernel wants to see the call, through it
// otherwise.
Tensor dropout_eager(
    Tensor input,
    const Call& call,
    const Generator& generator,
    const std::optional<Tensor>& rng_state);

}  // namespace dropout
