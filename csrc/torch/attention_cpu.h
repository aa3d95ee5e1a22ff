// What forward and backward of attention on the CPU share: the tensors as matrices of each head,
// and blocks of scores.
//
// Whatever a product reads is copied first, block by block: so tensors may have any type and any
// strides, and the scale of the scores, that of dropout, and transposes cost nothing more.
#pragma once

#include <ATen/ops/empty.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "core/index_map.h"
#include "kernels/cpu/attention.h"
#include "torch/attention.h"
#include "torch/gemm.h"

namespace dropout::attention::cpu {

// Most queries of a block of scores. It divides kKeyBlock.
constexpr int64_t kQueryBlock = 64;
using ::dropout::cpu::kKeyBlock;
using ::dropout::cpu::kPitch;
using ::dropout::cpu::padded;

// The position of every head of every batch in memory, or in the mask of dropout, heads fastest.
// `strides` may go on with those of queries and keys, which are not looked at.
std::vector<int64_t> head_offsets(at::IntArrayRef leading_sizes, at::IntArrayRef strides);

// A tensor [*batch, heads, rows, width], whose rows are copied to and from dense ones of C.
template <class C>
class Operand {
 public:
  explicit Operand(const Tensor& tensor);

  void load(int64_t head, int64_t row, int64_t rows, C factor, C* to) const;
  void store(int64_t head, int64_t row, int64_t rows, const C* from) const;

 private:
  Tensor tensor_;
  std::vector<int64_t> heads_;
};

// Rows become columns.
template <class C>
void transpose(Matrix<C> from, int64_t rows, int64_t columns, Matrix<C> to);

// A call: sizes, operands, and what a block of scores needs.
template <class C>
struct Problem {
  Problem(const Inputs& inputs, const Options& options);

  // The scores of `rows` queries, which have been loaded with the scale, and `columns` keys,
  // which have been loaded as columns; computed into `scores`.
  ::dropout::cpu::ScoreBlock<C> scores(
      C* scores,
      C* loaded_queries,
      C* loaded_keys,
      int64_t head,
      int64_t query,
      int64_t rows,
      int64_t key,
      int64_t columns) const;

  // How many keys from `key` on, up to kKeyBlock, any of the queries up to `last` attends to.
  int64_t columns(int64_t key, int64_t last) const {
    const int64_t end = is_causal ? std::min(keys, last + 1) : keys;
    return std::clamp<int64_t>(end - key, 0, kKeyBlock);
  }

  std::vector<int64_t> weights;  // their shape
  int64_t heads;                 // of all batches
  int64_t group;                 // heads that share their keys
  int64_t queries, keys, width, value_width;
  bool is_causal;
  C scale;
  C dropout_scale;
  Threshold threshold;
  Operand<C> query, key, value;

 private:
  void fill_from_mask(
      C* scores, int64_t head, int64_t query, int64_t rows, int64_t key, int64_t columns) const;

  Tensor mask_;  // expanded to the weights
  std::vector<int64_t> mask_heads_;
  std::vector<RngState> states_;  // of each head
  std::vector<int64_t> first_;    // mask index of its first weight
  int64_t mask_stride_;           // from query to query
};

// Memory of a thread.
template <class C>
C* scratch(std::vector<Tensor>& keep, int64_t count) {
  keep.push_back(at::empty({count}, c10::CppTypeToScalarType<C>::value));
  return keep.back().template mutable_data_ptr<C>();
}

// Columns kPitch apart, up to the padded number of keys.
template <class C>
void transpose_keys(C* from, int64_t columns, int64_t width, C* to) {
  transpose<C>({from, width}, columns, width, {to, kPitch});
  for (int64_t c = 0; c < width; ++c) {
    std::fill(to + c * kPitch + columns, to + c * kPitch + padded(columns), C{0});
  }
}

}  // namespace dropout::attention::cpu
