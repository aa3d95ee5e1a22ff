// Key Autograd.
#include "torch/autograd.h"

#include <torch/csrc/autograd/VariableTypeUtils.h>

#include <mutex>

namespace dropout {

using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

Linear::Linear(const DropoutArgs& args)
    : p(args.p), mask_base(args.mask_base), scale(args.scale) {
  if (args.mask_strides.has_value()) {
    mask_strides = args.mask_strides->vec();
  }
}

Tensor Linear::operator()(const Tensor& tensor, const Tensor& rng_state) const {
  if (tensor.layout() == at::kSparse) {  // the gradient that a sparse embedding sends back
    const Tensor pattern = tensor.coalesce();
    return (*this)(pattern.to_dense(), rng_state).sparse_mask(pattern);
  }
  const SymStrides strides = mask_strides.has_value() ? SymStrides(*mask_strides) : SymStrides();
  return dropout_eager(
      tensor, /*inplace=*/false, std::nullopt, rng_state, {p, strides, mask_base, scale});
}

void DropoutBackward::save(const Tensor& rng_state) {
  rng_state_ = SavedVariable(rng_state, /*is_output=*/false);
}

variable_list DropoutBackward::apply(variable_list&& gradients) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!gradients[0].defined() || !task_should_compute_output(0)) {
    return variable_list(1);
  }
  return {linear_(gradients[0], rng_state_.unpack())};
}

void DropoutBackward::release_variables() {
  const std::lock_guard<std::mutex> lock(mutex_);
  rng_state_.reset_data();
}

NodePointer<DropoutBackward> make_node(const Tensor& input, const DropoutArgs& args) {
  if (!torch::autograd::compute_requires_grad(input)) {
    return {};
  }
#if DROPOUT_EXT_INTRUSIVE_NODES
  auto node = c10::make_intrusive<DropoutBackward>(args);
#else
  auto node =
      std::shared_ptr<DropoutBackward>(new DropoutBackward(args), torch::autograd::deleteNode);
#endif
  node->set_next_edges(torch::autograd::collect_next_edges(input));
  return node;
}

Tensor autograd::dropout(
    c10::DispatchKeySet keys,
    const Tensor& input,
    const Tensor& rng_state,
    const DropoutArgs& args) {
  const auto node = make_node(input, args);
  if (node) {
    node->save(rng_state);
  }
  const Tensor result = ops::dropout_below_autograd(keys, input, rng_state, args);
  if (node) {
    torch::autograd::set_history(result, node);
  }
  const Tensor& tangent = input._fw_grad(/*level=*/0);
  if (tangent.defined()) {
    result._set_fw_grad(Linear(args)(tangent, rng_state), /*level=*/0, /*is_inplace_op=*/false);
  }
  return result;
}

}  // namespace dropout
