// Which operators there are and what serves them: the one place where they are registered.
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/library.h>

#include "torch/ops.h"

namespace dropout {

namespace attention {

void define(torch::Library& m);  // see attention_ops.cpp

}  // namespace attention

namespace {

using c10::DispatchKey;

TORCH_LIBRARY(dropout_ext, m) {
  attention::define(m);
  // generator -> rng_state, int64 of shape [*batch, 2] on the device of the input: for each of
  // the batch the (seed, offset) of one call.
  m.def(
      "draw(Tensor input, *, SymInt[] batch=[], Generator? generator=None) -> Tensor",
      {at::Tag::nondeterministic_seeded, at::Tag::pt2_compliant_tag});
  // `draw` in graphs, which cannot hold a generator: the number it was registered under takes its
  // place. `after` is the result of the draw before it; nothing reads it, but it keeps compilers
  // from merging the two or changing their order. See dropout_ext/integration/tracing.py.
  // The batch is optional because AOTInductor cannot pass an empty list.
  m.def(
      "draw_traced(Tensor input, *, SymInt[]? batch=None, int? generator=None, "
      "Tensor? after=None) -> Tensor",
      {at::Tag::nondeterministic_seeded, at::Tag::pt2_compliant_tag});
  // The rest is pure. The mask is a function of rng_state, of shape [2], and of the index
  //   mask_base + sum over d of coordinate_d * mask_strides_d,
  // with the strides of the row-major shape by default. Kept elements become
  // input * scale + shift, where scale is by default one over the probability to be kept; dropped
  // ones become fill. An rng_state of shape [*batch, 2] has a state for each of the samples that
  // the leading dimensions of the input count; mask strides there are ignored, and the default
  // ones are those of a sample.
  m.def(
      "dropout(Tensor input, float p, Tensor rng_state, *, SymInt[]? mask_strides=None, "
      "SymInt mask_base=0, float? scale=None, float shift=0., float fill=0.) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  // `dropout` in graphs that serve many probabilities: p is a tensor without dimensions, which
  // the operator reads when it runs. On the CPU, so that it waits for no device; a CUDA graph
  // would go on with what was read at its capture.
  m.def(
      "dropout_p(Tensor input, Tensor p, Tensor rng_state, *, SymInt[]? mask_strides=None, "
      "SymInt mask_base=0, float? scale=None, float shift=0., float fill=0.) -> Tensor",
      {at::Tag::pt2_compliant_tag, at::Tag::cudagraph_unsafe});
  // (rng_state, number) -> rng_state: a state of its own for each number; see core/fold_in.h. Of
  // shape [*batch, 2] and [*batch], both int64.
  m.def("fold_in(Tensor rng_state, Tensor number) -> Tensor", {at::Tag::pt2_compliant_tag});
  // The mask alone, True = kept.
  m.def(
      "dropout_mask(SymInt[] size, float p, Tensor rng_state, *, SymInt[]? mask_strides=None, "
      "SymInt mask_base=0) -> Tensor",
      {at::Tag::pt2_compliant_tag});

  // Layouts without a kernel come to the same functions, whose checks refuse them by name.
  for (const auto key :
       {DispatchKey::CPU, DispatchKey::CUDA, DispatchKey::SparseCPU, DispatchKey::SparseCUDA,
        DispatchKey::SparseCsrCPU, DispatchKey::SparseCsrCUDA, DispatchKey::MkldnnCPU}) {
    m.impl("draw", torch::dispatch(key, device::draw));
    m.impl("dropout", torch::dispatch(key, Flat<device::dropout>::call));
    m.impl("dropout_mask", torch::dispatch(key, device::dropout_mask));
    m.impl("fold_in", torch::dispatch(key, device::fold_in));
  }
  m.impl("draw", torch::dispatch(DispatchKey::Meta, meta::draw));
  m.impl("dropout", torch::dispatch(DispatchKey::Meta, Flat<meta::dropout>::call));
  m.impl("dropout_mask", torch::dispatch(DispatchKey::Meta, device::dropout_mask));
  m.impl("fold_in", torch::dispatch(DispatchKey::Meta, meta::fold_in));
  m.impl("dropout_p", torch::dispatch(DispatchKey::Meta, meta::dropout_p));
  m.impl("dropout_p", torch::dispatch(DispatchKey::CompositeExplicitAutograd, dropout_p));
  m.impl("draw_traced", torch::dispatch(DispatchKey::CompositeExplicitAutograd, draw_traced));
  m.impl(
      "dropout",
      torch::dispatch(DispatchKey::Autograd, Flat<autograd::dropout, c10::DispatchKeySet>::call));
  for (const char* constant : {"draw", "draw_traced", "dropout_mask", "fold_in"}) {
    m.impl(
        constant, torch::dispatch(DispatchKey::Autograd, torch::CppFunction::makeFallthrough()));
  }
}

const auto& dropout_handle() {
  static const auto handle =
      find_operator<decltype(Flat<meta::dropout>::call)>("dropout_ext::dropout");
  return handle;
}

}  // namespace

namespace ops {

Tensor draw(const Tensor& input, c10::SymIntArrayRef batch, Generator generator) {
  static const auto handle = find_operator<decltype(meta::draw)>("dropout_ext::draw");
  return handle.call(input, batch, std::move(generator));
}

Tensor dropout(const Tensor& input, const Tensor& rng_state, const DropoutArgs& args) {
  const auto call = [](auto&&... flat) { return dropout_handle().call(flat...); };
  return call_flat(call, input, rng_state, args);
}

Tensor dropout_below_autograd(
    c10::DispatchKeySet keys,
    const Tensor& input,
    const Tensor& rng_state,
    const DropoutArgs& args) {
  const at::AutoDispatchBelowADInplaceOrView below;
  const auto call = [&](auto&&... flat) {
    return dropout_handle().redispatch(keys & c10::after_autograd_keyset, flat...);
  };
  return call_flat(call, input, rng_state, args);
}

}  // namespace ops
}  // namespace dropout
