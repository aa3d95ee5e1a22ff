// Attention as a composition of torch's operators and ours: what it is by definition, and what
// runs by blocks of queries where there is no kernel of its own.
#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>
#include <limits>

#include "torch/attention.h"

namespace dropout::attention {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Queries from the given one on, as many as `query` of the inputs has, of a larger call.
class Block {
 public:
  Block(const Inputs& inputs, const Options& options, const Inputs& all, int64_t first)
      : in_(inputs), options_(options), first_(first) {
    const auto type = compute_type(inputs);
    in_.query = in_.query.to(type);
    in_.key = in_.key.to(type);
    in_.value = in_.value.to(type);
    scale_ = scale(inputs, options);
    strides_ = mask_strides(all, options);
    base_ = options.mask_base + strides_[strides_.size() - 2] * first;
    scores_ = make_scores();
    if (!in_.mask.defined()) {
      weights_ = scores_.softmax(-1);
      return;
    }
    // Filled on both sides of the softmax: neither its result nor its derivative is NaN then.
    const Tensor nothing = scores_.detach().isneginf().all(-1, /*keepdim=*/true);
    weights_ = scores_.masked_fill(nothing, 0.0).softmax(-1).masked_fill(nothing, 0.0);
  }

  Result forward() const {
    return {ungrouped(grouped(dropped(weights_)).matmul(in_.value)), softmax()};
  }

  Gradients backward(const Tensor& grad_output, bool mask_gradient) const {
    const Tensor grad = grouped(grad_output.to(in_.query.scalar_type()));
    Gradients result;
    result.value = transposed(grouped(dropped(weights_))).matmul(grad);
    const Tensor kept = dropped(ungrouped(grad.matmul(transposed(in_.value))));
    const Tensor slope = weights_ * (kept - (weights_ * kept).sum(-1, /*keepdim=*/true));
    const Tensor scaled = grouped(slope * scale_);
    result.query = ungrouped(scaled.matmul(in_.key));
    result.key = transposed(scaled).matmul(grouped(in_.query));
    if (mask_gradient) {
      result.mask = slope.sum_to_size_symint(in_.mask.sym_sizes());
    }
    return result;
  }

 private:
  Tensor softmax() const {
    const Tensor scores = scores_.detach();
    auto shape = scores.sym_sizes().vec();
    if (shape.back() == 0) {
      shape.back() = 2;
      return at::zeros_symint(shape, scores.options());
    }
    const Tensor largest = scores.amax(-1);
    // The weight of the largest score is 1 over the sum.
    return at::stack(
        {largest.masked_fill(largest.isneginf(), 0.0), weights_.detach().amax(-1)}, -1);
  }

  static Tensor transposed(const Tensor& tensor) { return tensor.transpose(-2, -1); }

  // The queries of heads that share their keys, one after the other.
  Tensor grouped(const Tensor& tensor) const {
    const auto heads = in_.key.sym_size(-3);
    if (heads == in_.query.sym_size(-3)) {
      return tensor;
    }
    auto shape = tensor.sym_sizes().vec();
    const size_t d = shape.size() - 3;
    shape[d + 1] = shape[d] / heads * shape[d + 1];
    shape[d] = heads;
    return tensor.reshape_symint(shape);
  }

  Tensor ungrouped(const Tensor& tensor) const {
    auto shape = in_.query.sym_sizes().vec();
    shape.back() = tensor.sym_size(-1);
    return in_.key.sym_size(-3) == in_.query.sym_size(-3) ? tensor : tensor.reshape_symint(shape);
  }

  Tensor dropped(const Tensor& weights) const {
    return dropout::ops::dropout(
        weights, in_.rng_state, {options_.p, SymStrides(strides_), base_});
  }

  Tensor make_scores() const {
    const Tensor scores = ungrouped(grouped(in_.query * scale_).matmul(transposed(in_.key)));
    if (options_.is_causal) {
      const Tensor visible =
          at::ones_symint(
              {scores.sym_size(-2), scores.sym_size(-1)}, scores.options().dtype(at::kBool))
              .tril(first_);
      return scores.masked_fill(visible.logical_not(), -kInfinity);
    }
    if (!in_.mask.defined()) {
      return scores;
    }
    return in_.mask.scalar_type() == at::kBool
               ? scores.masked_fill(in_.mask.logical_not(), -kInfinity)
               : scores + in_.mask.to(scores.scalar_type());
  }

