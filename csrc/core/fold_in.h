// New states out of one: a state of its own for each layer or step.
#pragma once

#include <cstdint>

#include "core/mask.h"

namespace dropout {

// Of all masks of a state: those lie below 2^60, as mask indices do below 2^63.
constexpr uint64_t kFoldBlock = ~uint64_t{0};

// The state that `state` has for a number: the 128 bits of one Philox call, whose key and upper
// counter words are those of a call that no mask makes. A call is a bijection of its counter, so
// the numbers of one state give different states.
DROPOUT_HOST_DEVICE constexpr RngState fold_in(RngState state, uint64_t number) {
  const Words4 parent = random_words(state, kFoldBlock);
  const Words4 child = Philox::generate(
      {{static_cast<uint32_t>(number), static_cast<uint32_t>(number >> 32), parent.w[2],
        parent.w[3]}},
      parent.w[0], parent.w[1]);
  return {uint64_t{child.w[1]} << 32 | child.w[0], uint64_t{child.w[3]} << 32 | child.w[2]};
}

}  // namespace dropout
