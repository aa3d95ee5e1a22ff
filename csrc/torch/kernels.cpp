// The operators on tensors in the memory of a device: checks, allocation, index map, device.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "torch/backend.h"
#include "torch/checks.h"
#include "torch/ops.h"

namespace dropout {
namespace {

IndexMap make_index_map(
    const at::Tensor& in,
    const at::Tensor& out,
    at::OptionalIntArrayRef mask_strides,
    int64_t mask_base) {
  IndexMap map;
  map.base = static_cast<uint64_t>(mask_base);
  const at::Tensor& source = in.defined() ? in : out;
  if (!mask_strides.has_value() && source.is_contiguous() && out.is_contiguous()) {
    map.push({out.numel(), 1, 1, 1});
    map.normalize();
    return map;
  }
  int64_t row_major = 1;
  for (int64_t d = out.dim() - 1; d >= 0; --d) {
    const int64_t mask = mask_strides.has_value() ? (*mask_strides)[d] : row_major;
    TORCH_CHECK(
        map.push({out.size(d), source.stride(d), out.stride(d), mask}),
        "dropout: input has more than ",
        IndexMap::kMaxDims,
        " dimensions larger than 1");
    row_major *= out.size(d);
  }
  map.normalize();
  return map;
}

// Calls `some_dropped` if a kernel has to decide. Whether p is so close to 0 or 1 that nothing or
// everything is dropped is the same on every device.
template <class F>
void apply_unless_trivial(
    const at::Tensor& in,
    const at::Tensor& out,
    Threshold threshold,
    at::OptionalIntArrayRef mask_strides,
    int64_t mask_base,
    const F& some_dropped) {
  if (out.numel() == 0) {
    return;
  }
  if (threshold.keeps_all()) {
    if (!in.defined()) {
      out.fill_(true);
    } else if (!in.is_same(out)) {
      out.copy_(in);
    }
  } else if (threshold.drops_all()) {
    out.zero_();
  } else {
    some_dropped(
        Application{in, out, threshold, make_index_map(in, out, mask_strides, mask_base)});
  }
}

void apply(
    const at::Tensor& in,
    const at::Tensor& out,
    double p,
    const at::Tensor& rng_state,
    at::OptionalIntArrayRef mask_strides,
    int64_t mask_base) {
  apply_unless_trivial(
      in, out, Threshold::from_probability(p), mask_strides, mask_base,
      [&](const Application& application) {
        out.is_cuda() ? cuda::apply(application, rng_state) : cpu::apply(application, rng_state);
      });
}

// check_mask_strides for the integers a kernel receives.
void check_strides(at::OptionalIntArrayRef mask_strides, int64_t ndim) {
  check_mask_strides(
      mask_strides.has_value()
          ? at::OptionalSymIntArrayRef(c10::fromIntArrayRefUnchecked(*mask_strides))
          : at::OptionalSymIntArrayRef(),
      ndim);
}

}  // namespace

namespace kernels {

at::Tensor draw(const at::Tensor& input, std::optional<at::Generator> generator) {
  check_input(input);
  check_generator(generator, input.device());
  return input.is_cuda() ? cuda::draw(input, generator) : cpu::draw(input, generator);
}

at::Tensor dropout(
    const at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalIntArrayRef mask_strides,
    int64_t mask_base) {
  check_probability(p);
  check_input(input);
  check_rng_state(rng_state, input.device());
  check_strides(mask_strides, input.dim());
  const at::Tensor out = at::empty_like(input);
  apply(input, out, p, rng_state, mask_strides, mask_base);
  return out;
}

at::Tensor& dropout_(
    at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalIntArrayRef mask_strides,
    int64_t mask_base) {
  check_probability(p);
  check_input(input);
  check_rng_state(rng_state, input.device());
  check_strides(mask_strides, input.dim());
  check_writable(input);
  apply(input, input, p, rng_state, mask_strides, mask_base);
  return input;
}

at::Tensor dropout_mask(
    at::IntArrayRef size,
    double p,
    const at::Tensor& rng_state,
    at::OptionalIntArrayRef mask_strides,
    int64_t mask_base) {
  check_probability(p);
  check_rng_state(rng_state, rng_state.device());
  check_strides(mask_strides, static_cast<int64_t>(size.size()));
  const at::Tensor out = at::empty(size, rng_state.options().dtype(at::kBool));
  apply(at::Tensor(), out, p, rng_state, mask_strides, mask_base);
  return out;
}

at::Tensor draw_and_apply(
    const at::Tensor& input,
    const at::Tensor& out,
    double p,
    const std::optional<at::Generator>& generator,
    at::OptionalIntArrayRef mask_strides,
    int64_t mask_base,
    bool want_state) {
  at::Tensor rng_state;
  bool drawn = false;
  apply_unless_trivial(
      input, out, Threshold::from_probability(p), mask_strides, mask_base,
      [&](const Application& application) {
        rng_state = out.is_cuda() ? cuda::draw_and_apply(application, generator, want_state)
                                  : cpu::draw_and_apply(application, generator, want_state);
        drawn = true;
      });
  // A call reserves its random numbers whatever its size and probability.
  return drawn ? rng_state : draw(input, generator);
}

}  // namespace kernels

namespace meta {

at::Tensor draw(const at::Tensor& input, std::optional<at::Generator> /*generator*/) {
  check_input(input);
  return at::empty({2}, input.options().dtype(at::kLong).memory_format(std::nullopt));
}

at::Tensor dropout(
    const at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalSymIntArrayRef mask_strides,
    c10::SymInt /*mask_base*/) {
  check_probability(p);
  check_input(input);
  check_rng_state(rng_state, input.device());
  check_mask_strides(mask_strides, input.dim());
  return at::empty_like(input);
}

at::Tensor& dropout_(
    at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalSymIntArrayRef mask_strides,
    c10::SymInt /*mask_base*/) {
  check_probability(p);
  check_input(input);
  check_rng_state(rng_state, input.device());
  check_mask_strides(mask_strides, input.dim());
  check_writable(input);
  return input;
}

at::Tensor dropout_mask(
    c10::SymIntArrayRef size,
    double p,
    const at::Tensor& rng_state,
    at::OptionalSymIntArrayRef mask_strides,
    c10::SymInt /*mask_base*/) {
  check_probability(p);
  check_rng_state(rng_state, rng_state.device());
  check_mask_strides(mask_strides, static_cast<int64_t>(size.size()));
  return at::empty_symint(size, rng_state.options().dtype(at::kBool));
}

}  // namespace meta
}  // namespace dropout
