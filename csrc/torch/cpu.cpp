// CPU backend: torch's generator and thread pool around the kernels.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <mutex>

#include "kernels/cpu/kernel.h"
#include "torch/backend.h"
#include "torch/checks.h"

namespace dropout::cpu {
namespace {

RngState draw_state(const std::optional<at::Generator>& generator) {
  auto* engine = at::get_generator_or_default<at::CPUGeneratorImpl>(
      generator, at::detail::getDefaultCPUGenerator());
  const std::lock_guard<std::mutex> lock(engine->mutex_);
  return {engine->random64(), 0};
}

at::Tensor to_tensor(RngState state) {
  const at::Tensor tensor = at::empty({2}, at::kLong);
  int64_t* data = tensor.mutable_data_ptr<int64_t>();
  data[0] = static_cast<int64_t>(state.seed);
  data[1] = static_cast<int64_t>(state.offset);
  return tensor;
}

RngState from_tensor(const at::Tensor& tensor) {
  const int64_t* data = tensor.const_data_ptr<int64_t>();
  return {static_cast<uint64_t>(data[0]), static_cast<uint64_t>(data[tensor.stride(0)])};
}

void launch(const Application& application, RngState state) {
  const at::Tensor& out = application.out;
  const Task task{
      application.in.defined() ? application.in.const_data_ptr() : nullptr,
      out.mutable_data_ptr(), scalar_type(out), state, application.threshold};
  const Plan plan = make_plan(application.map, task);
  at::parallel_for(0, plan.units, plan.grain, [&](int64_t begin, int64_t end) {
    run(plan, task, begin, end);
  });
}

}  // namespace

at::Tensor draw(const at::Tensor& /*input*/, const std::optional<at::Generator>& generator) {
  return to_tensor(draw_state(generator));
}

void apply(const Application& application, const at::Tensor& rng_state) {
  launch(application, from_tensor(rng_state));
}

at::Tensor draw_and_apply(
    const Application& application,
    const std::optional<at::Generator>& generator,
    bool want_state) {
  const RngState state = draw_state(generator);
  launch(application, state);
  return want_state ? to_tensor(state) : at::Tensor();
}

}  // namespace dropout::cpu
