// Scaled dot-product attention with dropout, whose weights are never held whole. Schemas and what
// the arguments mean: see attention_ops.cpp.
#pragma once

#include <optional>
#include <tuple>
#include <vector>

#include "torch/ops.h"

namespace dropout::attention {

// What a call works on, and how.
struct Inputs {
  Tensor query;  // [*batch, heads, queries, width]
  Tensor key;    // [*batch, heads of keys, keys, width]
  Tensor value;  // [*batch, heads of keys, keys, width of values]
  Tensor mask;   // undefined if there is none; broadcastable to the weights
  Tensor rng_state;
};

struct Options {
  double p;
  bool is_causal;
  Factor scale;
  std::optional<std::vector<c10::SymInt>> mask_strides;
  c10::SymInt mask_base;

  auto members() { return std::tie(p, is_causal, scale, mask_strides, mask_base); }
  auto members() const { return std::tie(p, is_causal, scale, mask_strides, mask_base); }
};

struct Result {
  Tensor output;
  // [*batch, heads, queries, 2], of the type that is computed in: the largest score, and 1 over
  // the sum of the exponentials relative to it; zeros where a query attends to nothing. Not one
  // number, the logarithm of the sum: beside a score of -1e38 it would be lost.
  Tensor softmax;
};

struct Gradients {
  Tensor query, key, value;
  Tensor mask;  // of no elements unless it is wanted
};

using Forward = Result(const Inputs& inputs, const Options& options);
using Backward = Gradients(
    const Tensor& grad_output,
    const Inputs& inputs,
    const Result& result,
    const Options& options,
    bool mask_gradient);

namespace ops {  // through the dispatcher

Forward forward;
Backward backward;

}  // namespace ops

namespace autograd {

Forward forward;
Backward backward;

}  // namespace autograd

namespace meta {  // shapes and dtypes alone

Forward forward;
Backward backward;

}  // namespace meta

namespace cpu {

Forward forward;
Backward backward;

}  // namespace cpu

// The composition of torch's operators that this is. It holds the weights, and is differentiable
// as often as wanted.
namespace composition {

Forward forward;
Backward backward;

}  // namespace composition

// The same by blocks of queries, so that memory is bounded; on any device.
namespace blocks {

Forward forward;
Backward backward;

}  // namespace blocks

// Errors in the words of torch where it has some.
void check(const Inputs& inputs, const Options& options);
void check_backward(
    const Tensor& grad_output,
    const Inputs& inputs,
    const Result& result,
    const Options& options,
    bool mask_gradient);

// The dropout of the weights, as an operator's arguments; valid as long as the options.
DropoutArgs mask_args(const Options& options);

// [*batch, heads, queries, keys].
std::vector<c10::SymInt> weights_shape(const Inputs& inputs);
// Those of the options, else those of the row-major shape; 0 for samples with a state of their
// own.
std::vector<c10::SymInt> mask_strides(const Inputs& inputs, const Options& options);
c10::SymFloat scale(const Inputs& inputs, const Options& options);
// The type that is computed in: float64 for float64, else float32.
at::ScalarType compute_type(const Inputs& inputs);

// Memory for the results; heads and queries of the output lie as torch's fused kernels have them.
Result empty_result(const Inputs& inputs);
Gradients empty_gradients(const Inputs& inputs, bool mask_gradient);

// All of `check` but the state, which need not have been drawn yet.
void check_call(const Inputs& inputs, const Options& options);

// A call of eager code: checks, draw unless the state is given, operator.
Tensor eager(Inputs inputs, const Options& options, const Generator& generator);

}  // namespace dropout::attention
