#include "torch/checks.h"

#include <ATen/MemoryOverlap.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <utility>
#include <vector>

namespace dropout {

namespace {

// All digits that tell the number from its neighbours, as Python prints it.
std::string shortest(double number) {
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof(digits), number).ptr;
  return std::string(digits, end);
}

std::string described(const SymStrides& mask_strides) {
  return mask_strides.has_value() ? c10::str(" and mask_strides ", *mask_strides, " give ")
                                  : " gives ";
}

// Does an address from here on, in the dimensions from `d` on, occur twice or among `taken`?
bool repeats_an_address(
    const at::Tensor& tensor, std::vector<bool>& taken, int64_t d = 0, int64_t address = 0) {
  if (d == tensor.dim()) {
    const bool repeated = taken[static_cast<size_t>(address)];
    taken[static_cast<size_t>(address)] = true;
    return repeated;
  }
  for (int64_t k = 0; k < tensor.size(d); ++k, address += tensor.stride(d)) {
    if (repeats_an_address(tensor, taken, d + 1, address)) {
      return true;
    }
  }
  return false;
}

// Do two elements share an address? None do where every dimension steps over all that the smaller
// steps can reach; otherwise addresses are compared.
bool overlaps_itself(const at::Tensor& tensor) {
  std::vector<std::pair<int64_t, int64_t>> steps;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.size(d) > 1) {
      steps.emplace_back(tensor.stride(d), tensor.size(d));
    }
  }
  std::sort(steps.begin(), steps.end());
  int64_t reach = 0;
  bool steps_over = true;
  for (const auto& [stride, size] : steps) {
    steps_over = steps_over && stride > reach;
    reach += stride * (size - 1);
  }
  std::vector<bool> taken(steps_over ? 0 : static_cast<size_t>(reach + 1));
  return !steps_over && repeats_an_address(tensor, taken);
}

// The lowest mask index of an element; nothing where symbols decide it.
std::optional<int64_t> lowest_mask_index(c10::SymIntArrayRef sizes, const DropoutArgs& args) {
  std::optional<int64_t> lowest = args.mask_base.maybe_as_int();
  for (size_t d = 0; lowest && args.mask_strides.has_value() && d < sizes.size(); ++d) {
    const auto size = sizes[d].maybe_as_int();
    const auto stride = (*args.mask_strides)[d].maybe_as_int();
    if (!size || !stride) {
      return std::nullopt;
    }
    *lowest += std::min<int64_t>(0, std::max<int64_t>(*size - 1, 0) * *stride);
  }
  return lowest;
}

}  // namespace

void check_input(const at::Tensor& input) {
  TORCH_CHECK_TYPE(
      !input.is_nested(),
      "dropout: input must not be a nested tensor of strided layout; use torch.jagged");
  TORCH_CHECK_TYPE(
      input.layout() == at::kStrided, "dropout: input must be a strided tensor, but got layout ",
      input.layout());
  const at::ScalarType dtype = input.scalar_type();
  TORCH_CHECK_TYPE(
      dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf || dtype == at::kBFloat16,
      "dropout: input must be float64, float32, bfloat16 or float16, but got ", dtype);
}

void check_rng_state(const at::Tensor& rng_state, c10::SymIntArrayRef sizes, c10::Device device) {
  TORCH_CHECK_TYPE(
      rng_state.scalar_type() == at::kLong, "dropout: rng_state must be int64, but got ",
      rng_state.scalar_type());
  const auto shape = rng_state.sym_sizes();
  bool fits = !shape.empty() && shape.back() == 2 && shape.size() <= sizes.size() + 1;
  for (size_t d = 0; fits && d + 1 < shape.size(); ++d) {
    fits = shape[d] == sizes[d];
  }
  TORCH_CHECK_VALUE(
      fits,
      "dropout: rng_state must have shape [2] (seed, offset), or [*batch, 2] for an input whose "
      "sizes begin with *batch, but got shape ",
      shape, " for sizes ", sizes);
  TORCH_CHECK(
      rng_state.device() == device, "dropout: rng_state must be on the device of the input, ",
      device, ", but got ", rng_state.device());
}

void check_p(const at::Tensor& p) {
  TORCH_CHECK_TYPE(
      p.dim() == 0 && !p.is_complex(),
      "dropout: p must be a number or a real tensor without dimensions, but got ",
      p.scalar_type(), " of shape ", p.sym_sizes());
}

void check_fold_in(const at::Tensor& rng_state, const at::Tensor& number) {
  for (const at::Tensor* tensor : {&rng_state, &number}) {
    TORCH_CHECK_TYPE(
        tensor->scalar_type() == at::kLong && tensor->layout() == at::kStrided,
        "fold_in: rng_state and number must be int64, but got ", rng_state.scalar_type(), " and ",
        number.scalar_type());
  }
  const auto shape = rng_state.sym_sizes();
  TORCH_CHECK_VALUE(
      !shape.empty() && shape.back() == 2 &&
          number.sym_sizes() == shape.slice(0, shape.size() - 1),
      "fold_in: rng_state must have shape [2] (seed, offset) and number shape [], or [*batch, 2] "
      "and [*batch], but got ",
      shape, " and ", number.sym_sizes());
  TORCH_CHECK(
      rng_state.device() == number.device(),
      "fold_in: number must be on the device of rng_state, ", rng_state.device(), ", but got ",
      number.device());
}

void check_generator(const std::optional<at::Generator>& generator, c10::Device device) {
  if (!generator.has_value() || !generator->defined()) {
    return;
  }
  TORCH_CHECK(
      generator->device() == device ||
          (generator->device().type() == device.type() && !generator->device().has_index()),
      "dropout: generator must be on the device of the input, ", device,
      ", but got a generator on ", generator->device());
}

void check_args(c10::SymIntArrayRef sizes, const DropoutArgs& args) {
  TORCH_CHECK_VALUE(
      args.p >= 0.0 && args.p <= 1.0, "dropout probability has to be between 0 and 1, but got ",
      shortest(args.p));
  TORCH_CHECK_VALUE(
      !args.mask_strides.has_value() || args.mask_strides->size() == sizes.size(),
      "dropout: mask_strides must have one entry for each of the ", sizes.size(),
      " dimensions, but got ", args.mask_strides->size());
  const auto lowest = lowest_mask_index(sizes, args);
  TORCH_CHECK_VALUE(
      lowest.value_or(0) >= 0, "dropout: mask indices must not be negative, but mask_base ",
      args.mask_base, described(args.mask_strides), *lowest, " for a tensor of shape ", sizes);
}

void check_dropout(
    const at::Tensor& input, const at::Tensor& rng_state, const DropoutArgs& args) {
  check_input(input);
  check_args(input.sym_sizes(), args);
  check_rng_state(rng_state, input.sym_sizes(), input.device());
}

void check_writable(const at::Tensor& tensor) {
  at::assert_no_internal_overlap(tensor);
  if (tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides()) {
    return;  // shapes without memory
  }
  if (!tensor.has_storage() || tensor.is_meta() || tensor.is_contiguous() ||
      tensor.numel() == 0) {
    return;
  }
  TORCH_CHECK(
      !overlaps_itself(tensor),
      "dropout: in place on memory that overlaps itself: several elements of the tensor of "
      "sizes ",
      tensor.sizes(), " and strides ", tensor.strides(), " share one memory location");
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
