// The operators, as functions: device kernels, and calls through the dispatcher.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>
#include <c10/util/OptionalArrayRef.h>

#include <optional>

namespace dropout {

// Schemas: see register.cpp. `mask_strides` unset: those of the row-major shape.

namespace ops {  // through the dispatcher

at::Tensor draw(const at::Tensor& input, const std::optional<at::Generator>& generator);

at::Tensor dropout(
    const at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalSymIntArrayRef mask_strides,
    c10::SymInt mask_base);

at::Tensor& dropout_(
    at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalSymIntArrayRef mask_strides,
    c10::SymInt mask_base);

}  // namespace ops

namespace kernels {  // for tensors in the memory of a device

at::Tensor draw(const at::Tensor& input, std::optional<at::Generator> generator);

at::Tensor dropout(
    const at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalIntArrayRef mask_strides,
    int64_t mask_base);

at::Tensor& dropout_(
    at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalIntArrayRef mask_strides,
    int64_t mask_base);

at::Tensor dropout_mask(
    at::IntArrayRef size,
    double p,
    const at::Tensor& rng_state,
    at::OptionalIntArrayRef mask_strides,
    int64_t mask_base);

// draw and dropout (or dropout_, if `out` is `input`) at once, into `out`. Returns the rng_state,
// undefined unless wanted.
at::Tensor draw_and_apply(
    const at::Tensor& input,
    const at::Tensor& out,
    double p,
    const std::optional<at::Generator>& generator,
    at::OptionalIntArrayRef mask_strides,
    int64_t mask_base,
    bool want_state);

}  // namespace kernels

namespace meta {  // shapes and dtypes alone

at::Tensor draw(const at::Tensor& input, std::optional<at::Generator> generator);

at::Tensor dropout(
    const at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalSymIntArrayRef mask_strides,
    c10::SymInt mask_base);

at::Tensor& dropout_(
    at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalSymIntArrayRef mask_strides,
    c10::SymInt mask_base);

at::Tensor dropout_mask(
    c10::SymIntArrayRef size,
    double p,
    const at::Tensor& rng_state,
    at::OptionalSymIntArrayRef mask_strides,
    c10::SymInt mask_base);

}  // namespace meta

// draw, unless rng_state is given, and dropout or dropout_, the cheapest way there is: without the
// dispatcher where nothing between autograd and the kernel wants to see the call, through it
// otherwise.
at::Tensor dropout_eager(
    at::Tensor input,
    double p,
    bool inplace,
    const std::optional<at::Generator>& generator,
    const std::optional<at::Tensor>& rng_state,
    at::OptionalIntArrayRef mask_strides,
    int64_t mask_base);

}  // namespace dropout
