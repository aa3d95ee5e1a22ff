// What compiled autograd (torch._dynamo.compiled_autograd) asks of a node: which of its values
// are constants of the graph and which are inputs, and a pure function of them to put there.
#include <torch/csrc/dynamo/compiled_autograd.h>

#include <tuple>
#include <type_traits>

#include "torch/autograd.h"

namespace dropout {

using torch::autograd::variable_list;
using torch::dynamo::autograd::IValuePacker;
using torch::dynamo::autograd::PackedArgs;

namespace {

template <class... Members>
std::vector<at::TypePtr> packed_types(const std::tuple<Members...>& /*linear*/) {
  return {
      IValuePacker<std::remove_cvref_t<Members>>::packed_type()...,
      IValuePacker<Tensor>::packed_type()};
}

// DropoutBackward::apply on packed arguments.
variable_list apply_packed(
    const variable_list& gradients, const std::vector<c10::IValue>& arguments) {
  if (!gradients[0].defined()) {
    return variable_list(1);
  }
  PackedArgs packed(arguments);
  Linear linear;
  const auto unpack = [&]<class Member>(Member& member) { member = packed.unpack<Member>(); };
  std::apply([&](auto&... members) { (unpack(members), ...); }, linear.members());
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
  PackedArgs packed;
  std::apply([&](const auto&... members) { (packed.pack(members), ...); }, linear_.members());
  packed.pack(rng_state_.unpack());
  const auto& interface = torch::dynamo::autograd::getPyCompilerInterface();
  // Bound once: the name is taken then.
  static const std::string function = interface->bind_function(
      saved.get_py_compiler(), name(), apply_packed, packed_types(linear_.members()));
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
