// Philox4x32-10: the counter-based generator of Salmon et al., "Parallel random numbers: as easy
// as 1, 2, 3", SC'11. A pure function of key and counter, hence the same on every device.
#pragma once

#include <cstdint>

#include "core/macros.h"

namespace dropout {

struct Words4 {
  uint32_t w[4];

  constexpr bool operator==(const Words4& other) const {
    return w[0] == other.w[0] && w[1] == other.w[1] && w[2] == other.w[2] && w[3] == other.w[3];
  }
};

struct Philox {
  static constexpr int kRounds = 10;
  static constexpr uint32_t kMultiplier0 = 0xD2511F53;
  static constexpr uint32_t kMultiplier1 = 0xCD9E8D57;
  static constexpr uint32_t kWeyl0 = 0x9E3779B9;  // golden ratio
  static constexpr uint32_t kWeyl1 = 0xBB67AE85;  // sqrt(3) - 1

  // The upper half of the product. nvcc joins the two halves to one instruction in this form, and
  // adds a zero to each upper half of a 64-bit product.
  static DROPOUT_HOST_DEVICE constexpr uint32_t multiply_high(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
    if (!__builtin_is_constant_evaluated()) {
      return __umulhi(a, b);
    }
#endif
    return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32);
  }

  // The 128 random bits of `counter` under the key (key0, key1).
  static DROPOUT_HOST_DEVICE constexpr Words4 generate(
      Words4 counter, uint32_t key0, uint32_t key1) {
    for (int round = 0; round < kRounds; ++round) {
      counter = {
          {multiply_high(kMultiplier1, counter.w[2]) ^ counter.w[1] ^ key0,
           kMultiplier1 * counter.w[2],
           multiply_high(kMultiplier0, counter.w[0]) ^ counter.w[3] ^ key1,
           kMultiplier0 * counter.w[0]}};
      key0 += kWeyl0;
      key1 += kWeyl1;
    }
    return counter;
  }
};

// Known answers published with Random123 (tests/kat_vectors, philox4x32 10).
static_assert(
    Philox::generate({{0, 0, 0, 0}}, 0, 0) ==
        Words4{{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    "Philox4x32-10 does not give the published answer for zeros");
static_assert(
    Philox::generate(
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}}, 0xffffffff, 0xffffffff) ==
        Words4{{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    "Philox4x32-10 does not give the published answer for ones");
static_assert(
    Philox::generate(
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0) ==
        Words4{{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    "Philox4x32-10 does not give the published answer for the digits of pi");

}  // namespace dropout
