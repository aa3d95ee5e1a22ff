#include "torch/functionalize.h"

#include <ATen/FunctionalTensorWrapper.h>
#include <ATen/core/LegacyTypeDispatch.h>

namespace dropout::functionalize {
namespace {

namespace impl = at::functionalization::impl;

at::Tensor unwrap(const at::Tensor& tensor) {
  if (!impl::isFunctionalTensor(tensor)) {
    return tensor;
  }
  impl::sync(tensor);
  return impl::from_functional_tensor(tensor);
}

}  // namespace

at::Tensor& dropout_(
    at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalSymIntArrayRef mask_strides,
    c10::SymInt mask_base) {
  const at::Tensor inner_state = unwrap(rng_state);
  at::Tensor inner = unwrap(input);
  const at::AutoDispatchSkipFunctionalize below;
  if (!impl::isFunctionalTensor(input)) {
    ops::dropout_(inner, p, inner_state, mask_strides, std::move(mask_base));
    return input;
  }
  const at::Tensor result =
      ops::dropout(inner, p, inner_state, mask_strides, std::move(mask_base));
  impl::replace_(input, result);
  impl::commit_update(input);
  impl::sync(input);
  return input;
}

}  // namespace dropout::functionalize
