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

}  // namespace dropout::meta
