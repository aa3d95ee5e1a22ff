// What compiled autograd (torch._dynamo.compiled_autograd) asks of a node: which of its values
// are constants of the graph and which are inputs, and a pure function of them to put there.
#include <torch/csrc/dynamo/compiled_autograd.h>

#include "torch/autograd.h"

namespace dropout {

using torch::autograd::variable_list;
using torch::dynamo::autograd::IValuePacker;
using torch::dynamo::autograd::PackedArgs;

namespace {

using MaskStrides = decltype(Linear::mask_strides);

std::vector<at::TypePtr> packed_types() {
  return {
      IValuePacker<double>::packed_type(),      IValuePacker<MaskStrides>::packed_type(),
      IValuePacker<c10::SymInt>::packed_type(), IValuePacker<Factor>::packed_type(),
      IValuePacker<Tensor>::packed_type(),
  };
}

// DropoutBackward::apply on packed arguments.
variable_list apply_packed(
    const variable_list& gradients, const std::vector<c10::IValue>& arguments) {
  if (!gradients[0].defined()) {
    return variable_list(1);
  }
  PackedArgs packed(arguments);
  Linear linear;
  linear.p = packed.unpack<double>();
  linear.mask_strides = packed.unpack<MaskStrides>();
  linear.mask_base = packed.unpack<c10::SymInt>();
  linear.scale = packed.unpack<Factor>();
  const auto rng_state = packed.unpack<Tensor>();
  return {linear(gradients[0], rng_state)};
}

}  // namespace

void DropoutBackward::compiled_args(torch::dynamo::autograd::CompiledNodeArgs& args) const {
  args.collect(linear_.p);
  args.collect(linear_.mask_strides);
  args.collect(linear_.mask_base);
  args.collect(linear_.scale);
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
  PackedArgs packed;
  packed.pack(linear_.p);
  packed.pack(linear_.mask_strides);
  packed.pack(linear_.mask_base);
  packed.pack(linear_.scale);
  packed.pack(rng_state_.unpack());
  const auto& interface = torch::dynamo::autograd::getPyCompilerInterface();
  // Bound once: the name is taken then.
  static const std::string function =
      interface->bind_function(saved.get_py_compiler(), name(), apply_packed, packed_types());
  using Metadata = std::vector<std::optional<torch::autograd::InputMetadata>>;
  variable_list result = interface->call_function(
      saved.get_py_compiler(), "apply_functional", function, gradients, packed.vec(),
      IValuePacker<Metadata>::pack(torch::dynamo::autograd::get_input_metadata(next_edges())));
  saved.after(linear_.mask_strides);
  saved.after(linear_.mask_base);
  saved.after(rng_state_);
  return result;
}

}  // namespace dropout
