// What compiled autograd asks of a node: see compiled_autograd.cpp.
#include <torch/csrc/dynamo/compiled_autograd.h>

#include "torch/attention_autograd.h"

namespace dropout::attention {

using torch::autograd::variable_list;
using torch::dynamo::autograd::IValuePacker;
using torch::dynamo::autograd::PackedArgs;

namespace {

using MaskStrides = decltype(Options::mask_strides);
using Metadata = std::vector<std::optional<torch::autograd::InputMetadata>>;

std::vector<at::TypePtr> packed_types() {
  return {IValuePacker<double>::packed_type(),       IValuePacker<bool>::packed_type(),
          IValuePacker<Factor>::packed_type(),       IValuePacker<MaskStrides>::packed_type(),
          IValuePacker<c10::SymInt>::packed_type(),  IValuePacker<bool>::packed_type(),
          IValuePacker<variable_list>::packed_type()};
}

variable_list apply_packed(
    const variable_list& grad_outputs, const std::vector<c10::IValue>& arguments) {
  PackedArgs packed(arguments);
  Options options{};
  options.p = packed.unpack<double>();
  options.is_causal = packed.unpack<bool>();
  options.scale = packed.unpack<Factor>();
  options.mask_strides = packed.unpack<MaskStrides>();
  options.mask_base = packed.unpack<c10::SymInt>();
  const bool mask_gradient = packed.unpack<bool>();
  return AttentionBackward::gradients(
      grad_outputs, options, mask_gradient, packed.unpack<variable_list>());
}

}  // namespace

void AttentionBackward::compiled_args(torch::dynamo::autograd::CompiledNodeArgs& args) const {
  args.collect(options_.p);
  args.collect(options_.is_causal);
  args.collect(options_.scale);
  args.collect(options_.mask_strides);
  args.collect(options_.mask_base);
  args.collect(saved_, /*is_output=*/false);
}

variable_list AttentionBackward::apply_with_saved(
    const variable_list& grad_outputs, torch::dynamo::autograd::SwapSavedVariables& swap) {
  swap.before(options_.mask_strides);
  swap.before(options_.mask_base);
  swap.before(saved_);
  PackedArgs packed;
  packed.pack(options_.p);
  packed.pack(options_.is_causal);
  packed.pack(options_.scale);
  packed.pack(options_.mask_strides);
  packed.pack(options_.mask_base);
  packed.pack(task_should_compute_output(3));
  packed.pack(unpacked());
  const auto& interface = torch::dynamo::autograd::getPyCompilerInterface();
  // Bound once: the name is taken then.
  static const std::string function =
      interface->bind_function(swap.get_py_compiler(), name(), apply_packed, packed_types());
  variable_list result = interface->call_function(
      swap.get_py_compiler(), "apply_functional", function, grad_outputs, packed.vec(),
      IValuePacker<Metadata>::pack(torch::dynamo::autograd::get_input_metadata(next_edges())));
  swap.after(options_.mask_strides);
  swap.after(options_.mask_base);
  swap.after(saved_);
  return result;
}

}  // namespace dropout::attention
