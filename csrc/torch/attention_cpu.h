// What forward and backward of attention on the CPU share: the tensors as matrices of each head,
// and blocks of scores.
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

// Most queries of a block of scores.
constexpr int64_t kQueryBlock = 128;
using ::dropout::cpu::kKeyBlock;
using ::dropout::cpu::kPitch;

// The position of every head of every batch in memory, or in the mask of dropout, heads fastest.
// `strides` may go on with those of queries and keys, which are not looked at.
std::vector<int64_t> head_offsets(at::IntArrayRef leading_sizes, at::IntArrayRef strides);

// A tensor [*batch, heads, rows, width] as one matrix a head.
template <class C>
class Operand {
 public:
  // Copies what is of another type or has strides that products cannot take.
  explicit Operand(const Tensor& tensor);

  Matrix<C> from(int64_t head, int64_t row) const { return {at(head, row), pitch_}; }
  C* at(int64_t head, int64_t row) const { return data_ + heads_[head] + row * pitch_; }
  int64_t pitch() const { return pitch_; }
  const Tensor& tensor() const { return tensor_; }

 private:
  Tensor tensor_;
  C* data_;
  int64_t pitch_;
  std::vector<int64_t> heads_;
};

// A call: sizes, operands, and what a block of scores needs.
template <class C>
struct Problem {
  Problem(const Inputs& inputs, const Options& options);

  // The scores of `rows` queries and `columns` keys, computed into `scores`.
  ::dropout::cpu::ScoreBlock<C> scores(
      C* scores, int64_t head, int64_t query, int64_t rows, int64_t key, int64_t columns) const;

  // How many keys from `key` on, up to kKeyBlock, any of the queries up to `last` attends to.
  int64_t columns(int64_t key, int64_t last) const {
    const int64_t end = is_causal ? std::min(keys, last + 1) : keys;
    return std::clamp<int64_t>(end - key, 0, kKeyBlock);
  }

  std::vector<int64_t> weights;  // their shape
  int64_t query_block;  // queries of a block, divides kKeyBlock: small where blocks on the
                        // diagonal are half in vain
  int64_t heads;        // of all batches
  int64_t group;        // heads that share their keys
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

}  // namespace dropout::attention::cpu
