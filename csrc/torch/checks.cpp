#include "torch/checks.h"

#include <ATen/MemoryOverlap.h>
#include <c10/util/Exception.h>

namespace dropout {

void check_probability(double p) {
  TORCH_CHECK_VALUE(
      p >= 0.0 && p <= 1.0, "dropout probability has to be between 0 and 1, but got ", p);
}

void check_input(const at::Tensor& input) {
  TORCH_CHECK_TYPE(
      input.layout() == at::kStrided,
      "dropout: input must be a strided tensor, but got layout ",
      input.layout());
  const at::ScalarType dtype = input.scalar_type();
  TORCH_CHECK_TYPE(
      dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf || dtype == at::kBFloat16,
      "dropout: input must be float64, float32, bfloat16 or float16, but got ",
      dtype);
}

void check_rng_state(const at::Tensor& rng_state, c10::Device device) {
  TORCH_CHECK_TYPE(
      rng_state.scalar_type() == at::kLong,
      "dropout: rng_state must be int64, but got ",
      rng_state.scalar_type());
  TORCH_CHECK_VALUE(
      rng_state.dim() == 1 && rng_state.sym_size(0) == 2,
      "dropout: rng_state must have shape [2] (seed, offset), but got shape ",
      rng_state.sym_sizes());
  TORCH_CHECK(
      rng_state.device() == device,
      "dropout: rng_state must be on the device of the input, ",
      device,
      ", but got ",
      rng_state.device());
}

void check_generator(const std::optional<at::Generator>& generator, c10::Device device) {
  if (!generator.has_value() || !generator->defined()) {
    return;
  }
  TORCH_CHECK(
      generator->device() == device ||
          (generator->device().type() == device.type() && !generator->device().has_index()),
      "dropout: generator must be on the device of the input, ",
      device,
      ", but got a generator on ",
      generator->device());
}

void check_mask_strides(const c10::OptionalArrayRef<c10::SymInt>& mask_strides, int64_t ndim) {
  if (mask_strides.has_value()) {
    TORCH_CHECK_VALUE(
        static_cast<int64_t>(mask_strides->size()) == ndim,
        "dropout: mask_strides must have one entry for each of the ",
        ndim,
        " dimensions, but got ",
        mask_strides->size());
  }
}

void check_writable(const at::Tensor& tensor) {
  at::assert_no_internal_overlap(tensor);
}

ScalarType scalar_type(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return ScalarType::kFloat64;
    case at::kFloat:
      return ScalarType::kFloat32;
    case at::kBFloat16:
      return ScalarType::kBFloat16;
    case at::kHalf:
      return ScalarType::kFloat16;
    case at::kBool:
      return ScalarType::kBool;
    default:
      TORCH_INTERNAL_ASSERT(false, "unchecked dtype ", tensor.scalar_type());
  }
}

}  // namespace dropout
