// The operators: their arguments, and the function that each dispatch key has for them, in the
// file of that name. Schemas, and what the arguments mean: see ops.cpp.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/SymInt.h>
#include <c10/util/OptionalArrayRef.h>

#include <functional>
#include <optional>
#include <utility>

namespace dropout {

using at::Tensor;
using Generator = std::optional<at::Generator>;
using SymStrides = at::OptionalSymIntArrayRef;
using Factor = std::optional<double>;

// Which elements are dropped, the state apart, and what becomes of each.
struct DropoutArgs {
  double p;
  SymStrides mask_strides = {};
  c10::SymInt mask_base = 0;
  Factor scale = {};
  double shift = 0.0;
  double fill = 0.0;
};

// The dispatcher passes arguments as a flat list: taken from it here, given to it by `call_flat`.
// `Keys` is empty or a DispatchKeySet, for kernels that redispatch.
template <auto kFunction, class... Keys>
struct Flat {
  static Tensor call(
      Keys... keys,
      const Tensor& input,
      double p,
      const Tensor& rng_state,
      SymStrides mask_strides,
      c10::SymInt mask_base,
      Factor scale,
      double shift,
      double fill) {
    return kFunction(
        keys..., input, rng_state, {p, mask_strides, std::move(mask_base), scale, shift, fill});
  }
};

template <class F>
Tensor call_flat(
    const F& function, const Tensor& input, const Tensor& rng_state, const DropoutArgs& args) {
  return function(
      input, args.p, rng_state, args.mask_strides, args.mask_base, args.scale, args.shift,
      args.fill);
}

using Dropout = Tensor(const Tensor& input, const Tensor& rng_state, const DropoutArgs& args);
using DropoutOfKeys = Tensor(
    c10::DispatchKeySet keys,
    const Tensor& input,
    const Tensor& rng_state,
    const DropoutArgs& args);

using DropoutP = Tensor(
    const Tensor& input,
    const Tensor& p,
    const Tensor& rng_state,
    SymStrides mask_strides,
    c10::SymInt mask_base,
    Factor scale,
    double shift,
    double fill);
using FoldIn = Tensor(const Tensor& rng_state, const Tensor& number);

template <class Signature>
c10::TypedOperatorHandle<Signature> find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// Through the dispatcher.
namespace ops {

Tensor draw(const Tensor& input, c10::SymIntArrayRef batch, Generator generator);
Dropout dropout;

// What is left to be done when the Autograd key has been served.
DropoutOfKeys dropout_below_autograd;

}  // namespace ops

namespace autograd {

DropoutOfKeys dropout;

}  // namespace autograd

// Shapes and dtypes alone.
namespace meta {

Tensor draw(const Tensor& input, c10::SymIntArrayRef batch, Generator generator);
Dropout dropout;
FoldIn fold_in;
DropoutP dropout_p;

}  // namespace meta

// `dropout` whose p is a tensor without dimensions.
DropoutP dropout_p;

// `draw` in compiled graphs.
Tensor draw_traced(
    const Tensor& input,
    at::OptionalSymIntArrayRef batch,
    std::optional<int64_t> generator,
    const std::optional<Tensor>& after);

// For draws of graphs from a generator of one's own: the state, where a function of Python that
// is checkpointed runs the graph and repeats its draws; else nothing, and nothing was drawn.
using Repeat = std::function<std::optional<Tensor>(
    const at::Generator& generator, const std::function<Tensor()>& draw)>;
void set_repeat(Repeat function);

// The number under which draw_traced finds this generator again, in this process. It is kept for
// the rest of the process, as graphs that name it may be.
int64_t register_generator(const at::Generator& generator);

// Tensors in the memory of a device.
namespace device {

Tensor draw(const Tensor& input, at::IntArrayRef batch, Generator generator);
Dropout dropout;
FoldIn fold_in;

// The mask alone, on the device of `rng_state`, which may be Meta's.
Tensor dropout_mask(
    c10::SymIntArrayRef size,
    double p,
    const Tensor& rng_state,
    SymStrides mask_strides,
    c10::SymInt mask_base);

// Memory for the result, laid out as at::empty_like has it.
Tensor empty_output(const Tensor& input);

// `dropout` from `input` into `out`, which may be the same; checked.
void apply(
    const Tensor& input, const Tensor& out, const Tensor& rng_state, const DropoutArgs& args);

// `draw` and `apply` at once. Returns the state, which may be undefined unless it is wanted.
Tensor draw_and_apply(
    const Tensor& input,
    const Tensor& out,
    const Generator& generator,
    const DropoutArgs& args,
    bool want_state);

}  // namespace device

// `draw`, unless rng_state is given, and `dropout` at once, the cheapest way there is: without
// the dispatcher where nothing between autograd and the kernel wants to see the call.
Tensor dropout_eager(
    const Tensor& input,
    bool inplace,
    const Generator& generator,
    const std::optional<Tensor>& rng_state,
    const DropoutArgs& args);

}  // namespace dropout
