#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <map>

#include "torch/attention_cpu.h"
#include "torch/parallel.h"

namespace dropout::attention::cpu {
namespace {

// Tasks there should be at least, for the sake of many threads. Results depend on this number,
// and so must not be that of the threads.
constexpr int64_t kTasks = 16;

// How the work is divided: a task takes the heads of a group one by one, and of each the keys of
// a split. So nothing is added to by two tasks, but for the gradient of the queries, of which
// every split has one.
struct Division {
  std::vector<std::vector<int64_t>> groups;  // heads of keys
  int64_t splits;
  int64_t split_keys;
};

// What a mask shares among heads receives the gradients of all, and they are one group.
Division divide(int64_t key_heads, int64_t keys, const Tensor& mask_gradient, int64_t group) {
  Division division;
  if (mask_gradient.defined()) {
    const auto leading = mask_gradient.sizes().slice(0, mask_gradient.dim() - 2);
    const auto offsets = head_offsets(leading, mask_gradient.strides());
    std::map<int64_t, std::vector<int64_t>> groups;
    for (int64_t head = 0; head < key_heads; ++head) {
      groups[offsets[head * group]].push_back(head);
    }
    for (auto& [offset, heads] : groups) {
      division.groups.push_back(std::move(heads));
    }
  } else {
    for (int64_t head = 0; head < key_heads; ++head) {
      division.groups.push_back({head});
    }
  }
  const int64_t blocks = divide_up(keys, kKeyBlock);
  const int64_t groups = std::max<int64_t>(1, static_cast<int64_t>(division.groups.size()));
  const bool shared = mask_gradient.defined() && mask_gradient.stride(-1) == 0;
  const int64_t wanted =
      shared ? 1
             : std::clamp<int64_t>(divide_up(kTasks, groups), 1, std::max<int64_t>(1, blocks));
  division.split_keys = std::max<int64_t>(1, divide_up(blocks, wanted)) * kKeyBlock;
  division.splits = std::max<int64_t>(1, divide_up(keys, division.split_keys));
  return division;
}

template <class C>
struct Saved {
  Operand<C> grad_output;
  const C* logsumexp;
  const C* row_dot;
};

template <class C>
struct Outputs {
  std::vector<Operand<C>> query;  // of each split
  Operand<C> key;
  Operand<C> value;
  Tensor mask;  // expanded to the weights
  std::vector<int64_t> mask_heads;
};

template <class C>
class Worker {
 public:
  Worker(const Problem<C>& problem, const Saved<C>& saved, const Outputs<C>& outputs)
      : p_(problem), saved_(saved), out_(outputs) {
    scores_ = scratch<C>(memory_, kQueryBlock * kPitch);
    slope_ = scratch<C>(memory_, kQueryBlock * kPitch);
  }

  void run(int64_t key_head, int64_t split, int64_t begin, int64_t end) {
    for (int64_t key = begin; key < end; key += kKeyBlock) {
      bool add = false;
      for (int64_t head = key_head * p_.group; head < (key_head + 1) * p_.group; ++head) {
        for (int64_t query = p_.is_causal ? key : 0; query < p_.queries;
             query += p_.query_block) {
          block(head, query, key, add, {split, /*add=*/key > begin});
          add = true;
        }
      }
      if (!add) {  // no query attends to these keys
        clear(key_head, key, std::min(key + kKeyBlock, p_.keys));
      }
    }
  }

 private:
  struct QueryGradient {
    int64_t split;
    bool add;
  };

  void block(int64_t head, int64_t query, int64_t key, bool add, QueryGradient of_query) {
    const int64_t rows = std::min(p_.query_block, p_.queries - query);
    const int64_t columns = p_.columns(key, query + rows - 1);
    const int64_t key_head = head / p_.group;
    const Matrix<C> grad = saved_.grad_output.from(head, query);
    const Matrix<C> weights{scores_, kPitch};
    const Matrix<C> slope{slope_, kPitch};
    Product<C>{p_.dropout_scale, grad, p_.value.from(key_head, key).t(), false}.into(
        slope_, kPitch, rows, columns, p_.value_width);
    const int64_t row = head * p_.queries + query;
    ::dropout::cpu::softmax_dropout_backward<C>(
        p_.scores(scores_, head, query, rows, key, columns), slope_, saved_.logsumexp + row,
        saved_.row_dot + row);
    // Keys that these queries do not see, but later ones will, have to begin with zeros.
    if (!add && columns < std::min(kKeyBlock, p_.keys - key)) {
      clear(key_head, key + columns, std::min(key + kKeyBlock, p_.keys));
    }
    Product<C>{p_.dropout_scale, weights.t(), grad, add}.into(
        out_.value.at(key_head, key), out_.value.pitch(), columns, p_.value_width, rows);
    Product<C>{p_.scale, slope.t(), p_.query.from(head, query), add}.into(
        out_.key.at(key_head, key), out_.key.pitch(), columns, p_.width, rows);
    const Operand<C>& to = out_.query[of_query.split];
    Product<C>{p_.scale, slope, p_.key.from(key_head, key), of_query.add}.into(
        to.at(head, query), to.pitch(), rows, p_.width, columns);
    if (out_.mask.defined()) {
      add_to_mask(head, query, rows, key, columns);
    }
  }

