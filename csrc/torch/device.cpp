// Keys CPU and CUDA: checks, allocation, the index map, and the device's kernels.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <vector>

#include "torch/backend.h"
#include "torch/checks.h"
#include "torch/ops.h"

namespace dropout::device {
namespace {

using Strides = at::OptionalIntArrayRef;

// Are the strides those of a fresh tensor of these sizes, also where a size of 1 leaves them
// free?
bool has_default_strides(const Tensor& tensor) {
  int64_t expected = 1;
  for (int64_t d = tensor.dim() - 1; d >= 0; --d) {
    if (tensor.stride(d) != expected) {
      return false;
    }
    expected *= std::max<int64_t>(tensor.size(d), 1);
  }
  return true;
}

void set_index_map(IndexMap& map, const Tensor& in, const Tensor& out, Strides mask_strides) {
  if (!mask_strides.has_value() && in.is_contiguous() && out.is_contiguous()) {
    map.push({out.numel(), 1, 1, 1});
    return map.normalize();
  }
  int64_t row_major = 1;
  for (int64_t d = out.dim() - 1; d >= 0; --d) {
    const int64_t mask = mask_strides.has_value() ? (*mask_strides)[d] : row_major;
    TORCH_CHECK(
        map.push({out.size(d), in.stride(d), out.stride(d), mask}),
        "dropout: input has more than ", IndexMap::kMaxDims, " dimensions larger than 1");
    row_major *= out.size(d);
  }
  map.normalize();
}

// One dropout between two tensors, which are the same in place. A boolean output gets the mask
// itself, and its input is not read.
class Application {
 public:
  Application(const Tensor& in, const Tensor& out, const DropoutArgs& args)
      : in_(in), out_(out), base_(args.mask_base.guard_int(__FILE__, __LINE__)) {
    task_.dtype = scalar_type(out);
    task_.threshold = Threshold::from_probability(args.p);
    task_.coefficients = {args.scale.value_or(task_.threshold.scale()), args.shift, args.fill};
    if (args.mask_strides.has_value()) {
      for (const c10::SymInt& stride : *args.mask_strides) {
        mask_strides_.push_back(stride.guard_int(__FILE__, __LINE__));
      }
      strides_ = mask_strides_;
    }
  }

  // Whether no kernel is needed. If p is so close to 0 or 1 that nothing or everything is
  // dropped, the result is the same on every device.
  bool done_without_kernel() const {
    const Coefficients& coefficients = task_.coefficients;
    const bool is_mask = task_.dtype == ScalarType::kBool;
    if (out_.numel() == 0) {
      return true;
    }
    if (task_.threshold.drops_all()) {
      out_.fill_(coefficients.fill);
    } else if (task_.threshold.keeps_all() && is_mask) {
      out_.fill_(true);
    } else if (
        task_.threshold.keeps_all() && coefficients.scale == 1.0 && !coefficients.shifts()) {
      if (!in_.is_same(out_)) {
        out_.copy_(in_);
      }
    } else {
      return false;
    }
    return true;
  }

  void run(const Tensor& rng_state) { run_samples(in_, out_, strides_, rng_state); }

  Tensor draw_and_run(const Generator& generator, bool want_state) {
    set_tensors(in_, out_, strides_);
    return backend_of(out_).draw_and_apply(task_, out_, generator, want_state);
  }

 private:
  void set_tensors(const Tensor& in, const Tensor& out, Strides mask_strides) {
    task_.in = in.const_data_ptr();
    task_.out = out.mutable_data_ptr();
    task_.map.ndim = 0;
    task_.map.base = static_cast<uint64_t>(base_);
    set_index_map(task_.map, in, out, mask_strides);
  }

  // Where rng_state has leading dimensions, those of the tensors are samples with a state and, by
  // default, a mask index of their own. The last of these dimensions is left to the device.
  void run_samples(Tensor in, Tensor out, Strides mask_strides, Tensor rng_state) {
    if (rng_state.dim() > 1 && mask_strides.has_value()) {
      mask_strides = mask_strides->slice(1);
    }
    if (rng_state.dim() > 2) {
      for (int64_t k = 0; k < rng_state.size(0); ++k) {
        run_samples(in.select(0, k), out.select(0, k), mask_strides, rng_state.select(0, k));
      }
      return;
    }
    if (rng_state.dim() == 2) {
      task_.samples = {rng_state.size(0), in.stride(0), out.stride(0), rng_state.stride(0)};
      in = in.select(0, 0);
      out = out.select(0, 0);
      rng_state = rng_state.select(0, 0);
    }
    set_tensors(in, out, mask_strides);
    backend_of(out).apply(task_, rng_state);
  }

  const Tensor& in_;
  const Tensor& out_;
  int64_t base_;
  c10::SmallVector<int64_t, 8> mask_strides_;
  Strides strides_;
  Task task_;
};

}  // namespace

Tensor empty_output(const Tensor& input) {
  const Tensor out =
      has_default_strides(input)
          ? backend_of(input).empty(input.sizes(), input.scalar_type(), input.device())
          : at::empty_like(input);
  if (out.is_cpu()) {
    cpu::prefer_huge_pages(out);
  }
  return out;
}

void apply(
    const Tensor& input, const Tensor& out, const Tensor& rng_state, const DropoutArgs& args) {
  Application application(input, out, args);
  if (!application.done_without_kernel()) {
    application.run(rng_state);
  }
}

Tensor draw_and_apply(
    const Tensor& input,
    const Tensor& out,
    const Generator& generator,
    const DropoutArgs& args,
    bool want_state) {
  Application application(input, out, args);
  if (!application.done_without_kernel()) {
    return application.draw_and_run(generator, want_state);
  }
  // A call reserves its random numbers whatever its size and probability.
  if (want_state) {
    return draw(input, {}, generator);
  }
  backend_of(input).reserve(generator, input.device());
  return {};
}

Tensor draw(const Tensor& input, at::IntArrayRef batch, Generator generator) {
  check_input(input);
  check_generator(generator, input.device());
  std::vector<int64_t> shape = batch.vec();
  shape.push_back(2);
  const Backend& backend = backend_of(input);
  const Tensor states = backend.empty(shape, at::kLong, input.device());
  if (states.numel() != 0) {
    backend.draw(states, generator);
  }
  return states;
}

Tensor dropout(const Tensor& input, const Tensor& rng_state, const DropoutArgs& args) {
  check_dropout(input, rng_state, args);
  const Tensor out = empty_output(input);
  apply(input, out, rng_state, args);
  return out;
}

Tensor dropout_mask(
    c10::SymIntArrayRef size,
    double p,
    const Tensor& rng_state,
    SymStrides mask_strides,
    c10::SymInt mask_base) {
  const DropoutArgs args{p, mask_strides, std::move(mask_base), /*scale=*/1.0};
  check_args(size, args);
  check_rng_state(rng_state, size, rng_state.device());
  const Tensor out = at::empty_symint(size, rng_state.options().dtype(at::kBool));
  if (!out.is_meta()) {
    apply(out, out, rng_state, args);
  }
  return out;
}

Tensor fold_in(const Tensor& rng_state, const Tensor& number) {
  check_fold_in(rng_state, number);
  const Tensor folded = at::empty(rng_state.sizes(), rng_state.options());
  if (folded.numel() != 0) {
    const Tensor from = rng_state.contiguous();
    const Tensor numbers = number.contiguous();
    backend_of(folded).fold_in(from, numbers, folded);
  }
  return folded;
}

}  // namespace dropout::device
