#include <ATen/core/LegacyTypeDispatch.h>

#include <cmath>

#include "torch/attention_cpu.h"
#include "torch/parallel.h"

namespace dropout::attention::cpu {
namespace {

// Most blocks of queries that share what is loaded of the keys.
constexpr int64_t kSharing = 8;
constexpr int64_t kMostQueries = kSharing * kQueryBlock;

template <class C>
class Worker {
 public:
  Worker(const Problem<C>& problem, const Operand<C>& output, C* softmax)
      : p_(problem), output_(output), softmax_(softmax) {
    const int64_t queries = std::min(p_.queries, kMostQueries);
    scores_ = scratch<C>(memory_, kQueryBlock * kPitch);
    query_ = scratch<C>(memory_, queries * p_.width);
    result_ = scratch<C>(memory_, queries * p_.value_width);
    rows_ = scratch<C>(memory_, kKeyBlock * p_.width);
    key_ = scratch<C>(memory_, kPitch * p_.width);
    value_ = scratch<C>(memory_, kKeyBlock * p_.value_width);
  }

  // Queries of a head, kMostQueries at most.
  void run(int64_t head, int64_t begin, int64_t end) {
    p_.query.load(head, begin, end - begin, p_.scale, query_);
    std::fill_n(max_, end - begin, -std::numeric_limits<C>::infinity());
    std::fill_n(sum_, end - begin, C{0});
    for (int64_t key = 0; p_.columns(key, end - 1) > 0; key += kKeyBlock) {
      load_keys(head / p_.group, key, p_.columns(key, end - 1));
      for (int64_t query = begin; query < end; query += kQueryBlock) {
        block(head, query, std::min(kQueryBlock, end - query), key, query - begin);
      }
    }
    finish(head, begin, end);
  }

 private:
  void load_keys(int64_t key_head, int64_t key, int64_t columns) {
    p_.key.load(key_head, key, columns, 1, rows_);
    transpose_keys(rows_, columns, p_.width, key_);
    p_.value.load(key_head, key, columns, 1, value_);
    const int64_t width = p_.value_width;
    std::fill(value_ + columns * width, value_ + padded(columns) * width, C{0});
  }

  // `at`: of the query among those loaded.
  void block(int64_t head, int64_t query, int64_t rows, int64_t key, int64_t at) {
    const int64_t columns = p_.columns(key, query + rows - 1);
    if (columns == 0) {
      return;
    }
    C* const result = result_ + at * p_.value_width;
    ::dropout::cpu::softmax_dropout<C>(
        p_.scores(scores_, query_ + at * p_.width, key_, head, query, rows, key, columns),
        {max_ + at, sum_ + at, rescale_});
    if (key > 0) {
      multiply_rows(result, rows);
    }
    multiply<C>(
        {scores_, kPitch}, {value_, p_.value_width}, {result, p_.value_width},
        {rows, p_.value_width, padded(columns)}, key > 0);
  }

  void multiply_rows(C* rows, int64_t count) {
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t c = 0; c < p_.value_width; ++c) {
        rows[r * p_.value_width + c] *= rescale_[r];
      }
    }
  }

  void finish(int64_t head, int64_t begin, int64_t end) {
    for (int64_t r = 0; r < end - begin; ++r) {
      C* const softmax = softmax_ + 2 * (head * p_.queries + begin + r);
      C* const row = result_ + r * p_.value_width;
      if (sum_[r] == 0) {  // attends to nothing
        std::fill_n(row, p_.value_width, C{0});
        softmax[0] = softmax[1] = 0;
      } else {
        softmax[0] = max_[r];
        softmax[1] = 1 / sum_[r];
        rescale_[0] = p_.dropout_scale / sum_[r];
        multiply_rows(row, 1);
      }
    }
    output_.store(head, begin, end - begin, result_);
  }

  const Problem<C>& p_;
  const Operand<C>& output_;
  C* softmax_;
  std::vector<Tensor> memory_;
  C* scores_;
  C* query_;
  C* result_;
  C* rows_;  // of keys
  C* key_;   // as columns
  C* value_;
  C max_[kMostQueries];
  C sum_[kMostQueries];
  C rescale_[kQueryBlock];
};

template <class C>
void run(const Inputs& inputs, const Options& options, const Result& result) {
  const Problem<C> problem(inputs, options);
  const Operand<C> output(result.output);
  C* const softmax = result.softmax.mutable_data_ptr<C>();
  const int64_t blocks = divide_up(problem.queries, kQueryBlock);
  parallel_for(0, problem.heads * blocks, 1, [&](int64_t begin, int64_t end) {
    const SingleThreadedProducts single_threaded;
    Worker<C> worker(problem, output, softmax);
    for (int64_t task = begin; task < end;) {
      const int64_t block = task % blocks;
      const int64_t count = std::min({kSharing, blocks - block, end - task});
      worker.run(
          task / blocks, block * kQueryBlock,
          std::min(problem.queries, (block + count) * kQueryBlock));
      task += count;
    }
  });
}

}  // namespace

Result forward(const Inputs& inputs, const Options& options) {
  check(inputs, options);
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const Result result = empty_result(inputs);
  if (Threshold::from_probability(options.p).drops_all()) {
    result.output.zero_();
    result.softmax.zero_();
  } else if (compute_type(inputs) == at::kDouble) {
    run<double>(inputs, options, result);
  } else {
    run<float>(inputs, options, result);
  }
  return result;
}

}  // namespace dropout::attention::cpu
