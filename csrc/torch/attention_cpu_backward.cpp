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
  Operand<C> output;
  const C* softmax;
};

// Gradients of the queries of all heads, to which blocks of keys are added.
template <class C>
struct QuerySums {
  explicit QuerySums(const Tensor& tensor)
      : tensor(tensor),
        data(tensor.mutable_data_ptr<C>()),
        pitch(tensor.stride(-2)),
        heads(head_offsets(tensor.sizes().slice(0, tensor.dim() - 2), tensor.strides())) {}

  Tensor tensor;
  C* data;
  int64_t pitch;
  std::vector<int64_t> heads;
};

template <class C>
struct Outputs {
  std::vector<QuerySums<C>> query;  // of each split
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
    const auto rows = [&](int64_t count, int64_t width) {
      return scratch<C>(memory_, count * width);
    };
    scores_ = rows(kQueryBlock, kPitch);
    slope_ = rows(kQueryBlock, kPitch);
    key_rows_ = rows(kKeyBlock, std::max(p_.width, p_.value_width));
    key_ = rows(kPitch, p_.width);
    value_ = rows(kPitch, p_.value_width);
    key_sums_ = rows(kPitch, p_.width);
    value_sums_ = rows(kPitch, p_.value_width);
    query_ = rows(kQueryBlock, p_.width);
    query_columns_ = rows(kQueryBlock, p_.width);
    grad_ = rows(kQueryBlock, p_.value_width);
    grad_columns_ = rows(kQueryBlock, p_.value_width);
    output_ = rows(kQueryBlock, p_.value_width);
  }

  void run(int64_t key_head, int64_t split, int64_t begin, int64_t end) {
    for (int64_t key = begin; key < end; key += kKeyBlock) {
      const int64_t keys = std::min(kKeyBlock, end - key);
      load_keys(key_head, key, keys);
      for (int64_t head = key_head * p_.group; head < (key_head + 1) * p_.group; ++head) {
        for (int64_t query = p_.is_causal ? key : 0; query < p_.queries; query += kQueryBlock) {
          block(head, query, key, {split, /*add=*/key > begin});
        }
      }
      deliver(out_.key, key_sums_, key_head, key, keys, p_.width);
      deliver(out_.value, value_sums_, key_head, key, keys, p_.value_width);
    }
  }

 private:
  struct QueryGradient {
    int64_t split;
    bool add;
  };

  // As columns; and the keys as rows too, with the scale of the scores.
  void load_keys(int64_t key_head, int64_t key, int64_t keys) {
    p_.value.load(key_head, key, keys, 1, key_rows_);
    transpose_keys(key_rows_, keys, p_.value_width, value_);
    p_.key.load(key_head, key, keys, 1, key_rows_);
    transpose_keys(key_rows_, keys, p_.width, key_);
    for (int64_t k = 0; k < keys * p_.width; ++k) {
      key_rows_[k] *= p_.scale;
    }
    std::fill(key_rows_ + keys * p_.width, key_rows_ + padded(keys) * p_.width, C{0});
    std::fill_n(key_sums_, kPitch * p_.width, C{0});
    std::fill_n(value_sums_, kPitch * p_.value_width, C{0});
  }

  void load_queries(int64_t head, int64_t query, int64_t rows) {
    p_.query.load(head, query, rows, p_.scale, query_);
    transpose<C>({query_, p_.width}, rows, p_.width, {query_columns_, kQueryBlock});
    const int64_t width = p_.value_width;
    saved_.grad_output.load(head, query, rows, p_.dropout_scale, grad_);
    transpose<C>({grad_, width}, rows, width, {grad_columns_, kQueryBlock});
    saved_.output.load(head, query, rows, 1 / p_.dropout_scale, output_);
    for (int64_t r = 0; r < rows; ++r) {
      row_dot_[r] = dot(grad_ + r * width, output_ + r * width, width);
    }
  }

  static C dot(const C* a, const C* b, int64_t n) {
    constexpr int64_t kParts = 8;
    C parts[kParts]{};
    int64_t k = 0;
    for (; k + kParts <= n; k += kParts) {
      for (int64_t j = 0; j < kParts; ++j) {
        parts[j] += a[k + j] * b[k + j];
      }
    }
    C sum = 0;
    for (; k < n; ++k) {
      sum += a[k] * b[k];
    }
    for (const C part : parts) {
      sum += part;
    }
    return sum;
  }

  void block(int64_t head, int64_t query, int64_t key, QueryGradient of_query) {
    const int64_t rows = std::min(kQueryBlock, p_.queries - query);
    const int64_t columns = p_.columns(key, query + rows - 1);
    const int64_t all = padded(columns);
    const int64_t width = p_.width;
    const int64_t value_width = p_.value_width;
    load_queries(head, query, rows);
    multiply<C>(
        {grad_, value_width}, {value_, kPitch}, {slope_, kPitch}, {rows, all, value_width},
        false);
    ::dropout::cpu::softmax_dropout_backward<C>(
        p_.scores(scores_, query_, key_, head, query, rows, key, columns), slope_,
        saved_.softmax + 2 * (head * p_.queries + query), row_dot_);
    multiply<C>(
        {grad_columns_, kQueryBlock}, {scores_, kPitch}, {value_sums_, kPitch},
        {value_width, all, rows}, true);
    multiply<C>(
        {query_columns_, kQueryBlock}, {slope_, kPitch}, {key_sums_, kPitch}, {width, all, rows},
        true);
    const QuerySums<C>& sums = out_.query[of_query.split];
    multiply<C>(
        {slope_, kPitch}, {key_rows_, width},
        {sums.data + sums.heads[head] + query * sums.pitch, sums.pitch}, {rows, width, all},
        of_query.add);
    if (out_.mask.defined()) {
      add_to_mask(head, query, rows, key, columns);
    }
  }

  // The sums have keys as columns.
  void deliver(
      const Operand<C>& to, C* sums, int64_t key_head, int64_t key, int64_t keys, int64_t width) {
    transpose<C>({sums, kPitch}, width, keys, {key_rows_, width});
    to.store(key_head, key, keys, key_rows_);
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
  C* key_rows_;
  C* key_;  // as columns, like all up to the sums
  C* value_;
  C* key_sums_;
  C* value_sums_;
  C* query_;
  C* query_columns_;
  C* grad_;
  C* grad_columns_;
  C* output_;
  C row_dot_[kQueryBlock];
};

