// The derivative, defined once. Dropout with a given mask is linear (but for a constant) and its
// own adjoint, so backward, double backward and the forward-mode derivative are the operator
// itself on another tensor; what is kept for it is the rng_state alone.
#pragma once

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/version.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "torch/ops.h"

namespace dropout {

// torch holds graph nodes by intrusive_ptr from 2.13 on.
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 13
#define DROPOUT_EXT_INTRUSIVE_NODES 1
template <class T>
using NodePointer = c10::intrusive_ptr<T>;
#else
template <class T>
using NodePointer = std::shared_ptr<T>;
#endif

// The linear part of a call, on any tensor of its shape.
struct Linear {
  double p = 0.0;
  std::optional<std::vector<c10::SymInt>> mask_strides;
  c10::SymInt mask_base = 0;
  Factor scale;

  Linear() = default;
  explicit Linear(const DropoutArgs& args);

  Tensor operator()(const Tensor& tensor, const Tensor& rng_state) const;

  auto members() { return std::tie(p, mask_strides, mask_base, scale); }
  auto members() const { return std::tie(p, mask_strides, mask_base, scale); }
};

class DropoutBackward : public torch::autograd::Node {
 public:
  explicit DropoutBackward(const DropoutArgs& args) : linear_(args) {}

  void save(const Tensor& rng_state);

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override;
  void release_variables() override;
  std::string name() const override { return "DropoutBackward"; }

  // See compiled_autograd.cpp.
  void compiled_args(torch::dynamo::autograd::CompiledNodeArgs& args) const override;
  torch::autograd::variable_list apply_with_saved(
      const torch::autograd::variable_list& gradients,
      torch::dynamo::autograd::SwapSavedVariables& saved) override;

 private:
  Linear linear_;
  torch::autograd::SavedVariable rng_state_;
};

// The node for `input`; null unless its gradient is wanted.
NodePointer<DropoutBackward> make_node(const Tensor& input, const DropoutArgs& args);

}  // namespace dropout
