#include "torch/attention_autograd.h"
#include "torch/compiled_autograd.h"

namespace dropout::attention {

using torch::autograd::variable_list;

namespace {

// AttentionBackward::apply on packed values.
variable_list apply_packed(
    const variable_list& grad_outputs, const std::vector<c10::IValue>& values) {
  compiled_autograd::PackedArgs packed(values);
  Options options{};
  compiled_autograd::unpack(packed, options.members());
  const bool mask_gradient = packed.unpack<bool>();
  return AttentionBackward::gradients(
      grad_outputs, options, mask_gradient, packed.unpack<variable_list>());
}

}  // namespace

void AttentionBackward::compiled_args(torch::dynamo::autograd::CompiledNodeArgs& args) const {
  std::apply([&](const auto&... members) { (args.collect(members), ...); }, options_.members());
  args.collect(saved_, /*is_output=*/false);
}

variable_list AttentionBackward::apply_with_saved(
    const variable_list& grad_outputs, torch::dynamo::autograd::SwapSavedVariables& swap) {
  swap.before(options_.mask_strides);
  swap.before(options_.mask_base);
  swap.before(saved_);
  variable_list result = compiled_autograd::call<apply_packed>(
      *this, swap, grad_outputs,
      std::tuple_cat(
          options_.members(), std::make_tuple(task_should_compute_output(3), unpacked())));
  swap.after(options_.mask_strides);
  swap.after(options_.mask_base);
  swap.after(saved_);
  return result;
}

}  // namespace dropout::attention
