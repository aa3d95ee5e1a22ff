// Key Meta: shapes and dtypes alone.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <vector>

#include "torch/checks.h"
#include "torch/ops.h"

namespace dropout::meta {

Tensor draw(const Tensor& input, c10::SymIntArrayRef batch, Generator /*generator*/) {
  check_input(input);
  std::vector<c10::SymInt> shape = batch.vec();
  shape.push_back(2);
  return at::empty_symint(shape, at::TensorOptions().dtype(at::kLong).device(input.device()));
}

Tensor dropout(const Tensor& input, const Tensor& rng_state, const DropoutArgs& args) {
  check_dropout(input, rng_state, args);
  return at::empty_like(input);
}

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
  // Any probability does: it changes no shape.
  return dropout(
      input, rng_state, {/*p=*/0.5, mask_strides, std::move(mask_base), scale, shift, fill});
}

Tensor fold_in(const Tensor& rng_state, const Tensor& number) {
  check_fold_in(rng_state, number);
  return at::empty_symint(rng_state.sym_sizes(), rng_state.options());
}

}  // namespace dropout::meta