  Inputs in_;
  const Options& options_;
  int64_t first_;
  at::Scalar scale_;
  std::vector<c10::SymInt> strides_;
  c10::SymInt base_;
  Tensor scores_;
  Tensor weights_;
};

Gradients converted(Gradients gradients, const Inputs& inputs) {
  const auto type = inputs.query.scalar_type();
  gradients.query = gradients.query.to(type);
  gradients.key = gradients.key.to(type);
  gradients.value = gradients.value.to(type);
  gradients.mask = gradients.mask.defined() ? gradients.mask.to(inputs.mask.scalar_type())
                                            : at::empty({0}, inputs.query.options());
  return gradients;
}

// Calls `each` with blocks of queries, with the keys and the mask that they need, and the number
// of their first query.
template <class Each>
void for_each_block(const Inputs& inputs, bool is_causal, const Each& each) {
  constexpr int64_t kWeights = int64_t{1} << 23;  // of a block
  const int64_t queries = inputs.query.size(-2);
  const int64_t keys = inputs.key.size(-2);
  const int64_t weights_per_query =
      keys * std::max<int64_t>(
                 1, inputs.query.numel() / std::max<int64_t>(1, queries * inputs.query.size(-1)));
  const int64_t rows = std::max<int64_t>(1, kWeights / std::max<int64_t>(1, weights_per_query));
  for (int64_t first = 0; first < queries; first += rows) {
    const int64_t count = std::min(rows, queries - first);
    const int64_t visible = is_causal ? std::min(keys, first + count) : keys;
    const Tensor& mask = inputs.mask;
    const bool has_rows = mask.defined() && mask.dim() > 1 && mask.size(-2) != 1;
    each(
        Inputs{
            inputs.query.narrow(-2, first, count), inputs.key.narrow(-2, 0, visible),
            inputs.value.narrow(-2, 0, visible), has_rows ? mask.narrow(-2, first, count) : mask,
            inputs.rng_state},
        first);
  }
}

// Types are chosen before this is called.
struct NoAutocast : c10::impl::ExcludeDispatchKeyGuard {
  NoAutocast() : ExcludeDispatchKeyGuard(c10::autocast_dispatch_keyset) {}
};

// The kernels below autograd call operators as they are.
struct Plainly {
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  NoAutocast no_autocast;
};

}  // namespace

namespace composition {

Result forward(const Inputs& inputs, const Options& options) {
  check(inputs, options);
  const NoAutocast no_autocast;
  auto [output, softmax] = Block(inputs, options, inputs, 0).forward();
  return {output.to(inputs.query.scalar_type()), softmax};
}

Gradients backward(
    const Tensor& grad_output,
    const Inputs& inputs,
    const Result& /*result*/,
    const Options& options,
    bool mask_gradient) {
  const NoAutocast no_autocast;
  return converted(
      Block(inputs, options, inputs, 0).backward(grad_output, mask_gradient), inputs);
}

}  // namespace composition

namespace blocks {

Result forward(const Inputs& inputs, const Options& options) {
  check(inputs, options);
  const Plainly plainly;
  const Result result = empty_result(inputs);
  for_each_block(inputs, options.is_causal, [&](const Inputs& part, int64_t first) {
    const int64_t count = part.query.size(-2);
    const auto [output, softmax] = Block(part, options, inputs, first).forward();
    result.output.narrow(-2, first, count).copy_(output);
    result.softmax.narrow(-2, first, count).copy_(softmax);
  });
  return result;
}

Gradients backward(
    const Tensor& grad_output,
    const Inputs& inputs,
    const Result& result,
    const Options& options,
    bool mask_gradient) {
  check_backward(grad_output, inputs, result, options, mask_gradient);
  const Plainly plainly;
  const auto type = compute_type(inputs);
  Gradients sums{
      at::empty_like(inputs.query), at::zeros_like(inputs.key, type),
      at::zeros_like(inputs.value, type),
      mask_gradient ? at::zeros_like(inputs.mask, type) : Tensor()};
  for_each_block(inputs, options.is_causal, [&](const Inputs& part, int64_t first) {
    const int64_t count = part.query.size(-2);
    const auto gradients = Block(part, options, inputs, first)
                               .backward(grad_output.narrow(-2, first, count), mask_gradient);
    sums.query.narrow(-2, first, count).copy_(gradients.query);
    sums.key.narrow(-2, 0, part.key.size(-2)).add_(gradients.key);
    sums.value.narrow(-2, 0, part.key.size(-2)).add_(gradients.value);
    if (mask_gradient) {
      const bool has_rows = part.mask.dim() > 1 && sums.mask.size(-2) != 1;
      (has_rows ? sums.mask.narrow(-2, first, count) : sums.mask).add_(gradients.mask);
    }
  });
  return converted(sums, inputs);
}

}  // namespace blocks
}  // namespace dropout::attention
