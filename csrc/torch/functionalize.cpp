#include <ATen/FunctionalTensorWrapper.h>
#include <ATen/core/LegacyTypeDispatch.h>

#include "torch/ops.h"

namespace dropout::functionalize {
namespace {

namespace impl = at::functionalization::impl;

Tensor unwrap(const Tensor& tensor) {
  if (!impl::isFunctionalTensor(tensor)) {
    return tensor;
  }
  impl::sync(tensor);
  return impl::from_functional_tensor(tensor);
}

}  // namespace

Tensor& dropout_(
    Tensor& input,
    double p,
    const Tensor& rng_state,
    SymStrides mask_strides,
    c10::SymInt mask_base,
    Factor scale,
    double shift,
    double fill) {
  const Tensor inner_state = unwrap(rng_state);
  Tensor inner = unwrap(input);
  const at::AutoDispatchSkipFunctionalize below;
  if (!impl::isFunctionalTensor(input)) {
    ops::dropout_(inner, p, inner_state, mask_strides, mask_base, scale, shift, fill);
    return input;
  }
  const Tensor result =
      ops::dropout(inner, p, inner_state, mask_strides, mask_base, scale, shift, fill);
  impl::replace_(input, result);
  impl::commit_update(input);
  impl::sync(input);
  return input;
}

}  // namespace dropout::functionalize
