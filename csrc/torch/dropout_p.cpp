// Key CompositeExplicitAutograd: `dropout` whose p is a tensor.
#include "torch/checks.h"
#include "torch/ops.h"

namespace dropout {

Tensor dropout_p(
    const Tensor& input,
    const Tensor& p,
    const Tensor& rng_state,
    SymStrides mask_strides,
    c10::SymInt mask_base,
    Factor scale,
    double shift,
    double fill) {
  check_p(p);
  return ops::dropout(
      input, rng_state,
      {p.item<double>(), mask_strides, std::move(mask_base), scale, shift, fill});
}

}  // namespace dropout
