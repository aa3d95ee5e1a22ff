// The derivative, defined once. Dropout with a given mask is linear (but for a constant) and its
// own adjoint, so backward, double backward and the forward-mode derivative are the operator
// itself on another tensor; what is kept for it is the rng_state alone.
#pragma once

#include <c10/util/FunctionRef.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/version.h>

#include <optional>
#include <string>
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
  double p;
  std::optional<std::vector<c10::SymInt>> mask_strides;
  c10::SymInt mask_base;
  Factor scale;

  Tensor operator()(const Tensor& tensor, const Tensor& rng_state) const;
};

class DropoutBackward : public torch::autograd::Node {
 public:
  explicit DropoutBackward(Linear linear) : linear_(std::move(linear)) {}

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

// The node for `input`, null unless its gradient is wanted. The input of an in-place operation is
// refused here if it must not be changed. `linear` is called only if there is a node.
NodePointer<DropoutBackward> make_node(
    const Tensor& input, bool inplace, c10::function_ref<Linear()> linear);

// Attaches a node that is not null to the result.
void attach_node(
    const NodePointer<DropoutBackward>& node,
    const Tensor& result,
    bool inplace,
    const Tensor& rng_state);

// The Autograd kernels, and the one below them that counts changes.
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
    double fill);

Tensor& dropout_(
    c10::DispatchKeySet keys,
    Tensor& input,
    double p,
    const Tensor& rng_state,
    SymStrides mask_strides,
    c10::SymInt mask_base,
    Factor scale,
    double shift,
    double fill);

Tensor& bump_version_of_dropout_(
    c10::DispatchKeySet keys,
    Tensor& input,
    double p,
    const Tensor& rng_state,
    SymStrides mask_strides,
    c10::SymInt mask_base,
    Factor scale,
    double shift,
    double fill);

}  // namespace autograd
}  // namespace dropout
