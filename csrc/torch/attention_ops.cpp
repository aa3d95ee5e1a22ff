// Registration of attention, and the one place where its arguments stand one by one.
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>

#include <tuple>

#include "torch/attention.h"

namespace dropout::attention {
namespace {

using OptionalTensor = std::optional<Tensor>;
using FlatResult = std::tuple<Tensor, Tensor>;
using FlatGradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Options make_options(
    double p,
    bool is_causal,
    Factor scale,
    const SymStrides& mask_strides,
    const c10::SymInt& mask_base) {
  Options options{p, is_causal, scale, std::nullopt, mask_base};
  if (mask_strides.has_value()) {
    options.mask_strides = mask_strides->vec();
  }
  return options;
}

template <Forward kForward>
FlatResult flat_forward(
    const Tensor& query,
    const Tensor& key,
    const Tensor& value,
    const OptionalTensor& attn_mask,
    double p,
    const Tensor& rng_state,
    bool is_causal,
    Factor scale,
    SymStrides mask_strides,
    c10::SymInt mask_base) {
  const auto options = make_options(p, is_causal, scale, mask_strides, mask_base);
  const auto result =
      kForward({query, key, value, attn_mask.value_or(Tensor()), rng_state}, options);
  return {result.output, result.softmax};
}

template <Backward kBackward>
FlatGradients flat_backward(
    const Tensor& grad_output,
    const Tensor& query,
    const Tensor& key,
    const Tensor& value,
    const OptionalTensor& attn_mask,
    const Tensor& output,
    const Tensor& softmax,
    double p,
    const Tensor& rng_state,
    bool is_causal,
    Factor scale,
    SymStrides mask_strides,
    c10::SymInt mask_base,
    bool attn_mask_gradient) {
  const auto options = make_options(p, is_causal, scale, mask_strides, mask_base);
  const auto gradients = kBackward(
      grad_output, {query, key, value, attn_mask.value_or(Tensor()), rng_state},
      {output, softmax}, options, attn_mask_gradient);
  return {gradients.query, gradients.key, gradients.value, gradients.mask};
}

OptionalTensor optional(const Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}

SymStrides flat_strides(const Options& options) {
  return options.mask_strides.has_value() ? SymStrides(*options.mask_strides) : SymStrides();
}

using FlatForward = decltype(flat_forward<meta::forward>);
using FlatBackward = decltype(flat_backward<meta::backward>);

}  // namespace

namespace ops {

Result forward(const Inputs& in, const Options& options) {
  static const auto handle = find_operator<FlatForward>("dropout_ext::attention");
  auto [output, softmax] = handle.call(
      in.query, in.key, in.value, optional(in.mask), options.p, in.rng_state, options.is_causal,
      options.scale, flat_strides(options), options.mask_base);
  return {std::move(output), std::move(softmax)};
}

Gradients backward(
    const Tensor& grad_output,
    const Inputs& in,
    const Result& result,
    const Options& options,
    bool mask_gradient) {
  static const auto handle = find_operator<FlatBackward>("dropout_ext::attention_backward");
  auto [query, key, value, mask] = handle.call(
      grad_output, in.query, in.key, in.value, optional(in.mask), result.output, result.softmax,
      options.p, in.rng_state, options.is_causal, options.scale, flat_strides(options),
      options.mask_base, mask_gradient);
  return {std::move(query), std::move(key), std::move(value), std::move(mask)};
}

}  // namespace ops

void define(torch::Library& m) {
  // softmax(query @ key^T * scale + attn_mask) with dropout, as the operator dropout has it,
  // times value; and what backward needs of the softmax, [*batch, Hq, L, 2]. Shapes are
  // [*batch, Hq, L, E], [*batch, H, S, E] and [*batch, H, S, Ev], where H divides Hq. The mask of
  // dropout is that of the weights, [*batch, Hq, L, S]: mask_strides has one entry for each of
  // their dimensions, the last one 1; those of the leading dimensions that an rng_state of shape
  // [*prefix, 2] counts are ignored.
  m.def(
      "attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask, float p, "
      "Tensor rng_state, *, bool is_causal=False, float? scale=None, SymInt[]? "
      "mask_strides=None, "
      "SymInt mask_base=0) -> (Tensor output, Tensor softmax)",
      {at::Tag::pt2_compliant_tag});
  // The gradients of query, key, value and, if wanted, of a floating attn_mask.
  m.def(
      "attention_backward(Tensor grad_output, Tensor query, Tensor key, Tensor value, "
      "Tensor? attn_mask, Tensor output, Tensor softmax, float p, Tensor rng_state, *, "
      "bool is_causal=False, float? scale=None, SymInt[]? mask_strides=None, SymInt mask_base=0, "
      "bool attn_mask_gradient=False) -> (Tensor, Tensor, Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
  using c10::DispatchKey;
  m.impl("attention", torch::dispatch(DispatchKey::CPU, flat_forward<cpu::forward>));
  m.impl("attention", torch::dispatch(DispatchKey::CUDA, flat_forward<blocks::forward>));
  m.impl("attention", torch::dispatch(DispatchKey::Meta, flat_forward<meta::forward>));
  m.impl("attention", torch::dispatch(DispatchKey::Autograd, flat_forward<autograd::forward>));
  const char* const backward = "attention_backward";
  m.impl(backward, torch::dispatch(DispatchKey::CPU, flat_backward<cpu::backward>));
  m.impl(backward, torch::dispatch(DispatchKey::CUDA, flat_backward<blocks::backward>));
  m.impl(backward, torch::dispatch(DispatchKey::Meta, flat_backward<meta::backward>));
  m.impl(backward, torch::dispatch(DispatchKey::Autograd, flat_backward<autograd::backward>));
}

void bind(pybind11::module_& m) {
  namespace py = pybind11;
  m.def(
      "check_attention",
      [](const Tensor& query, const Tensor& key, const Tensor& value, const OptionalTensor& mask,
         double p, bool is_causal) {
        check_call(
            {query, key, value, mask.value_or(Tensor()), Tensor()},
            make_options(p, is_causal, std::nullopt, SymStrides(), 0));
      },
      py::arg("query"), py::arg("key"), py::arg("value"), py::arg("attn_mask"), py::arg("p"),
      py::arg("is_causal"));
  m.def(
      "attention",
      [](const Tensor& query, const Tensor& key, const Tensor& value, const OptionalTensor& mask,
         double p, bool is_causal, Factor scale, const Generator& generator,
         const OptionalTensor& rng_state, const std::optional<std::vector<int64_t>>& mask_strides,
         int64_t mask_base) {
        const py::gil_scoped_release no_gil;
        const auto strides = mask_strides.has_value()
                                 ? SymStrides(c10::fromIntArrayRefSlow(*mask_strides))
                                 : SymStrides();
        return eager(
            {query, key, value, mask.value_or(Tensor()), rng_state.value_or(Tensor())},
            make_options(p, is_causal, scale, strides, mask_base), generator);
      },
      py::arg("query"), py::arg("key"), py::arg("value"), py::arg("attn_mask"), py::arg("p"),
      py::arg("is_causal"), py::arg("scale"), py::arg("generator"), py::arg("rng_state"),
      py::arg("mask_strides"), py::arg("mask_base"));
}

}  // namespace dropout::attention
