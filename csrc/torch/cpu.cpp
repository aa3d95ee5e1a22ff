// CPU backend: torch's generator and thread pool around the kernels.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>

#include <algorithm>
#include <cstdint>
#include <mutex>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "core/fold_in.h"
#include "kernels/cpu/kernel.h"
#include "torch/backend.h"
#include "torch/parallel.h"

namespace dropout::cpu {
namespace {

// Calls `take` with each of `count` states, drawn under one lock.
template <class F>
void draw_states(const std::optional<at::Generator>& generator, int64_t count, const F& take) {
  auto* engine = at::get_generator_or_default<at::CPUGeneratorImpl>(
      generator, at::detail::getDefaultCPUGenerator());
  const std::lock_guard<std::mutex> lock(engine->mutex_);
  for (int64_t k = 0; k < count; ++k) {
    take(RngState{engine->random64(), 0});
  }
}

int64_t* write(RngState state, int64_t* data) {
  *data++ = static_cast<int64_t>(state.seed);
  *data++ = static_cast<int64_t>(state.offset);
  return data;
}

// `state_of` gives the state of a sample.
template <class F>
void launch(const Task& task, const F& state_of) {
  const Plan plan = make_plan(task);
  parallel_for(0, plan.units * task.samples.count, plan.grain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t sample = begin / plan.units;
      const int64_t origin = sample * plan.units;
      const int64_t stop = std::min(end, origin + plan.units);
      run(plan, task, sample, state_of(sample), begin - origin, stop - origin);
      begin = stop;
    }
  });
}

at::Tensor empty(at::IntArrayRef size, at::ScalarType dtype, at::Device /*device*/) {
  return at::detail::empty_cpu(size, dtype);
}

void draw(const at::Tensor& states, const std::optional<at::Generator>& generator) {
  int64_t* data = states.mutable_data_ptr<int64_t>();
  draw_states(generator, states.numel() / 2, [&](RngState state) { data = write(state, data); });
}

void reserve(const std::optional<at::Generator>& generator, at::Device /*device*/) {
  draw_states(generator, 1, [](RngState) {});
}

void apply(const Task& task, const at::Tensor& rng_state) {
  const int64_t* data = rng_state.const_data_ptr<int64_t>();
  const int64_t next = rng_state.stride(0);
  launch(task, [&](int64_t sample) {
    const int64_t* state = data + sample * task.samples.state;
    return RngState{static_cast<uint64_t>(state[0]), static_cast<uint64_t>(state[next])};
  });
}

at::Tensor draw_and_apply(
    const Task& task,
    const at::Tensor& /*out*/,
    const std::optional<at::Generator>& generator,
    bool want_state) {
  RngState state{};
  draw_states(generator, 1, [&](RngState drawn) { state = drawn; });
  launch(task, [&](int64_t /*sample*/) { return state; });
  if (!want_state) {
    return {};
  }
  const at::Tensor tensor = at::detail::empty_cpu({2}, at::kLong);
  write(state, tensor.mutable_data_ptr<int64_t>());
  return tensor;
}

void fold_in(const at::Tensor& rng_states, const at::Tensor& numbers, const at::Tensor& folded) {
  const int64_t* state = rng_states.const_data_ptr<int64_t>();
  const int64_t* number = numbers.const_data_ptr<int64_t>();
  int64_t* data = folded.mutable_data_ptr<int64_t>();
  for (int64_t k = 0; k < numbers.numel(); ++k, state += 2) {
    const RngState parent{static_cast<uint64_t>(state[0]), static_cast<uint64_t>(state[1])};
    data = write(dropout::fold_in(parent, static_cast<uint64_t>(number[k])), data);
  }
}

}  // namespace

const Backend& backend() {
  static constexpr Backend kBackend{empty, draw, reserve, apply, draw_and_apply, fold_in};
  return kBackend;
}

void prefer_huge_pages(const at::Tensor& fresh) {
#if defined(MADV_HUGEPAGE)
  // Smaller memory comes from the allocator's heap, whose pages are there already.
  constexpr size_t kFreshBytes = size_t{32} << 20;
  constexpr uintptr_t kPageBytes = 4096;
  if (fresh.nbytes() < kFreshBytes) {
    return;
  }
  const auto begin = reinterpret_cast<uintptr_t>(fresh.mutable_data_ptr());
  const uintptr_t first_page = (begin + kPageBytes - 1) / kPageBytes * kPageBytes;
  // A hint: where it is refused, pages are small.
  madvise(
      reinterpret_cast<void*>(first_page), begin + fresh.nbytes() - first_page, MADV_HUGEPAGE);
#endif
}

}  // namespace dropout::cpu
