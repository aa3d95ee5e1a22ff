// What all devices share of attention: checks, shapes, memory, the way in.
#include "torch/attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>

#include "torch/checks.h"

namespace dropout::attention {
namespace {

using Shape = std::vector<c10::SymInt>;

constexpr const char* kName = "scaled_dot_product_attention: ";

void check_types(const Inputs& in) {
  const auto& [query, key, value, mask, rng_state] = in;
  TORCH_CHECK(
      query.scalar_type() == key.scalar_type() && query.scalar_type() == value.scalar_type(),
      "Expected query, key, and value to have the same dtype, but got query.dtype: ",
      query.dtype(), " key.dtype: ", key.dtype(), " and value.dtype: ", value.dtype(),
      " instead.");
  TORCH_CHECK(
      query.device() == key.device() && query.device() == value.device(),
      "Expected query, key, and value to have the same device type, but got query.device: ",
      query.device(), " key.device: ", key.device(), " and value.device: ", value.device(),
      " instead.");
  for (const Tensor* tensor : {&query, &key, &value, &mask}) {
    TORCH_CHECK(
        !tensor->defined() || tensor->layout() == at::kStrided, kName,
        "all tensors must be strided, but got one of the layout ", tensor->layout());
  }
  if (mask.defined()) {
    const auto type = mask.scalar_type();
    TORCH_CHECK(
        type == at::kBool || type == at::kFloat || type == query.scalar_type(),
        "Expected attn_mask dtype to be bool or float or to match query dtype, but got "
        "attn_mask.dtype: ",
        mask.dtype(), " and  query.dtype: ", query.dtype(), " instead.");
    TORCH_CHECK(
        mask.device() == query.device(), kName, "attn_mask must be on the device of query, ",
        query.device(), ", but got ", mask.device());
  }
}

void check_shapes(const Inputs& in) {
  const Tensor& query = in.query;
  const Tensor& key = in.key;
  const Tensor& value = in.value;
  const Tensor& mask = in.mask;
  const int64_t dims = query.dim();
  const auto sizes = [&] {
    return c10::str(query.sym_sizes(), ", ", key.sym_sizes(), " and ", value.sym_sizes());
  };
  bool fits = dims >= 3 && key.dim() == dims && value.dim() == dims;
  for (int64_t d = 0; fits && d + 3 < dims; ++d) {
    fits = query.sym_size(d) == key.sym_size(d) && query.sym_size(d) == value.sym_size(d);
  }
  fits = fits && query.sym_size(-1) == key.sym_size(-1) &&
         key.sym_size(-2) == value.sym_size(-2) && key.sym_size(-3) == value.sym_size(-3);
  TORCH_CHECK(
      fits, kName,
      "query, key and value must have shapes (..., Hq, L, E), (..., H, S, E) and "
      "(..., H, S, Ev), but got ",
      sizes());
  const auto heads = query.sym_size(-3);
  const auto groups = key.sym_size(-3);
  TORCH_CHECK(
      groups == 0 ? heads == 0 : heads % groups == 0, kName,
      "Number of heads in key and value must divide the number of heads in query, but got ",
      sizes());
  if (mask.defined()) {
    const Shape weights = weights_shape(in);
    bool broadcastable = mask.dim() <= dims;
    for (int64_t d = 1; broadcastable && d <= mask.dim(); ++d) {
      const auto size = mask.sym_size(-d);
      broadcastable = size == 1 || size == weights[weights.size() - static_cast<size_t>(d)];
    }
    TORCH_CHECK(
        broadcastable, kName, "attn_mask of shape ", mask.sym_sizes(),
        " must be broadcastable to the weights, of shape ", c10::SymIntArrayRef(weights));
  }
}

// Before anything is drawn, what autograd would say after it.
void check_can_be_saved(const Inputs& in) {
  const std::array<const Tensor*, 4> tensors{&in.query, &in.key, &in.value, &in.mask};
  const auto any = [&](auto predicate) {
    return std::any_of(tensors.begin(), tensors.end(), [&](const Tensor* tensor) {
      return tensor->defined() && predicate(*tensor);
    });
  };
  TORCH_CHECK(
      !c10::GradMode::is_enabled() || !any([](const Tensor& t) { return t.requires_grad(); }) ||
          !any([](const Tensor& t) { return t.is_inference(); }),
      "Inference tensors cannot be saved for backward. Please do not use Tensors created in "
      "inference mode in computation tracked by autograd. To work around this, you can make a "
      "clone to get a normal tensor and use it in autograd, or use `torch.no_grad()` instead of "
      "`torch.inference_mode()`.");
}

// Fresh memory of this shape whose dimensions -3 and -2 are exchanged.
Tensor empty_exchanged(Shape shape, const at::TensorOptions& options) {
  const size_t heads = shape.size() - 3;
  std::swap(shape[heads], shape[heads + 1]);
  return at::empty_symint(shape, options).transpose(-3, -2);
}

Shape output_shape(const Inputs& inputs) {
  Shape shape = inputs.query.sym_sizes().vec();
  shape.back() = inputs.value.sym_size(-1);
  return shape;
}

Shape softmax_shape(const Inputs& inputs) {
  Shape shape = inputs.query.sym_sizes().vec();
  shape.back() = 2;
  return shape;
}

}  // namespace

void check_call(const Inputs& inputs, const Options& options) {
  check_input(inputs.query);
  check_types(inputs);
  TORCH_CHECK(
      !(options.is_causal && inputs.mask.defined()), kName,
      "Explicit attn_mask should not be set when is_causal=True, but got both");
  check_shapes(inputs);
  check_args(weights_shape(inputs), mask_args(options));
}

DropoutArgs mask_args(const Options& options) {
  const auto& strides = options.mask_strides;
  return {
      options.p, strides.has_value() ? SymStrides(*strides) : SymStrides(), options.mask_base};
}

void check(const Inputs& inputs, const Options& options) {
  check_call(inputs, options);
  const Shape weights = weights_shape(inputs);
  check_rng_state(inputs.rng_state, weights, inputs.query.device());
  TORCH_CHECK(
      inputs.rng_state.dim() + 2 <= inputs.query.dim(), kName,
      "rng_state must not have more batch dimensions than query, but got shape ",
      inputs.rng_state.sym_sizes());
  if (options.mask_strides.has_value()) {
    TORCH_CHECK_VALUE(
        options.mask_strides->back() == 1, kName,
        "the last of the mask_strides must be 1, but got ", options.mask_strides->back());
  }
}

void check_backward(
    const Tensor& grad_output,
    const Inputs& inputs,
    const Result& result,
    const Options& options,
    bool mask_gradient) {
  check(inputs, options);
  const auto check_saved = [&](const char* name, const Tensor& tensor, const Shape& shape,
                               at::ScalarType type) {
    TORCH_CHECK(
        tensor.sym_sizes() == c10::SymIntArrayRef(shape) && tensor.scalar_type() == type &&
            tensor.device() == inputs.query.device(),
        "attention_backward: ", name, " must have the shape ", c10::SymIntArrayRef(shape),
        " and the dtype ", type, ", on the device of query, but got ", tensor.sym_sizes(), ", ",
        tensor.dtype(), " on ", tensor.device());
  };
  const auto type = inputs.query.scalar_type();
  check_saved("grad_output", grad_output, output_shape(inputs), type);
  check_saved("output", result.output, output_shape(inputs), type);
  check_saved("softmax", result.softmax, softmax_shape(inputs), compute_type(inputs));
  TORCH_CHECK(
      !mask_gradient || (inputs.mask.defined() && inputs.mask.is_floating_point()),
      "attention_backward: only an attn_mask of floating point has a gradient");
}

Shape weights_shape(const Inputs& inputs) {
  Shape shape = inputs.query.sym_sizes().vec();
  shape.back() = inputs.key.sym_size(-2);
  return shape;
}

Shape mask_strides(const Inputs& inputs, const Options& options) {
  Shape strides = weights_shape(inputs);
  c10::SymInt step = 1;
  for (size_t d = strides.size(); d-- > 0;) {
    const c10::SymInt size = strides[d];
    strides[d] = step;
    step = step * size;
  }
  strides = options.mask_strides.value_or(strides);
  // Samples with a state of their own have indices of their own.
  std::fill_n(strides.begin(), inputs.rng_state.dim() - 1, 0);
  return strides;
}

c10::SymFloat scale(const Inputs& inputs, const Options& options) {
  if (options.scale.has_value()) {
    return *options.scale;
  }
  return c10::SymFloat(1.0) / c10::SymFloat(inputs.query.sym_size(-1)).sqrt();
}

at::ScalarType compute_type(const Inputs& inputs) {
  return inputs.query.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

Result empty_result(const Inputs& inputs) {
  const auto options = inputs.query.options();
  return {
      empty_exchanged(output_shape(inputs), options),
      at::empty_symint(softmax_shape(inputs), options.dtype(compute_type(inputs)))};
}

Gradients empty_gradients(const Inputs& inputs, bool mask_gradient) {
  const auto options = inputs.query.options();
  return {
      at::empty_like(inputs.query), at::empty_like(inputs.key), at::empty_like(inputs.value),
      mask_gradient ? at::empty_like(inputs.mask, at::MemoryFormat::Contiguous)
                    : at::empty({0}, options)};
}

namespace meta {

Result forward(const Inputs& inputs, const Options& options) {
  check(inputs, options);
  return empty_result(inputs);
}

Gradients backward(
    const Tensor& grad_output,
    const Inputs& inputs,
    const Result& result,
    const Options& options,
    bool mask_gradient) {
  check_backward(grad_output, inputs, result, options, mask_gradient);
  return empty_gradients(inputs, mask_gradient);
}

}  // namespace meta

Tensor eager(Inputs inputs, const Options& options, const Generator& generator) {
  check_call(inputs, options);
  check_generator(generator, inputs.query.device());
  check_can_be_saved(inputs);
  if (!inputs.rng_state.defined()) {
    inputs.rng_state = dropout::ops::draw(inputs.query, {}, generator);
  }
  return ops::forward(inputs, options).output;
}

}  // namespace dropout::attention