  void clear(int64_t key_head, int64_t begin, int64_t end) {
    for (int64_t key = begin; key < end; ++key) {
      std::fill_n(out_.key.at(key_head, key), p_.width, C{0});
      std::fill_n(out_.value.at(key_head, key), p_.value_width, C{0});
    }
  }

  void add_to_mask(int64_t head, int64_t query, int64_t rows, int64_t key, int64_t columns) {
    const int64_t by_query = out_.mask.stride(-2);
    const int64_t by_key = out_.mask.stride(-1);
    C* const first = out_.mask.template mutable_data_ptr<C>() + out_.mask_heads[head] +
                     query * by_query + key * by_key;
    for (int64_t r = 0; r < rows; ++r) {
      C* const to = first + r * by_query;
      const C* const slope = slope_ + r * kPitch;
      for (int64_t c = 0; c < columns; ++c) {
        to[c * by_key] += slope[c];
      }
    }
  }

  const Problem<C>& p_;
  const Saved<C>& saved_;
  const Outputs<C>& out_;
  std::vector<Tensor> memory_;
  C* scores_;
  C* slope_;
};

template <class C>
void run(
    const Tensor& grad_output,
    const Inputs& inputs,
    const Result& result,
    const Options& options,
    const Gradients& gradients) {
  constexpr auto kType = c10::CppTypeToScalarType<C>::value;
  const Problem<C> problem(inputs, options);
  const Tensor grad = grad_output.to(kType);
  const Tensor row_dot = (grad * result.output.to(kType)).sum(-1).contiguous();
  const Tensor logsumexp = result.logsumexp.contiguous();
  const Saved<C> saved{
      Operand<C>(grad), logsumexp.const_data_ptr<C>(), row_dot.const_data_ptr<C>()};
  const auto computed = [](const Tensor& to) {
    return Operand<C>(to.scalar_type() == kType ? to : at::empty(to.sizes(), kType));
  };
  Outputs<C> outputs{{}, computed(gradients.key), computed(gradients.value), {}, {}};
  Tensor mask;
  if (gradients.mask.numel() > 0) {
    mask = at::zeros_like(gradients.mask, kType);
    outputs.mask = mask.expand(problem.weights);
    outputs.mask_heads = head_offsets(
        at::IntArrayRef(problem.weights).slice(0, problem.weights.size() - 2),
        outputs.mask.strides());
  }
  const int64_t key_heads = problem.heads / problem.group;
  const Division division = divide(key_heads, problem.keys, outputs.mask, problem.group);
  outputs.query.push_back(computed(gradients.query));
  for (int64_t split = 1; split < division.splits; ++split) {
    outputs.query.emplace_back(at::zeros(inputs.query.sizes(), kType));
  }
  if (problem.keys == 0) {
    outputs.query[0].tensor().zero_();
  }
  const int64_t tasks = static_cast<int64_t>(division.groups.size()) * division.splits;
  parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    const SingleThreadedProducts single_threaded;
    Worker<C> worker(problem, saved, outputs);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t split = task % division.splits;
      const int64_t first = split * division.split_keys;
      for (const int64_t head : division.groups[task / division.splits]) {
        worker.run(head, split, first, std::min(problem.keys, first + division.split_keys));
      }
    }
  });
  for (size_t split = 1; split < outputs.query.size(); ++split) {
    outputs.query[0].tensor().add_(outputs.query[split].tensor());
  }
  const auto deliver = [](const Tensor& to, const Tensor& from) {
    if (from.defined() && !to.is_same(from)) {
      to.copy_(from);
    }
  };
  deliver(gradients.query, outputs.query[0].tensor());
  deliver(gradients.key, outputs.key.tensor());
  deliver(gradients.value, outputs.value.tensor());
  deliver(gradients.mask, mask);
}

}  // namespace

Gradients backward(
    const Tensor& grad_output,
    const Inputs& inputs,
    const Result& result,
    const Options& options,
    bool mask_gradient) {
  check(inputs, options);
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const Gradients gradients = empty_gradients(inputs, mask_gradient);
  if (Threshold::from_probability(options.p).drops_all()) {
    for (const Tensor& gradient :
         {gradients.query, gradients.key, gradients.value, gradients.mask}) {
      gradient.zero_();
    }
  } else if (compute_type(inputs) == at::kDouble) {
    run<double>(grad_output, inputs, result, options, gradients);
  } else {
    run<float>(grad_output, inputs, result, options, gradients);
  }
  return gradients;
}

}  // namespace dropout::attention::cpu
