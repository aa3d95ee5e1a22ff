#include "torch/attention_cpu.h"

#include "torch/checks.h"

namespace dropout::attention::cpu {
namespace {

// Does each row lie dense in memory, at a distance that BLAS takes?
bool is_usable(const Tensor& tensor) {
  const int64_t width = tensor.size(-1);
  const bool dense = width <= 1 || tensor.stride(-1) == 1;
  const int64_t pitch = tensor.stride(-2);
  return dense &&
         (tensor.size(-2) <= 1 || (pitch >= std::max<int64_t>(width, 1) && pitch <= kMaxPitch));
}

template <class C>
Tensor usable(const Tensor& tensor) {
  const Tensor typed = tensor.to(c10::CppTypeToScalarType<C>::value);
  return is_usable(typed) ? typed : typed.contiguous();
}

std::vector<int64_t> concrete(const std::vector<c10::SymInt>& numbers) {
  std::vector<int64_t> result;
  for (const auto& number : numbers) {
    result.push_back(number.expect_int());
  }
  return result;
}

std::vector<RngState> states_of_heads(const Tensor& rng_state, at::IntArrayRef leading) {
  std::vector<int64_t> strides(rng_state.strides().begin(), rng_state.strides().end() - 1);
  strides.resize(leading.size(), 0);
  const int64_t* const data = rng_state.const_data_ptr<int64_t>();
  std::vector<RngState> states;
  for (const int64_t offset : head_offsets(leading, strides)) {
    states.push_back(
        {static_cast<uint64_t>(data[offset]),
         static_cast<uint64_t>(data[offset + rng_state.stride(-1)])});
  }
  return states;
}

// Of a mask, what is added to the scores.
template <class C, class T>
C to_add(T mask) {
  if constexpr (std::is_same_v<T, bool>) {
    return mask ? C{0} : -std::numeric_limits<C>::infinity();
  } else {
    return static_cast<C>(mask);
  }
}

template <class C, class T>
void fill_row(C* scores, const T* mask, int64_t stride, int64_t columns) {
  if (stride == 1) {
    for (int64_t c = 0; c < columns; ++c) {
      scores[c] = to_add<C>(mask[c]);
    }
    return;
  }
  for (int64_t c = 0; c < columns; ++c) {
    scores[c] = to_add<C>(mask[c * stride]);
  }
}

template <class F>
void with_type(at::ScalarType type, const F& f) {
  switch (type) {
    case at::kBool:
      return f(bool{});
    case at::kDouble:
      return f(double{});
    case at::kFloat:
      return f(float{});
    case at::kBFloat16:
      return f(at::BFloat16{});
    default:
      return f(at::Half{});
  }
}

}  // namespace

std::vector<int64_t> head_offsets(at::IntArrayRef leading_sizes, at::IntArrayRef strides) {
  std::vector<int64_t> offsets{0};
  for (size_t d = 0; d < leading_sizes.size(); ++d) {
    std::vector<int64_t> next;
    next.reserve(offsets.size() * static_cast<size_t>(leading_sizes[d]));
    for (const int64_t offset : offsets) {
      for (int64_t k = 0; k < leading_sizes[d]; ++k) {
        next.push_back(offset + k * strides[d]);
      }
    }
    offsets = std::move(next);
  }
  return offsets;
}

template <class C>
Operand<C>::Operand(const Tensor& tensor)
    : tensor_(usable<C>(tensor)),
      data_(const_cast<C*>(tensor_.template const_data_ptr<C>())),
      pitch_(tensor_.size(-2) <= 1 ? std::max<int64_t>(1, tensor_.size(-1)) : tensor_.stride(-2)),
      heads_(head_offsets(tensor_.sizes().slice(0, tensor_.dim() - 2), tensor_.strides())) {}

template <class C>
Problem<C>::Problem(const Inputs& inputs, const Options& options)
    : query_block(options.is_causal ? kQueryBlock / 2 : kQueryBlock),
      queries(inputs.query.size(-2)),
      keys(inputs.key.size(-2)),
      width(inputs.query.size(-1)),
      value_width(inputs.value.size(-1)),
      is_causal(options.is_causal),
      scale(static_cast<C>(attention::scale(inputs, options).expect_float())),
      threshold(Threshold::from_probability(options.p)),
      query(inputs.query),
      key(inputs.key),
      value(inputs.value) {
  dropout_scale = static_cast<C>(threshold.scale());
  weights = concrete(weights_shape(inputs));
  const auto leading = at::IntArrayRef(weights).slice(0, weights.size() - 2);
  const auto strides = concrete(mask_strides(inputs, options));
  first_ = head_offsets(leading, strides);
  heads = static_cast<int64_t>(first_.size());
  group = heads == 0 ? 1 : inputs.query.size(-3) / inputs.key.size(-3);
  for (int64_t& index : first_) {
    index += options.mask_base.expect_int();
  }
  mask_stride_ = strides[strides.size() - 2];
  states_ = states_of_heads(inputs.rng_state, leading);
  if (inputs.mask.defined()) {
    mask_ = inputs.mask.expand(weights);
    mask_heads_ = head_offsets(leading, mask_.strides());
  }
}

template <class C>
void Problem<C>::fill_from_mask(
    C* scores, int64_t head, int64_t query, int64_t rows, int64_t key, int64_t columns) const {
  const int64_t by_query = mask_.stride(-2);
  const int64_t by_key = mask_.stride(-1);
  const int64_t first = mask_heads_[head] + query * by_query + key * by_key;
  with_type(mask_.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const T* const mask = mask_.template const_data_ptr<T>() + first;
    for (int64_t r = 0; r < rows; ++r) {
      fill_row(scores + r * kPitch, mask + r * by_query, by_key, columns);
    }
  });
}

template <class C>
::dropout::cpu::ScoreBlock<C> Problem<C>::scores(
    C* scores, int64_t head, int64_t query, int64_t rows, int64_t key, int64_t columns) const {
  const bool masked = mask_.defined();
  if (masked) {
    fill_from_mask(scores, head, query, rows, key, columns);
  }
  Product<C>{scale, this->query.from(head, query), this->key.from(head / group, key).t(), masked}
      .into(scores, kPitch, rows, columns, width);
  return {
      scores,
      rows,
      columns,
      is_causal ? query + 1 - key : columns,
      states_[head],
      threshold,
      static_cast<uint64_t>(first_[head] + query * mask_stride_ + key),
      mask_stride_};
}

template class Operand<float>;
template class Operand<double>;
template struct Problem<float>;
template struct Problem<double>;

}  // namespace dropout::attention::cpu
