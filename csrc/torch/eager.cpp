// No key: the way in for eager code, past the dispatcher where nothing but autograd looks on.
#include <ATen/SavedTensorHooks.h>
#include <ATen/SequenceNumber.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/record_function.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>

#include "torch/autograd.h"
#include "torch/checks.h"
#include "torch/ops.h"

namespace dropout {
namespace {

using c10::DispatchKey;
using c10::DispatchKeySet;

DispatchKeySet active_keys(const Tensor& tensor) {
  const auto local = c10::impl::tls_local_dispatch_key_set();
  return (tensor.key_set() | local.included_) - local.excluded_;
}

// Is there nothing but autograd between the caller and the kernel? No mode, subclass, transform,
// tracer or lazy view: what they have to see goes through the dispatcher.
bool is_plain(const Tensor& tensor) {
  constexpr DispatchKeySet kUnderstood(
      {DispatchKey::CPU, DispatchKey::CUDA, DispatchKey::AutogradCPU, DispatchKey::AutogradCUDA,
       DispatchKey::AutocastCPU, DispatchKey::AutocastCUDA, DispatchKey::ADInplaceOrView,
       DispatchKey::BackendSelect});
  return (active_keys(tensor).raw_repr() & ~kUnderstood.raw_repr()) == 0;
}

bool has_tangent(const Tensor& tensor) {
  return tensor._fw_grad(/*level=*/0).defined();
}

// Whatever writing would find, found before the draw.
void check_inplace(const Tensor& input) {
  constexpr DispatchKeySet kTransformed(
      {DispatchKey::FuncTorchBatched, DispatchKey::FuncTorchGradWrapper});
  if (!input.key_set().has_any(kTransformed)) {
    check_writable(input);
    torch::autograd::check_inplace(input, torch::autograd::compute_requires_grad(input));
  }
}

Tensor through_dispatcher(
    const Tensor& input,
    bool inplace,
    const Generator& generator,
    const std::optional<Tensor>& rng_state,
    const DropoutArgs& args) {
  const Tensor state = rng_state.has_value() ? *rng_state : ops::draw(input, {}, generator);
  const Tensor result = ops::dropout(input, state, args);
  return inplace ? input.copy_(result) : result;
}

Tensor directly(
    const Tensor& input,
    bool inplace,
    const Generator& generator,
    std::optional<Tensor> rng_state,
    const DropoutArgs& args) {
  const DispatchKeySet keys = active_keys(input);
  const bool differentiable = !(keys & c10::autograd_dispatch_keyset).empty() &&
                              torch::autograd::compute_requires_grad(input);
  RECORD_FUNCTION(
      "dropout_ext::dropout", std::vector<c10::IValue>({input}),
      differentiable ? static_cast<int64_t>(at::sequence_number::peek()) : -1);
  NodePointer<DropoutBackward> node;
  if (differentiable) {
    node = make_node(input, args);
    // Saving may fail, so it comes before writing. Only hooks can make a new state fail: it is
    // drawn by itself then, for them to see.
    if (!rng_state.has_value() && at::SavedTensorDefaultHooks::get_hooks().has_value()) {
      rng_state = ops::draw(input, {}, generator);
    }
    if (rng_state.has_value()) {
      node->save(*rng_state);
    }
  }
  Tensor result;
  {
    const at::AutoDispatchBelowADInplaceOrView below;
    result = inplace ? input : device::empty_output(input);
    if (rng_state.has_value()) {
      device::apply(input, result, *rng_state, args);
    } else {
      const Tensor drawn =
          device::draw_and_apply(input, result, generator, args, /*want_state=*/differentiable);
      if (node) {
        node->save(drawn);
      }
    }
  }
  if (inplace && keys.has(DispatchKey::ADInplaceOrView)) {
    torch::autograd::impl::bump_version(result);
  }
  if (node && inplace) {
    torch::autograd::rebase_history(result, node);
  } else if (node) {
    torch::autograd::set_history(result, node);
  }
  return result;
}

}  // namespace

Tensor dropout_eager(
    const Tensor& input,
    bool inplace,
    const Generator& generator,
    const std::optional<Tensor>& rng_state,
    const DropoutArgs& args) {
  check_input(input);
  check_args(input.sym_sizes(), args);
  check_generator(generator, input.device());
  if (rng_state.has_value()) {
    check_rng_state(*rng_state, input.sym_sizes(), input.device());
  }
  if (inplace) {
    check_inplace(input);
  }
  const bool plain_state = !rng_state.has_value() || is_plain(*rng_state);
  if (!is_plain(input) || !plain_state || has_tangent(input)) {
    return through_dispatcher(input, inplace, generator, rng_state, args);
  }
  TORCH_CHECK(
      !inplace || !input.is_inference() || c10::InferenceMode::is_enabled(),
      "Inplace update to inference tensor outside InferenceMode is not allowed");
  return directly(input, inplace, generator, rng_state, args);
}

}  // namespace dropout
