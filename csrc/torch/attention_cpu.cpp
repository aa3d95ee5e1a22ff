#include "torch/attention_cpu.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include <type_traits>

#include "torch/checks.h"

namespace dropout::attention::cpu {
namespace {

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

// Of a mask, what is added to the scores; of numbers, they themselves.
template <class C, class T>
C as(T x) {
  if constexpr (std::is_same_v<T, bool>) {
    return x ? C{0} : -std::numeric_limits<C>::infinity();
  } else {
    return static_cast<C>(x);
  }
}

template <class C, class T, class F>
void load_row(const T* from, int64_t stride, int64_t count, C* to, const F& f) {
  if (stride == 1) {
    for (int64_t c = 0; c < count; ++c) {
      to[c] = f(as<C>(from[c]));
    }
    return;
  }
  for (int64_t c = 0; c < count; ++c) {
    to[c] = f(as<C>(from[c * stride]));
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
    : tensor_(tensor),
      heads_(head_offsets(tensor.sizes().slice(0, tensor.dim() - 2), tensor.strides())) {}

template <class C>
void Operand<C>::load(int64_t head, int64_t row, int64_t rows, C factor, C* to) const {
  const int64_t width = tensor_.size(-1);
  with_type(tensor_.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const int64_t by_row = tensor_.stride(-2);
    const T* const from = tensor_.template const_data_ptr<T>() + heads_[head] + row * by_row;
    for (int64_t r = 0; r < rows; ++r) {
      load_row(from + r * by_row, tensor_.stride(-1), width, to + r * width, [factor](C x) {
        return x * factor;
      });
    }
  });
}

template <class C>
void Operand<C>::store(int64_t head, int64_t row, int64_t rows, const C* from) const {
  const int64_t width = tensor_.size(-1);
  with_type(tensor_.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const int64_t by_row = tensor_.stride(-2);
    const int64_t by_column = tensor_.stride(-1);
    T* const to = tensor_.template mutable_data_ptr<T>() + heads_[head] + row * by_row;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < width; ++c) {
        to[r * by_row + c * by_column] = static_cast<T>(from[r * width + c]);
      }
    }
  });
}

template <class C>
void transpose(Matrix<C> from, int64_t rows, int64_t columns, Matrix<C> to) {
  int64_t r = 0;
#if defined(__SSE__)
  if constexpr (std::is_same_v<C, float>) {
    for (; r + 4 <= rows; r += 4) {
      const float* const x = from.data + r * from.pitch;
      float* const y = to.data + r;
      int64_t c = 0;
      for (; c + 4 <= columns; c += 4) {
        __m128 a = _mm_loadu_ps(x + c);
        __m128 b = _mm_loadu_ps(x + from.pitch + c);
        __m128 d = _mm_loadu_ps(x + 2 * from.pitch + c);
        __m128 e = _mm_loadu_ps(x + 3 * from.pitch + c);
        _MM_TRANSPOSE4_PS(a, b, d, e);
        _mm_storeu_ps(y + c * to.pitch, a);
        _mm_storeu_ps(y + (c + 1) * to.pitch, b);
        _mm_storeu_ps(y + (c + 2) * to.pitch, d);
        _mm_storeu_ps(y + (c + 3) * to.pitch, e);
      }
      for (; c < columns; ++c) {
        for (int64_t k = 0; k < 4; ++k) {
          y[c * to.pitch + k] = x[k * from.pitch + c];
        }
      }
    }
  }
#endif
  for (; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      to.data[c * to.pitch + r] = from.data[r * from.pitch + c];
    }
  }
}

template <class C>
Problem<C>::Problem(const Inputs& inputs, const Options& options)
    : queries(inputs.query.size(-2)),
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
      if (r > 0 && by_query == 0) {
        std::copy_n(scores, columns, scores + r * kPitch);
        continue;
      }
      load_row(mask + r * by_query, by_key, columns, scores + r * kPitch, [](C x) { return x; });
    }
  });
}

template <class C>
::dropout::cpu::ScoreBlock<C> Problem<C>::scores(
    C* scores,
    C* loaded_queries,
    C* loaded_keys,
    int64_t head,
    int64_t query,
    int64_t rows,
    int64_t key,
    int64_t columns) const {
  const bool masked = mask_.defined();
  if (masked) {
    fill_from_mask(scores, head, query, rows, key, columns);
  }
  multiply<C>(
      {loaded_queries, width}, {loaded_keys, kPitch}, {scores, kPitch},
      {rows, padded(columns), width}, masked);
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
template void transpose(Matrix<float>, int64_t, int64_t, Matrix<float>);
template void transpose(Matrix<double>, int64_t, int64_t, Matrix<double>);
template struct Problem<float>;
template struct Problem<double>;

}  // namespace dropout::attention::cpu
