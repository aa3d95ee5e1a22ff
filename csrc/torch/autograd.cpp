#include "torch/autograd.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>

#include <mutex>
#include <vector>

namespace dropout {

using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

namespace {

using Dropout = at::Tensor(
    const at::Tensor&,
    double,
    const at::Tensor&,
    at::OptionalSymIntArrayRef,
    c10::SymInt);
using DropoutInplace = at::Tensor&(
    at::Tensor&,
    double,
    const at::Tensor&,
    at::OptionalSymIntArrayRef,
    c10::SymInt);
using Draw = at::Tensor(const at::Tensor&, std::optional<at::Generator>);

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

const at::Tensor& tangent(const at::Tensor& tensor) {
  return tensor._fw_grad(/*level=*/0);
}

}  // namespace

namespace ops {

at::Tensor draw(const at::Tensor& input, const std::optional<at::Generator>& generator) {
  static const auto handle = find<Draw>("dropout_ext::draw");
  return handle.call(input, generator);
}

at::Tensor dropout(
    const at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalSymIntArrayRef mask_strides,
    c10::SymInt mask_base) {
  return dropout_handle().call(input, p, rng_state, mask_strides, std::move(mask_base));
}

at::Tensor& dropout_(
    at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalSymIntArrayRef mask_strides,
    c10::SymInt mask_base) {
  return dropout_inplace_handle().call(input, p, rng_state, mask_strides, std::move(mask_base));
}

}  // namespace ops

DropoutBackward::DropoutBackward(double p, const MaskIndex& index) : p_(p), base_(index.base) {
  if (index.strides.has_value()) {
    strides_ = index.strides->vec();
  }
}

void DropoutBackward::save(const at::Tensor& rng_state) {
  rng_state_ = SavedVariable(rng_state, /*is_output=*/false);
}

variable_list DropoutBackward::apply(variable_list&& gradients) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!gradients[0].defined() || !task_should_compute_output(0)) {
    return variable_list(1);
  }
  const at::OptionalSymIntArrayRef strides =
      strides_.has_value() ? at::OptionalSymIntArrayRef(*strides_) : std::nullopt;
  return {ops::dropout(gradients[0], p_, rng_state_.unpack(), strides, base_)};
}

void DropoutBackward::release_variables() {
  const std::lock_guard<std::mutex> lock(mutex_);
  rng_state_.reset_data();
}

NodePointer<DropoutBackward> make_node(
    const at::Tensor& input,
    bool inplace,
    double p,
    const MaskIndex& index) {
  const bool wanted = torch::autograd::compute_requires_grad(input);
  if (inplace) {
    torch::autograd::check_inplace(input, wanted);
  }
  if (!wanted) {
    return {};
  }
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 13)
  auto node = c10::make_intrusive<DropoutBackward>(p, index);
#else
  auto node = std::shared_ptr<DropoutBackward>(
      new DropoutBackward(p, index), torch::autograd::deleteNode);
#endif
  node->set_next_edges(torch::autograd::collect_next_edges(input));
  return node;
}

void attach_node(
    const NodePointer<DropoutBackward>& node,
    const at::Tensor& result,
    bool inplace,
    const at::Tensor& rng_state) {
  if (inplace) {
    torch::autograd::rebase_history(result, node);
  } else {
    torch::autograd::set_history(result, node);
  }
  node->save(rng_state);
}

namespace autograd {

at::Tensor dropout(
    c10::DispatchKeySet keys,
    const at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalSymIntArrayRef mask_strides,
    c10::SymInt mask_base) {
  const auto node = make_node(input, /*inplace=*/false, p, {mask_strides, mask_base});
  const at::Tensor result = [&] {
    const at::AutoDispatchBelowADInplaceOrView below;
    return dropout_handle().redispatch(
        keys & c10::after_autograd_keyset, input, p, rng_state, mask_strides, mask_base);
  }();
  if (node) {
    attach_node(node, result, /*inplace=*/false, rng_state);
  }
  if (tangent(input).defined()) {
    result._set_fw_grad(
        ops::dropout(tangent(input), p, rng_state, mask_strides, mask_base), /*level=*/0,
        /*is_inplace_op=*/false);
  }
  return result;
}

at::Tensor& dropout_(
    c10::DispatchKeySet keys,
    at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalSymIntArrayRef mask_strides,
    c10::SymInt mask_base) {
  const auto node = make_node(input, /*inplace=*/true, p, {mask_strides, mask_base});
  {
    const at::AutoDispatchBelowAutograd below;
    dropout_inplace_handle().redispatch(
        keys & c10::after_autograd_keyset, input, p, rng_state, mask_strides, mask_base);
  }
  if (node) {
    attach_node(node, input, /*inplace=*/true, rng_state);
  }
  if (tangent(input).defined()) {
    at::Tensor in_place = tangent(input);
    ops::dropout_(in_place, p, rng_state, mask_strides, mask_base);
    input._set_fw_grad(in_place, /*level=*/0, /*is_inplace_op=*/true);
  }
  return input;
}

at::Tensor& bump_version_of_dropout_(
    c10::DispatchKeySet keys,
    at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalSymIntArrayRef mask_strides,
    c10::SymInt mask_base) {
  {
    const at::AutoDispatchBelowADInplaceOrView below;
    dropout_inplace_handle().redispatch(
        keys & c10::after_ADInplaceOrView_keyset, input, p, rng_state, mask_strides, mask_base);
  }
  torch::autograd::impl::bump_version(input);
  return input;
}

}  // namespace autograd
}  // namespace dropout
