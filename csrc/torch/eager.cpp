// The way in for eager code.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty_like.h>
#include <ATen/record_function.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>

#include "torch/autograd.h"
#include "torch/checks.h"
#include "torch/ops.h"

namespace dropout {
namespace {

c10::DispatchKeySet active_keys(const at::Tensor& tensor) {
  const auto local = c10::impl::tls_local_dispatch_key_set();
  return (tensor.key_set() | local.included_) - local.excluded_;
}

// Is there nothing but autograd between the caller and the kernel? No mode, subclass, transform,
// tracer or lazy view: what they have to see goes through the dispatcher.
bool is_plain(const at::Tensor& tensor) {
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

bool has_tangent(const at::Tensor& tensor) {
  return tensor._fw_grad(/*level=*/0).defined();
}

at::Tensor through_dispatcher(
    at::Tensor& input,
    double p,
    bool inplace,
    const std::optional<at::Generator>& generator,
    const std::optional<at::Tensor>& rng_state,
    at::OptionalIntArrayRef mask_strides,
    int64_t mask_base) {
  const at::Tensor state = rng_state.has_value() ? *rng_state : ops::draw(input, generator);
  const at::OptionalSymIntArrayRef strides =
      mask_strides.has_value()
          ? at::OptionalSymIntArrayRef(c10::fromIntArrayRefSlow(*mask_strides))
          : std::nullopt;
  return inplace ? ops::dropout_(input, p, state, strides, mask_base)
                 : ops::dropout(input, p, state, strides, mask_base);
}

at::Tensor directly(
    const at::Tensor& input,
    double p,
    bool inplace,
    const std::optional<at::Generator>& generator,
    at::OptionalIntArrayRef mask_strides,
    int64_t mask_base) {
  RECORD_FUNCTION("dropout_ext::dropout", std::vector<c10::IValue>({input}));
  const c10::DispatchKeySet keys = active_keys(input);
  const auto node =
      (keys & c10::autograd_dispatch_keyset).empty()
          ? NodePointer<DropoutBackward>()
          : make_node(
                input, inplace, p,
                {mask_strides.has_value()
                     ? at::OptionalSymIntArrayRef(c10::fromIntArrayRefSlow(*mask_strides))
                     : std::nullopt,
                 mask_base});
  at::Tensor result;
  at::Tensor rng_state;
  {
    const at::AutoDispatchBelowADInplaceOrView below;
    result = inplace ? input : at::empty_like(input);
    rng_state = kernels::draw_and_apply(
        input, result, p, generator, mask_strides, mask_base, static_cast<bool>(node));
  }
  if (inplace && keys.has(c10::DispatchKey::ADInplaceOrView)) {
    torch::autograd::impl::bump_version(result);
  }
  if (node) {
    attach_node(node, result, inplace, rng_state);
  }
  return result;
}

}  // namespace

at::Tensor dropout_eager(
    at::Tensor input,
    double p,
    bool inplace,
    const std::optional<at::Generator>& generator,
    const std::optional<at::Tensor>& rng_state,
    at::OptionalIntArrayRef mask_strides,
    int64_t mask_base) {
  check_probability(p);
  check_input(input);
  check_generator(generator, input.device());
  if (inplace) {
    check_writable(input);
  }
  if (rng_state.has_value()) {
    check_rng_state(*rng_state, input.device());
  }
  if (rng_state.has_value() || !is_plain(input) || has_tangent(input)) {
    return through_dispatcher(
        input, p, inplace, generator, rng_state, mask_strides, mask_base);
  }
  return directly(input, p, inplace, generator, mask_strides, mask_base);
}

}  // namespace dropout
