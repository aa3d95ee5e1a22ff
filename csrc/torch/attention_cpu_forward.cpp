
#include <cmath>

#include "torch/attention_cpu.h"
#include "torch/parallel.h"

namespace dropout::attention::cpu {
namespace {

template <class C>
class Worker {
 public:
  Worker(const Problem<C>& problem, const Operand<C>& output, C* logsumexp)
      : p_(problem), output_(output), logsumexp_(logsumexp) {
    scores_ = scratch<C>(memory_, kQueryBlock * kPitch);
  }

  void run(int64_t head, int64_t query) {
    const int64_t rows = std::min(p_.query_block, p_.queries - query);
    const int64_t last = query + rows - 1;
    std::fill_n(max_, rows, -std::numeric_limits<C>::infinity());
    std::fill_n(sum_, rows, C{0});
    for (int64_t key = 0; p_.columns(key, last) > 0; key += kKeyBlock) {
      const int64_t columns = p_.columns(key, last);
      ::dropout::cpu::softmax_dropout<C>(
          p_.scores(scores_, head, query, rows, key, columns), {max_, sum_, rescale_});
      if (key > 0) {
        multiply_rows(head, query, rows, rescale_);
      }
      Product<C>{1, {scores_, kPitch}, p_.value.from(head / p_.group, key), key > 0}.into(
          output_.at(head, query), output_.pitch(), rows, p_.value_width, columns);
    }
    finish(head, query, rows);
  }

 private:
  void multiply_rows(int64_t head, int64_t query, int64_t rows, const C* factors) {
    for (int64_t r = 0; r < rows; ++r) {
      C* const row = output_.at(head, query + r);
      for (int64_t c = 0; c < p_.value_width; ++c) {
        row[c] *= factors[r];
      }
    }
  }

  void finish(int64_t head, int64_t query, int64_t rows) {
    for (int64_t r = 0; r < rows; ++r) {
      C& logsumexp = logsumexp_[head * p_.queries + query + r];
      if (sum_[r] == 0) {  // attends to nothing
        std::fill_n(output_.at(head, query + r), p_.value_width, C{0});
        logsumexp = std::numeric_limits<C>::infinity();
        rescale_[r] = 1;
      } else {
        logsumexp = max_[r] + std::log(sum_[r]);
        rescale_[r] = p_.dropout_scale / sum_[r];
      }
    }
    multiply_rows(head, query, rows, rescale_);
  }

  const Problem<C>& p_;
  const Operand<C>& output_;
  C* logsumexp_;
  std::vector<Tensor> memory_;
  C* scores_;
  C max_[kQueryBlock];
  C sum_[kQueryBlock];
  C rescale_[kQueryBlock];
};

template <class C>
void run(const Inputs& inputs, const Options& options, const Result& result) {
  const Problem<C> problem(inputs, options);
  constexpr auto kType = c10::CppTypeToScalarType<C>::value;
  const bool direct = result.output.scalar_type() == kType;
  const Operand<C> output(direct ? result.output : at::empty(result.output.sizes(), kType));
  C* const logsumexp = result.logsumexp.mutable_data_ptr<C>();
  const int64_t blocks = divide_up(problem.queries, problem.query_block);
  parallel_for(0, problem.heads * blocks, 1, [&](int64_t begin, int64_t end) {
    const SingleThreadedProducts single_threaded;
    Worker<C> worker(problem, output, logsumexp);
    for (int64_t task = begin; task < end; ++task) {
      worker.run(task / blocks, task % blocks * problem.query_block);
    }
  });
  if (!direct) {
    result.output.copy_(output.tensor());
  }
}

}  // namespace

Result forward(const Inputs& inputs, const Options& options) {
  check(inputs, options);
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const Result result = empty_result(inputs);
  if (Threshold::from_probability(options.p).drops_all()) {
    result.output.zero_();
    result.logsumexp.zero_();
  } else if (compute_type(inputs) == at::kDouble) {
    run<double>(inputs, options, result);
  } else {
    run<float>(inputs, options, result);
  }
  return result;
}

}  // namespace dropout::attention::cpu
