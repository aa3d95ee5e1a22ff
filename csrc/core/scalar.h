// Element types, and the one multiplication: widened, scaled, rounded once to nearest even.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/coefficients.h"
#include "core/macros.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace dropout {

enum class ScalarType : uint8_t { kFloat64, kFloat32, kBFloat16, kFloat16, kBool };

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

// The type a product is computed in: double for float64, float for everything narrower.
template <class T>
struct Compute {
  using type = float;
};
template <>
struct Compute<double> {
  using type = double;
};
template <class T>
using compute_t = typename Compute<T>::type;

namespace detail {

template <class To, class From>
DROPOUT_HOST_DEVICE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

}  // namespace detail

DROPOUT_HOST_DEVICE double widen(double x) {
  return x;
}
DROPOUT_HOST_DEVICE float widen(float x) {
  return x;
}

DROPOUT_HOST_DEVICE float widen(BFloat16 x) {
  return detail::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}

DROPOUT_HOST_DEVICE float widen(Float16 x) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(x.bits));
#else
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7fffu) << 13;
  const uint32_t exponent = magnitude & 0x0f800000u;
  constexpr uint32_t kRebias = uint32_t{127 - 15} << 23;
  uint32_t bits = magnitude + kRebias;
  if (exponent == 0x0f800000u) {  // Inf, NaN
    bits += kRebias;
  } else if (exponent == 0) {  // zero, subnormal: renormalised by an exact subtraction
    constexpr uint32_t kSmallestNormal = uint32_t{127 - 14} << 23;
    bits = detail::bit_cast<uint32_t>(
        detail::bit_cast<float>(bits + (uint32_t{1} << 23)) -
        detail::bit_cast<float>(kSmallestNormal));
  }
  return detail::bit_cast<float>(bits | sign);
#endif
}

template <class T>
DROPOUT_HOST_DEVICE T narrow(compute_t<T> x) {
  return x;
}

template <>
DROPOUT_HOST_DEVICE BFloat16 narrow<BFloat16>(float x) {
#if defined(__CUDA_ARCH__)
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#else
  const uint32_t bits = detail::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  }
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
#endif
}

template <>
DROPOUT_HOST_DEVICE Float16 narrow<Float16>(float x) {
#if defined(__CUDA_ARCH__)
  return {__half_as_ushort(__float2half_rn(x))};
#else
  const uint32_t bits = detail::bit_cast<uint32_t>(x);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t result;
  if (magnitude > 0x7f800000u) {  // NaN
    result = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65520 and above round to Inf
    result = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // below 2^-14: the addition of 0.5 rounds to a subnormal
    constexpr uint32_t kHalf = uint32_t{126} << 23;
    result = detail::bit_cast<uint32_t>(
                 detail::bit_cast<float>(magnitude) + detail::bit_cast<float>(kHalf)) -
             kHalf;
  } else {
    constexpr uint32_t kRebias = uint32_t{127 - 15} << 23;
    result = (magnitude - kRebias + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  return {static_cast<uint16_t>(result | sign)};
#endif
}

// Both, the first in the lower half.
template <class T>
DROPOUT_HOST_DEVICE uint32_t narrow_pair(float first, float second) {
  return static_cast<uint32_t>(narrow<T>(second).bits) << 16 | narrow<T>(first).bits;
}
#if defined(__CUDA_ARCH__)
template <>
DROPOUT_HOST_DEVICE uint32_t narrow_pair<BFloat16>(float first, float second) {
  return detail::bit_cast<uint32_t>(__floats2bfloat162_rn(first, second));
}
template <>
DROPOUT_HOST_DEVICE uint32_t narrow_pair<Float16>(float first, float second) {
  return detail::bit_cast<uint32_t>(__floats2half2_rn(first, second));
}
#endif

// What becomes of an element. Dropped values are selected, never multiplied by zero, so that a
// dropped Inf or NaN is gone and a dropped negative number gives +0.

// kept: x * scale; dropped: 0.
template <class T>
struct Scale {
  using Element = T;
  compute_t<T> scale;

  DROPOUT_HOST_DEVICE compute_t<T> kept(compute_t<T> x) const { return x * scale; }
  DROPOUT_HOST_DEVICE T dropped() const { return T{}; }
};

// kept: x * scale + shift, the sum rounded after the product; dropped: fill.
template <class T>
struct ScaleShift {
  using Element = T;
  compute_t<T> scale;
  compute_t<T> shift;
  T fill;

  DROPOUT_HOST_DEVICE compute_t<T> kept(compute_t<T> x) const { return x * scale + shift; }
  DROPOUT_HOST_DEVICE T dropped() const { return fill; }
};

// The mask itself, true = kept; needs no input.
struct Mask {
  using Element = bool;

  DROPOUT_HOST_DEVICE bool dropped() const { return false; }
};

template <class T, class Rule>
DROPOUT_HOST_DEVICE T apply_rule(T x, bool keep, const Rule& rule) {
  const T kept = narrow<T>(rule.kept(widen(x)));
  return keep ? kept : rule.dropped();
}
DROPOUT_HOST_DEVICE bool apply_rule(bool /*x*/, bool keep, const Mask& /*rule*/) {
  return keep;
}

// Of two elements of 16 bits, the first in the lower half. Values are selected before they are
// rounded together, which leaves what is given for the dropped ones as it is.
template <class T, class Rule>
DROPOUT_HOST_DEVICE uint32_t
apply_rule_to_pair(T first, bool keep_first, T second, bool keep_second, const Rule& rule) {
  const float dropped = widen(rule.dropped());
  const float kept_first = rule.kept(widen(first));
  const float kept_second = rule.kept(widen(second));
  return narrow_pair<T>(keep_first ? kept_first : dropped, keep_second ? kept_second : dropped);
}

// Coefficients are rounded once to the type they are used in.
template <class T>
Scale<T> make_scale(const Coefficients& c) {
  return {static_cast<compute_t<T>>(c.scale)};
}

template <class T>
ScaleShift<T> make_scale_shift(const Coefficients& c) {
  return {
      static_cast<compute_t<T>>(c.scale), static_cast<compute_t<T>>(c.shift),
      narrow<T>(static_cast<compute_t<T>>(c.fill))};
}

// Calls `f` with the rule for elements of this type.
template <class F>
auto with_rule(ScalarType dtype, const Coefficients& coefficients, const F& f) {
  const auto choose = [&](auto element) {
    using T = decltype(element);
    return coefficients.shifts() ? f(make_scale_shift<T>(coefficients))
                                 : f(make_scale<T>(coefficients));
  };
  switch (dtype) {
    case ScalarType::kFloat64:
      return choose(double{});
    case ScalarType::kFloat32:
      return choose(float{});
    case ScalarType::kBFloat16:
      return choose(BFloat16{});
    case ScalarType::kFloat16:
      return choose(Float16{});
    case ScalarType::kBool:
      break;
  }
  return f(Mask{});
}

}  // namespace dropout
