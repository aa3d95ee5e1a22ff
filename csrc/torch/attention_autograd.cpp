// The derivative of attention: a kernel of its own, and where a further derivative is wanted the
// composition, which torch differentiates.
#include "torch/attention_autograd.h"

#include <torch/csrc/autograd/VariableTypeUtils.h>

#include <mutex>

namespace dropout::attention {

using torch::autograd::variable_list;

namespace {

template <class... Tensors>
bool any_tangent(const Tensors&... tensors) {
  return ((tensors.defined() && tensors._fw_grad(/*level=*/0).defined()) || ...);
}

NodePointer<AttentionBackward> make_node(const Options& options) {
#if DROPOUT_EXT_INTRUSIVE_NODES
  return c10::make_intrusive<AttentionBackward>(options);
#else
  return {new AttentionBackward(options), torch::autograd::deleteNode};
#endif
}

}  // namespace

void AttentionBackward::save(const Inputs& inputs, const Result& result) {
  // Detached, for a node must not keep its own output alive.
  const Tensor output = result.output.detach();
  const Tensor* const tensors[] = {&inputs.query,     &inputs.key, &inputs.value,  &inputs.mask,
                                   &inputs.rng_state, &output,     &result.softmax};
  for (const Tensor* tensor : tensors) {
    saved_.emplace_back(*tensor, /*is_output=*/false);
  }
}

variable_list AttentionBackward::gradients(
    const variable_list& grad_outputs,
    const Options& options,
    bool mask_gradient,
    const variable_list& saved) {
  if (!grad_outputs[0].defined()) {
    return variable_list(4);
  }
  const Inputs inputs{saved[0], saved[1], saved[2], saved[3], saved[4]};
  auto [query, key, value, mask] =
      ops::backward(grad_outputs[0], inputs, {saved[5], saved[6]}, options, mask_gradient);
  return {query, key, value, mask_gradient ? mask : Tensor()};
}

variable_list AttentionBackward::unpacked() const {
  variable_list tensors;
  for (const auto& variable : saved_) {
    tensors.push_back(variable.unpack());
  }
  return tensors;
}

variable_list AttentionBackward::apply(variable_list&& grad_outputs) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return gradients(grad_outputs, options_, task_should_compute_output(3), unpacked());
}

void AttentionBackward::release_variables() {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (auto& variable : saved_) {
    variable.reset_data();
  }
}

namespace autograd {

Result forward(const Inputs& inputs, const Options& options) {
  const auto& [query, key, value, mask, rng_state] = inputs;
  if (any_tangent(query, key, value, mask)) {
    return composition::forward(inputs, options);
  }
  NodePointer<AttentionBackward> node;
  if (torch::autograd::compute_requires_grad(query, key, value, mask)) {
    node = make_node(options);
    node->set_next_edges(torch::autograd::collect_next_edges(query, key, value, mask));
  }
  const Result result = [&] {
    const at::AutoDispatchBelowADInplaceOrView below;
    return ops::forward(inputs, options);
  }();
  if (node) {
    node->save(inputs, result);
    torch::autograd::set_history(result.output, node);
  }
  return result;
}

Gradients backward(
    const Tensor& grad_output,
    const Inputs& inputs,
    const Result& result,
    const Options& options,
    bool mask_gradient) {
  const auto& [query, key, value, mask, rng_state] = inputs;
  if (any_tangent(grad_output, query, key, value, mask) ||
      torch::autograd::compute_requires_grad(grad_output, query, key, value, mask)) {
    return composition::backward(grad_output, inputs, result, options, mask_gradient);
  }
  const at::AutoDispatchBelowADInplaceOrView below;
  return ops::backward(grad_output, inputs, result, options, mask_gradient);
}

}  // namespace autograd
}  // namespace dropout::attention
