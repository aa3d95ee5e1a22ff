#pragma once

#include <vector>

#include "torch/attention.h"
#include "torch/autograd.h"

namespace dropout::attention {

class AttentionBackward : public torch::autograd::Node {
 public:
  explicit AttentionBackward(Options options) : options_(std::move(options)) {}

  void save(const Inputs& inputs, const Result& result);

  torch::autograd::variable_list apply(torch::autograd::variable_list&& grad_outputs) override;
  void release_variables() override;
  std::string name() const override { return "ScaledDotProductAttentionBackward"; }

  // See attention_compiled_autograd.cpp.
  void compiled_args(torch::dynamo::autograd::CompiledNodeArgs& args) const override;
  torch::autograd::variable_list apply_with_saved(
      const torch::autograd::variable_list& grad_outputs,
      torch::dynamo::autograd::SwapSavedVariables& swap) override;

  // apply as a function of all that it depends on.
  static torch::autograd::variable_list gradients(
      const torch::autograd::variable_list& grad_outputs,
      const Options& options,
      bool mask_gradient,
      const torch::autograd::variable_list& saved);

 private:
  torch::autograd::variable_list unpacked() const;

  Options options_;
  std::vector<torch::autograd::SavedVariable> saved_;
};

}  // namespace dropout::attention
