// Softmax with dropout of blocks of attention scores, forward and backward, over raw pointers.
// The matrix products around it are the caller's.
#pragma once

#include <cstdint>

#include "core/mask.h"

namespace dropout::cpu {

// Most keys of a block.
constexpr int64_t kKeyBlock = 512;
// The distance of the rows of a block: vectors may run over the end of a row, and elements of a
// column must not share the sets of a cache, as they would at a power of two.
constexpr int64_t kPitch = kKeyBlock + 16;

// Products are computed of so many keys rather than of any number, for the sake of their kernels.
constexpr int64_t padded(int64_t columns) {
  constexpr int64_t kStep = 32;
  return (columns + kStep - 1) / kStep * kStep;
}

// Scores of `rows` queries and `columns` keys; what is written has zeros up to the padded number
// of keys. The weight of query r and key c has the mask index
// first + r * mask_stride + c.
template <class C>
struct ScoreBlock {
  C* scores;
  int64_t rows;
  int64_t columns;
  int64_t visible;  // query r attends to the keys c < visible + r, and no others
  RngState state;
  Threshold threshold;
  uint64_t first;
  int64_t mask_stride;
};

// What a softmax over several blocks of keys remembers of each query: the largest score so far,
// minus infinity at first, and the sum of the exponentials relative to it, 0 at first.
template <class C>
struct RunningSoftmax {
  C* max;
  C* sum;
  C* rescale;  // written: what the results of the blocks before this one are to be multiplied by
};

// Scores become exp(score - max), and 0 where they are dropped or not visible.
template <class C>
void softmax_dropout(const ScoreBlock<C>& block, const RunningSoftmax<C>& running);

// Scores become the weights P = exp(score - softmax[2 r]) * softmax[2 r + 1] of query r, and 0
// where they are dropped; `gradient`, of the same layout, that of the kept weights, becomes that
// of the scores,
//   P * (gradient if kept, else 0, - row_dot).
template <class C>
void softmax_dropout_backward(
    const ScoreBlock<C>& block, C* gradient, const C* softmax, const C* row_dot);

}  // namespace dropout::cpu
