// Element types, and the one multiplication: widened, scaled, rounded once to nearest even.
#pragma once

#include <cstdint>
#include <cstring>

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

DROPOUT_HOST_DEVICE double widen(double x) { return x; }
DROPOUT_HOST_DEVICE float widen(float x) { return x; }

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

// The value of one element: selected, never multiplied by zero, so that a dropped Inf or NaN is
// gone and a dropped negative number gives +0.
template <class T>
DROPOUT_HOST_DEVICE T apply_keep(T x, bool keep, compute_t<T> scale) {
  const T scaled = narrow<T>(widen(x) * scale);
  return keep ? scaled : T{};
}

// The mask itself, True = kept, needs no input.
template <>
DROPOUT_HOST_DEVICE bool apply_keep<bool>(bool, bool keep, float) {
  return keep;
}

}  // namespace dropout
