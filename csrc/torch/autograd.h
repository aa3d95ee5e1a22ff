// The derivative, defined once. Dropout with a given mask is linear and its own adjoint, so
// backward, double backward and the forward-mode derivative are the operator itself on another
// tensor; what is kept for it is the rng_state alone.
#pragma once

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/version.h>

#include <optional>
#include <string>
#include <vector>

#include "torch/ops.h"

namespace dropout {

// torch holds graph nodes by intrusive_ptr from 2.13 on.
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 13)
template <class T>
using NodePointer = c10::intrusive_ptr<T>;
#else
template <class T>
using NodePointer = std::shared_ptr<T>;
#endif

// Where in the mask the elements of a tensor lie; see core/index_map.h.
struct MaskIndex {
  at::OptionalSymIntArrayRef strides;
  c10::SymInt base;
};

class DropoutBackward : public torch::autograd::Node {
 public:
  DropoutBackward(double p, const MaskIndex& index);

  void save(const at::Tensor& rng_state);

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override;
  void release_variables() override;
  std::string name() const override { return "DropoutBackward"; }

 private:
  double p_;
  std::optional<std::vector<c10::SymInt>> strides_;
  c10::SymInt base_;
  torch::autograd::SavedVariable rng_state_;
};

// The node for `input`, null unless its gradient is wanted. The input of an in-place operation is
// refused here if it must not be changed.
NodePointer<DropoutBackward> make_node(
    const at::Tensor& input,
    bool inplace,
    double p,
    const MaskIndex& index);

// Attaches a node that is not null to the result.
void attach_node(
    const NodePointer<DropoutBackward>& node,
    const at::Tensor& result,
    bool inplace,
    const at::Tensor& rng_state);

// The Autograd kernels of ops::dropout and ops::dropout_, and what counts in-place changes.
namespace autograd {

at::Tensor dropout(
    c10::DispatchKeySet keys,
    const at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalSymIntArrayRef mask_strides,
    c10::SymInt mask_base);

at::Tensor& dropout_(
    c10::DispatchKeySet keys,
    at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalSymIntArrayRef mask_strides,
    c10::SymInt mask_base);

at::Tensor& bump_version_of_dropout_(
    c10::DispatchKeySet keys,
    at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalSymIntArrayRef mask_strides,
    c10::SymInt mask_base);

}  // namespace autograd
}  // namespace dropout
