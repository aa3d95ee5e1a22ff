// What compiled autograd (torch._dynamo.compiled_autograd) asks of a node: a pure function of
// values that are constants of the graph or inputs of it.
#pragma once

#include <torch/csrc/dynamo/compiled_autograd.h>

#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

namespace dropout::compiled_autograd {

using torch::autograd::variable_list;
using torch::dynamo::autograd::IValuePacker;
using torch::dynamo::autograd::PackedArgs;

template <class... Values>
void unpack(PackedArgs& packed, std::tuple<Values&...> values) {
  const auto into = [&]<class Value>(Value& value) { value = packed.unpack<Value>(); };
  std::apply([&](auto&... each) { (into(each), ...); }, values);
}

// Has the graph call kApply(gradients, packed values).
template <auto kApply, class... Values>
variable_list call(
    const torch::autograd::Node& node,
    torch::dynamo::autograd::SwapSavedVariables& saved,
    const variable_list& gradients,
    const std::tuple<Values...>& values) {
  PackedArgs packed;
  std::apply([&](const auto&... each) { (packed.pack(each), ...); }, values);
  const auto& interface = torch::dynamo::autograd::getPyCompilerInterface();
  // Bound once: the name is taken then.
  static const std::string function = interface->bind_function(
      saved.get_py_compiler(), node.name(), kApply,
      {IValuePacker<std::remove_cvref_t<Values>>::packed_type()...});
  using Metadata = std::vector<std::optional<torch::autograd::InputMetadata>>;
  return interface->call_function(
      saved.get_py_compiler(), "apply_functional", function, gradients, packed.vec(),
      IValuePacker<Metadata>::pack(
          torch::dynamo::autograd::get_input_metadata(node.next_edges())));
}

}  // namespace dropout::compiled_autograd
