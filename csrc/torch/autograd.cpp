#include "torch/autograd.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>

#include <mutex>

namespace dropout {

using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

namespace {

template <class Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

const auto& dropout_handle() {
  static const auto handle = find<Dropout>("dropout_ext::dropout");
  return handle;
}

const auto& dropout_inplace_handle() {
  static const auto handle = find<DropoutInplace>("dropout_ext::dropout_");
  return handle;
}

const Tensor& tangent(const Tensor& tensor) {
  return tensor._fw_grad(/*level=*/0);
}

Linear linear_part(double p, SymStrides mask_strides, c10::SymInt mask_base, Factor scale) {
  Linear linear{p, std::nullopt, std::move(mask_base), scale};
  if (mask_strides.has_value()) {
    linear.mask_strides = mask_strides->vec();
  }
  return linear;
}

}  // namespace

namespace ops {

Tensor draw(const Tensor& input, c10::SymIntArrayRef batch, Generator generator) {
  static const auto handle = find<Draw>("dropout_ext::draw");
  return handle.call(input, batch, std::move(generator));
}

Tensor dropout(
    const Tensor& input,
    double p,
    const Tensor& rng_state,
    SymStrides mask_strides,
    c10::SymInt mask_base,
    Factor scale,
    double shift,
    double fill) {
  return dropout_handle().call(
      input, p, rng_state, mask_strides, std::move(mask_base), scale, shift, fill);
}

Tensor& dropout_(
    Tensor& input,
    double p,
    const Tensor& rng_state,
    SymStrides mask_strides,
    c10::SymInt mask_base,
    Factor scale,
    double shift,
    double fill) {
  return dropout_inplace_handle().call(
      input, p, rng_state, mask_strides, std::move(mask_base), scale, shift, fill);
}

}  // namespace ops

Tensor Linear::operator()(const Tensor& tensor, const Tensor& rng_state) const {
  if (tensor.layout() == at::kSparse) {  // the gradient that a sparse embedding sends back
    const Tensor pattern = tensor.coalesce();
    return (*this)(pattern.to_dense(), rng_state).sparse_mask(pattern);
  }
  if (!mask_strides.has_value() && !mask_base.is_symbolic()) {
    const Call call{p,           /*inplace=*/false, {}, mask_base.as_int_unchecked(),
                    scale,       /*shift=*/0.0,
                    /*fill=*/0.0};
    return dropout_eager(tensor, call, std::nullopt, rng_state);
  }
  const SymStrides strides = mask_strides.has_value() ? SymStrides(*mask_strides) : SymStrides();
  return ops::dropout(tensor, p, rng_state, strides, mask_base, scale, 0.0, 0.0);
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

NodePointer<DropoutBackward> make_node(
    const Tensor& input, bool inplace, c10::function_ref<Linear()> linear) {
  const bool wanted = torch::autograd::compute_requires_grad(input);
  if (inplace) {
    torch::autograd::check_inplace(input, wanted);
  }
  if (!wanted) {
    return {};
  }
#if DROPOUT_EXT_INTRUSIVE_NODES
  auto node = c10::make_intrusive<DropoutBackward>(linear());
#else
  auto node = std::shared_ptr<DropoutBackward>(
      new DropoutBackward(linear()), torch::autograd::deleteNode);
#endif
  node->set_next_edges(torch::autograd::collect_next_edges(input));
  return node;
}

void attach_node(
    const NodePointer<DropoutBackward>& node,
    const Tensor& result,
    bool inplace,
    const Tensor& rng_state) {
  if (inplace) {
    torch::autograd::rebase_history(result, node);
  } else {
    torch::autograd::set_history(result, node);
  }
  node->save(rng_state);
}

namespace autograd {

Tensor dropout(
    c10::DispatchKeySet keys,
    const Tensor& input,
    double p,
    const Tensor& rng_state,
    SymStrides mask_strides,
    c10::SymInt mask_base,
    Factor scale,
    double shift,
    double fill) {
  const auto linear = [&] { return linear_part(p, mask_strides, mask_base, scale); };
  const auto node = make_node(input, /*inplace=*/false, linear);
  const Tensor result = [&] {
    const at::AutoDispatchBelowADInplaceOrView below;
    return dropout_handle().redispatch(
        keys & c10::after_autograd_keyset, input, p, rng_state, mask_strides, mask_base, scale,
        shift, fill);
  }();
  if (node) {
    attach_node(node, result, /*inplace=*/false, rng_state);
  }
  if (tangent(input).defined()) {
    result._set_fw_grad(
        linear()(tangent(input), rng_state), /*level=*/0, /*is_inplace_op=*/false);
  }
  return result;
}

Tensor& dropout_(
    c10::DispatchKeySet keys,
    Tensor& input,
    double p,
    const Tensor& rng_state,
    SymStrides mask_strides,
    c10::SymInt mask_base,
    Factor scale,
    double shift,
    double fill) {
  const auto node = make_node(
      input, /*inplace=*/true, [&] { return linear_part(p, mask_strides, mask_base, scale); });
  {
    const at::AutoDispatchBelowAutograd below;
    dropout_inplace_handle().redispatch(
        keys & c10::after_autograd_keyset, input, p, rng_state, mask_strides, mask_base, scale,
        shift, fill);
  }
  if (node) {
    attach_node(node, input, /*inplace=*/true, rng_state);
  }
  if (tangent(input).defined()) {
    // In place as well, for the sake of tensors that share this memory and so the tangent's.
    Tensor in_place = tangent(input);
    ops::dropout_(in_place, p, rng_state, mask_strides, mask_base, scale, 0.0, 0.0);
    input._set_fw_grad(in_place, /*level=*/0, /*is_inplace_op=*/true);
  }
  return input;
}

Tensor& bump_version_of_dropout_(
    c10::DispatchKeySet keys,
    Tensor& input,
    double p,
    const Tensor& rng_state,
    SymStrides mask_strides,
    c10::SymInt mask_base,
    Factor scale,
    double shift,
    double fill) {
  {
    const at::AutoDispatchBelowADInplaceOrView below;
    dropout_inplace_handle().redispatch(
        keys & c10::after_ADInplaceOrView_keyset, input, p, rng_state, mask_strides, mask_base,
        scale, shift, fill);
  }
  torch::autograd::impl::bump_version(input);
  return input;
}

}  // namespace autograd
}  // namespace dropout
