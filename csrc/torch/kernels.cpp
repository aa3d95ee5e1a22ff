// The operators on tensors in the memory of a device: checks, allocation, index map, device.
#include <ATen/EmptyTensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <vector>

#include "torch/backend.h"
#include "torch/checks.h"
#include "torch/ops.h"

namespace dropout {
namespace {

struct MaskIndex {
  Strides strides;
  int64_t base;
};

// Are the strides those of a fresh tensor of these sizes, also where a size of 1 leaves them
// free?
bool has_default_strides(const Tensor& tensor) {
  int64_t expected = 1;
  for (int64_t d = tensor.dim() - 1; d >= 0; --d) {
    if (tensor.stride(d) != expected) {
      return false;
    }
    expected *= std::max<int64_t>(tensor.size(d), 1);
  }
  return true;
}

IndexMap make_index_map(const Tensor& in, const Tensor& out, const MaskIndex& index) {
  IndexMap map;
  map.base = static_cast<uint64_t>(index.base);
  const Tensor& source = in.defined() ? in : out;
  if (!index.strides.has_value() && source.is_contiguous() && out.is_contiguous()) {
    map.push({out.numel(), 1, 1, 1});
    map.normalize();
    return map;
  }
  int64_t row_major = 1;
  for (int64_t d = out.dim() - 1; d >= 0; --d) {
    const int64_t mask = index.strides.has_value() ? (*index.strides)[d] : row_major;
    TORCH_CHECK(
        map.push({out.size(d), source.stride(d), out.stride(d), mask}),
        "dropout: input has more than ", IndexMap::kMaxDims, " dimensions larger than 1");
    row_major *= out.size(d);
  }
  map.normalize();
  return map;
}

// Calls `some_dropped` if a kernel has to decide. Whether p is so close to 0 or 1 that nothing or
// everything is dropped is the same on every device.
template <class F>
void apply_unless_trivial(
    const Tensor& in,
    const Tensor& out,
    Threshold threshold,
    const Coefficients& coefficients,
    const F& some_dropped) {
  if (out.numel() == 0) {
    return;
  }
  const bool identity = coefficients.scale == 1.0 && !coefficients.shifts();
  if (threshold.drops_all()) {
    out.fill_(coefficients.fill);
  } else if (threshold.keeps_all() && !in.defined()) {
    out.fill_(true);
  } else if (threshold.keeps_all() && identity) {
    if (!in.is_same(out)) {
      out.copy_(in);
    }
  } else {
    some_dropped();
  }
}

// Where rng_state has leading dimensions, those of the tensors are samples with a state and, by
// default, a mask index of their own. The last of these dimensions is left to the device.
void apply_samples(const Application& all, const MaskIndex& index, const Tensor& rng_state) {
  Application first = all;
  if (rng_state.dim() == 1) {
    first.map = make_index_map(all.in, all.out, index);
    return all.out.is_cuda() ? cuda::apply(first, rng_state) : cpu::apply(first, rng_state);
  }
  const Strides strides =
      index.strides.has_value() ? Strides(index.strides->slice(1)) : Strides();
  const auto take = [&](int64_t sample) {
    first.in = all.in.defined() ? all.in.select(0, sample) : all.in;
    first.out = all.out.select(0, sample);
  };
  if (rng_state.dim() > 2) {
    for (int64_t sample = 0; sample < rng_state.size(0); ++sample) {
      take(sample);
      apply_samples(first, {strides, index.base}, rng_state.select(0, sample));
    }
    return;
  }
  take(0);
  const Tensor& source = all.in.defined() ? all.in : all.out;
  first.samples = {rng_state.size(0), source.stride(0), all.out.stride(0), rng_state.stride(0)};
  apply_samples(first, {strides, index.base}, rng_state.select(0, 0));
}

void apply(
    const Tensor& in,
    const Tensor& out,
    Threshold threshold,
    const Coefficients& coefficients,
    const MaskIndex& index,
    const Tensor& rng_state) {
  apply_unless_trivial(in, out, threshold, coefficients, [&] {
    apply_samples({in, out, threshold, coefficients, {}, {}}, index, rng_state);
  });
}

Coefficients make_coefficients(Threshold threshold, Factor scale, double shift, double fill) {
  return {scale.has_value() ? *scale : threshold.scale(), shift, fill};
}

template <class AnyStrides>
void check_mask(
    double p,
    const Tensor& rng_state,
    c10::SymIntArrayRef sizes,
    c10::Device device,
    const AnyStrides& mask_strides) {
  check_probability(p);
  check_rng_state(rng_state, sizes, device);
  if (mask_strides.has_value()) {
    check_mask_strides(mask_strides->size(), sizes.size());
  }
}

template <class AnyStrides>
void check(
    const Tensor& input, double p, const Tensor& rng_state, const AnyStrides& mask_strides) {
  check_input(input);
  check_mask(p, rng_state, input.sym_sizes(), input.device(), mask_strides);
}

}  // namespace

Tensor empty_output(const Tensor& input) {
  if (!input.is_cpu()) {
    return at::empty_like(input);
  }
  const Tensor out = has_default_strides(input)
                         ? Tensor(at::detail::empty_cpu(input.sizes(), input.scalar_type()))
                         : at::empty_like(input);
  cpu::prefer_huge_pages(out);
  return out;
}

namespace kernels {

Tensor draw(const Tensor& input, at::IntArrayRef batch, Generator generator) {
  check_input(input);
  check_generator(generator, input.device());
  return input.is_cuda() ? cuda::draw(input, batch, generator)
                         : cpu::draw(input, batch, generator);
}

Tensor dropout(
    const Tensor& input,
    double p,
    const Tensor& rng_state,
    Strides mask_strides,
    int64_t mask_base,
    Factor scale,
    double shift,
    double fill) {
  check(input, p, rng_state, mask_strides);
  check_mask_indices(input.sizes(), mask_strides, mask_base);
  const auto threshold = Threshold::from_probability(p);
  const Tensor out = empty_output(input);
  apply(
      input, out, threshold, make_coefficients(threshold, scale, shift, fill),
      {mask_strides, mask_base}, rng_state);
  return out;
}

Tensor& dropout_(
    Tensor& input,
    double p,
    const Tensor& rng_state,
    Strides mask_strides,
    int64_t mask_base,
    Factor scale,
    double shift,
    double fill) {
  check(input, p, rng_state, mask_strides);
  check_mask_indices(input.sizes(), mask_strides, mask_base);
  check_writable(input);
  const auto threshold = Threshold::from_probability(p);
  apply(
      input, input, threshold, make_coefficients(threshold, scale, shift, fill),
      {mask_strides, mask_base}, rng_state);
  return input;
}

Tensor dropout_mask(
    at::IntArrayRef size,
    double p,
    const Tensor& rng_state,
    Strides mask_strides,
    int64_t mask_base) {
  check_mask(p, rng_state, c10::fromIntArrayRefSlow(size), rng_state.device(), mask_strides);
  check_mask_indices(size, mask_strides, mask_base);
  const Tensor out = at::empty(size, rng_state.options().dtype(at::kBool));
  apply(
      Tensor(), out, Threshold::from_probability(p), Coefficients{1.0}, {mask_strides, mask_base},
      rng_state);
  return out;
}

}  // namespace kernels

Tensor apply_call(
    const Tensor& input,
    const Tensor& out,
    const Call& call,
    const Generator& generator,
    const std::optional<Tensor>& given_state,
    bool want_state) {
  const auto threshold = Threshold::from_probability(call.p);
  const Coefficients coefficients =
      make_coefficients(threshold, call.scale, call.shift, call.fill);
  const MaskIndex index{call.mask_strides, call.mask_base};
  if (given_state.has_value()) {
    apply(input, out, threshold, coefficients, index, *given_state);
    return *given_state;
  }
  Tensor rng_state;
  bool drawn = false;
  apply_unless_trivial(input, out, threshold, coefficients, [&] {
    const Application application{
        input, out, threshold, coefficients, make_index_map(input, out, index), {}};
    rng_state = out.is_cuda() ? cuda::draw_and_apply(application, generator, want_state)
                              : cpu::draw_and_apply(application, generator, want_state);
    drawn = true;
  });
  // A call reserves its random numbers whatever its size and probability.
  return drawn ? rng_state : kernels::draw(input, {}, generator);
}

namespace meta {

Tensor draw(const Tensor& input, c10::SymIntArrayRef batch, Generator /*generator*/) {
  check_input(input);
  std::vector<c10::SymInt> shape = batch.vec();
  shape.push_back(2);
  return at::empty_symint(shape, at::TensorOptions().dtype(at::kLong).device(input.device()));
}

Tensor dropout(
    const Tensor& input,
    double p,
    const Tensor& rng_state,
    SymStrides mask_strides,
    c10::SymInt /*mask_base*/,
    Factor /*scale*/,
    double /*shift*/,
    double /*fill*/) {
  check(input, p, rng_state, mask_strides);
  return at::empty_like(input);
}

Tensor& dropout_(
    Tensor& input,
    double p,
    const Tensor& rng_state,
    SymStrides mask_strides,
    c10::SymInt /*mask_base*/,
    Factor /*scale*/,
    double /*shift*/,
    double /*fill*/) {
  check(input, p, rng_state, mask_strides);
  check_writable(input);
  return input;
}

Tensor dropout_mask(
    c10::SymIntArrayRef size,
    double p,
    const Tensor& rng_state,
    SymStrides mask_strides,
    c10::SymInt /*mask_base*/) {
  check_mask(p, rng_state, size, rng_state.device(), mask_strides);
  return at::empty_symint(size, rng_state.options().dtype(at::kBool));
}

}  // namespace meta
}  // namespace dropout
