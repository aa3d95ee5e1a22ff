// The mask contract: which elements are kept, as a pure function of (seed, offset, index), and
// the factor that keeps the expectation. Every device and SIMD path computes exactly this.
#pragma once

#include <cstdint>

#include "core/macros.h"
#include "core/philox.h"

namespace dropout {

// One Philox call serves a block of eight consecutive mask indices, sixteen bits each.
constexpr int kBlock = 8;

// The state a mask is drawn from. Counter words: offset low, offset high, block low, block high,
// so that streams of other consumers of the same generator (which put their thread number where
// the block is) are met only at offsets that the generator has reserved for us.
struct RngState {
  uint64_t seed;
  uint64_t offset;
};

DROPOUT_HOST_DEVICE constexpr Words4 random_words(RngState state, uint64_t block) {
  return Philox::generate(
      {{static_cast<uint32_t>(state.offset), static_cast<uint32_t>(state.offset >> 32),
        static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32)}},
      static_cast<uint32_t>(state.seed), static_cast<uint32_t>(state.seed >> 32));
}

DROPOUT_HOST_DEVICE constexpr uint32_t lane_bits(const Words4& words, int lane) {
  return (words.w[lane >> 1] >> (16 * (lane & 1))) & 0xffffu;
}

// The drop probability as a fraction of 2^32. An element is dropped iff the 32-bit number
// (h << 16 | h2) < t, with h its lane of the call at `offset` and h2 that of the call at
// `offset + 1`; the second call matters only where h == hi() (a tie, once in 65,536 elements).
struct Threshold {
  uint64_t t;  // 0 ... 2^32, both ends included

  static constexpr uint64_t kOne = uint64_t{1} << 32;

  // round(p * 2^32), half to even. The product is exact: it only moves the exponent.
  static constexpr Threshold from_probability(double p) {
    const double scaled = p * static_cast<double>(kOne);
    const uint64_t floor = static_cast<uint64_t>(scaled);
    const double rest = scaled - static_cast<double>(floor);
    const bool up = rest > 0.5 || (rest == 0.5 && (floor & 1) != 0);
    return {floor + (up ? 1 : 0)};
  }

  DROPOUT_HOST_DEVICE constexpr bool keeps_all() const { return t == 0; }
  DROPOUT_HOST_DEVICE constexpr bool drops_all() const { return t == kOne; }
  DROPOUT_HOST_DEVICE constexpr uint32_t hi() const { return static_cast<uint32_t>(t >> 16); }

  // The probability that t realises.
  constexpr double probability() const {
    return static_cast<double>(t) / static_cast<double>(kOne);
  }

  // 1 / keep probability; 1 where everything is dropped, as nothing is left to be scaled.
  constexpr double scale() const { return drops_all() ? 1.0 : 1.0 / (1.0 - probability()); }
};

static_assert(Threshold::from_probability(0.5).t == uint64_t{1} << 31);
static_assert(Threshold::from_probability(1.0).drops_all());
static_assert(Threshold::from_probability(0x1p-33).t == 0, "a half rounds to even: down to 0");
static_assert(Threshold::from_probability(0x3p-33).t == 2, "a half rounds to even: up to 2");
static_assert(Threshold{uint64_t{1} << 31}.scale() == 2.0);

// Bit j of the result: is element 8 * block + j kept? The first comparison alone, and which
// lanes it left undecided.
struct FirstComparison {
  uint32_t keep;
  uint32_t tie;
};

DROPOUT_HOST_DEVICE constexpr FirstComparison compare_first(
    const Words4& words, Threshold threshold) {
  const uint32_t hi = threshold.hi();
  FirstComparison result{0, 0};
  for (int lane = 0; lane < kBlock; ++lane) {
    const uint32_t h = lane_bits(words, lane);
    result.keep |= static_cast<uint32_t>(h >= hi) << lane;
    result.tie |= static_cast<uint32_t>(h == hi) << lane;
  }
  return result;
}

template <int kCount>
struct KeepBlocks {
  uint32_t bits[kCount];
};

// The keep bits of kCount blocks, `step` apart: bit j of bits[b] for element j of the b-th one.
// `threshold` does not drop all.
template <int kCount>
DROPOUT_HOST_DEVICE constexpr KeepBlocks<kCount> keep_blocks(
    RngState state, uint64_t block, uint64_t step, Threshold threshold) {
  // Without a tie, what stands below h does not matter: a word does for its upper lane as it is.
  uint32_t number[kCount][kBlock]{};
  Words4 words[kCount]{};
  uint32_t ties = 0;  // the highest bit of each half: was there one among the lanes of this half?
  for (int b = 0; b < kCount; ++b) {
    words[b] = random_words(state, block + static_cast<uint64_t>(b) * step);
    for (int k = 0; k < kBlock / 2; ++k) {
      const uint32_t word = words[b].w[k];
      number[b][2 * k] = word << 16;
      number[b][2 * k + 1] = word;
      const uint32_t difference = word ^ (threshold.hi() * 0x00010001u);
      ties |= (difference - 0x00010001u) & ~difference;  // borrows where a half is zero
    }
  }
  if ((ties & 0x80008000u) != 0) {
    for (int b = 0; b < kCount; ++b) {
      const Words4 second =
          random_words({state.seed, state.offset + 1}, block + static_cast<uint64_t>(b) * step);
      for (int lane = 0; lane < kBlock; ++lane) {
        number[b][lane] = lane_bits(words[b], lane) << 16 | lane_bits(second, lane);
      }
    }
  }
  const uint32_t t = static_cast<uint32_t>(threshold.t);
  KeepBlocks<kCount> keep{};
  for (int b = 0; b < kCount; ++b) {
    for (int lane = 0; lane < kBlock; ++lane) {
      keep.bits[b] |= static_cast<uint32_t>(number[b][lane] >= t) << lane;
    }
  }
  return keep;
}

// The keep bits of elements 8 * block ... 8 * block + 7.
DROPOUT_HOST_DEVICE constexpr uint32_t keep_block(
    RngState state, uint64_t block, Threshold threshold) {
  return keep_blocks<1>(state, block, 0, threshold).bits[0];
}

}  // namespace dropout