// Can products be added to it in place?
bool is_direct(const Tensor& tensor, at::ScalarType type) {
  const int64_t width = tensor.size(-1);
  return tensor.scalar_type() == type && (width <= 1 || tensor.stride(-1) == 1) &&
         tensor.stride(-2) >= std::max<int64_t>(width, 1) && tensor.stride(-2) <= kMaxPitch;
}

template <class C>
void run(
    const Tensor& grad_output,
    const Inputs& inputs,
    const Result& result,
    const Options& options,
    const Gradients& gradients) {
  constexpr auto kType = c10::CppTypeToScalarType<C>::value;
  const Problem<C> problem(inputs, options);
  const Tensor softmax = result.softmax.contiguous();
  const Saved<C> saved{
      Operand<C>(grad_output), Operand<C>(result.output), softmax.const_data_ptr<C>()};
  Outputs<C> outputs{{}, Operand<C>(gradients.key), Operand<C>(gradients.value), {}, {}};
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
  for (int64_t split = 0; split < division.splits; ++split) {
    const Tensor& query = gradients.query;
    // Zeros for what a causal split does not come to.
    outputs.query.emplace_back(
        split > 0                 ? at::zeros(query.sizes(), kType)
        : is_direct(query, kType) ? query
                                  : at::empty(query.sizes(), kType));
  }
  if (problem.keys == 0) {
    outputs.query[0].tensor.zero_();
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
  const Tensor& query = outputs.query[0].tensor;
  for (size_t split = 1; split < outputs.query.size(); ++split) {
    query.add_(outputs.query[split].tensor);
  }
  if (!query.is_same(gradients.query)) {
    gradients.query.copy_(query);
  }
  if (mask.defined()) {
    gradients.mask.copy_(mask);
  }
}

}  // namespace

Gradients backward(
    const Tensor& grad_output,
    const Inputs& inputs,
    const Result& result,
    const Options& options,
    bool mask_gradient) {
  check_backward(grad_output, inputs, result, options, mask_gradient);
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const Gradients gradients = empty_gradients(inputs, mask_gradient);
  const auto heads = inputs.query.sizes().slice(0, inputs.query.dim() - 2);
  if (Threshold::from_probability(options.p).drops_all() || c10::multiply_integers(heads) == 0) {
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
