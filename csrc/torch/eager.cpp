// The way in for eager code.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty_like.h>
#include <ATen/record_function.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>

#include "torch/autograd.h"
#include "torch/checks.h"
#include "torch/ops.h"

namespace dropout {
namespace {

c10::DispatchKeySet active_keys(const Tensor& tensor) {
  const auto local = c10::impl::tls_local_dispatch_key_set();
  return (tensor.key_set() | local.included_) - local.excluded_;
}

// Is there nothing but autograd between the caller and the kernel? No mode, subclass, transform,
// tracer or lazy view: what they have to see goes through the dispatcher.
bool is_plain(const Tensor& tensor) {
  constexpr c10::DispatchKeySet kUnderstood({
      c10::DispatchKey::CPU,
      c10::DispatchKey::CUDA,
      c10::DispatchKey::AutogradCPU,
      c10::DispatchKey::AutogradCUDA,
      c10::DispatchKey::AutocastCPU,
      c10::DispatchKey::AutocastCUDA,
      c10::DispatchKey::ADInplaceOrView,
      c10::DispatchKey::BackendSelect,
  });
  return (active_keys(tensor).raw_repr() & ~kUnderstood.raw_repr()) == 0;
}

bool has_tangent(const Tensor& tensor) {
  return tensor._fw_grad(/*level=*/0).defined();
}

SymStrides symbolic(const Strides& strides) {
  return strides.has_value() ? SymStrides(c10::fromIntArrayRefSlow(*strides)) : SymStrides();
}

Tensor through_dispatcher(
    Tensor& input,
    const Call& call,
    const Generator& generator,
    const std::optional<Tensor>& rng_state) {
  constexpr c10::DispatchKeySet kTransformed(
      {c10::DispatchKey::FuncTorchBatched, c10::DispatchKey::FuncTorchGradWrapper});
  if (call.inplace && !input.key_set().has_any(kTransformed)) {
    // The operator finds these errors too, but only after the draw.
    check_writable(input);
    torch::autograd::check_inplace(input, torch::autograd::compute_requires_grad(input));
  }
  const Tensor state = rng_state.has_value() ? *rng_state : ops::draw(input, {}, generator);
  const SymStrides strides = symbolic(call.mask_strides);
  return call.inplace ? ops::dropout_(
                            input, call.p, state, strides, call.mask_base, call.scale, call.shift,
                            call.fill)
                      : ops::dropout(
                            input, call.p, state, strides, call.mask_base, call.scale, call.shift,
                            call.fill);
}

Tensor directly(
    const Tensor& input,
    const Call& call,
    const Generator& generator,
    const std::optional<Tensor>& given_state) {
  RECORD_FUNCTION("dropout_ext::dropout", std::vector<c10::IValue>({input}));
  const c10::DispatchKeySet keys = active_keys(input);
  NodePointer<DropoutBackward> node;
  if (!(keys & c10::autograd_dispatch_keyset).empty()) {
    node = make_node(input, call.inplace, [&] {
      Linear linear{call.p, std::nullopt, call.mask_base, call.scale};
      if (call.mask_strides.has_value()) {
        linear.mask_strides = symbolic(call.mask_strides)->vec();
      }
      return linear;
    });
  }
  Tensor result;
  Tensor rng_state;
  {
    const at::AutoDispatchBelowADInplaceOrView below;
    result = call.inplace ? input : empty_output(input);
    rng_state = apply_call(input, result, call, generator, given_state, static_cast<bool>(node));
  }
  if (call.inplace && keys.has(c10::DispatchKey::ADInplaceOrView)) {
    torch::autograd::impl::bump_version(result);
  }
  if (node) {
    attach_node(node, result, call.inplace, rng_state);
  }
  return result;
}

}  // namespace

Tensor dropout_eager(
    Tensor input,
    const Call& call,
    const Generator& generator,
    const std::optional<Tensor>& rng_state) {
  check_probability(call.p);
  check_input(input);
  check_generator(generator, input.device());
  const bool plain_state = !rng_state.has_value() || is_plain(*rng_state);
  if (!is_plain(input) || !plain_state || has_tangent(input)) {
    return through_dispatcher(input, call, generator, rng_state);
  }
  if (rng_state.has_value()) {
    check_rng_state(*rng_state, input.sym_sizes(), input.device());
  }
  if (call.mask_strides.has_value()) {
    check_mask_strides(call.mask_strides->size(), static_cast<size_t>(input.dim()));
  }
  if (call.inplace) {
    TORCH_CHECK(
        !input.is_inference() || c10::InferenceMode::is_enabled(),
        "Inplace update to inference tensor outside InferenceMode is not allowed");
    check_writable(input);
  }
  return directly(input, call, generator, rng_state);
}

}  // namespace dropout
