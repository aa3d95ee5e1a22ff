#include "torch/compiled_autograd.h"

#include "torch/autograd.h"

namespace dropout {

using torch::autograd::variable_list;

namespace {

// DropoutBackward::apply on packed values.
variable_list apply_packed(
    const variable_list& gradients, const std::vector<c10::IValue>& values) {
  if (!gradients[0].defined()) {
    return variable_list(1);
  }
  compiled_autograd::PackedArgs packed(values);
  Linear linear;
  compiled_autograd::unpack(packed, linear.members());
  const auto rng_state = packed.unpack<Tensor>();
  return {linear(gradients[0], rng_state)};
}

}  // namespace

void DropoutBackward::compiled_args(torch::dynamo::autograd::CompiledNodeArgs& args) const {
  std::apply([&](const auto&... members) { (args.collect(members), ...); }, linear_.members());
  args.collect(rng_state_, /*is_output=*/false);
}

variable_list DropoutBackward::apply_with_saved(
    const variable_list& gradients, torch::dynamo::autograd::SwapSavedVariables& saved) {
  if (!task_should_compute_output(0)) {
    return variable_list(1);
  }
  saved.before(linear_.mask_strides);
  saved.before(linear_.mask_base);
  saved.before(rng_state_);
  variable_list result = compiled_autograd::call<apply_packed>(
      *this, saved, gradients,
      std::tuple_cat(linear_.members(), std::make_tuple(rng_state_.unpack())));
  saved.after(linear_.mask_strides);
  saved.after(linear_.mask_base);
  saved.after(rng_state_);
  return result;
}

}  // namespace dropout
