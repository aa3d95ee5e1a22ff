// CUDA backend: torch's generator, device and stream around the kernels.
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <mutex>

#include "kernels/cuda/kernel.h"
#include "torch/backend.h"
#include "torch/checks.h"

namespace dropout::cuda {
namespace {

// The offset of torch's generator counts 32-bit numbers, of which a Philox call gives four.
constexpr int kOffsetShift = 2;
// Two Philox calls: h and the tie break.
constexpr uint64_t kReserved = 8;

StateSource draw_source(
    const std::optional<at::Generator>& generator,
    c10::DeviceIndex device) {
  auto* engine = at::get_generator_or_default<at::CUDAGeneratorImpl>(
      generator, at::cuda::detail::getDefaultCUDAGenerator(device));
  at::PhiloxCudaState drawn;
  {
    const std::lock_guard<std::mutex> lock(engine->mutex_);
    drawn = engine->philox_cuda_state(kReserved);
  }
  StateSource source;
  source.shift = kOffsetShift;
  if (drawn.captured_) {
    source.seed = drawn.seed_.ptr;
    source.offset = drawn.offset_.ptr;
    source.value.offset = drawn.offset_intragraph_;
  } else {
    source.value = {drawn.seed_.val, drawn.offset_.val};
  }
  return source;
}

at::Tensor empty_state(const at::Tensor& like) {
  return at::empty({2}, at::TensorOptions().dtype(at::kLong).device(like.device()));
}

void launch_on_stream(const Application& application, const StateSource& source) {
  const at::Tensor& out = application.out;
  const Task task{
      application.in.defined() ? application.in.const_data_ptr() : nullptr,
      out.mutable_data_ptr(), scalar_type(out), source, application.threshold};
  C10_CUDA_CHECK(
      launch(task, application.map, c10::cuda::getCurrentCUDAStream(out.get_device())));
}

}  // namespace

at::Tensor draw(const at::Tensor& input, const std::optional<at::Generator>& generator) {
  const c10::cuda::CUDAGuard guard(input.device());
  const at::Tensor state = empty_state(input);
  StateSource source = draw_source(generator, input.get_device());
  source.written = state.mutable_data_ptr<int64_t>();
  C10_CUDA_CHECK(
      launch_write_state(source, c10::cuda::getCurrentCUDAStream(input.get_device())));
  return state;
}

void apply(const Application& application, const at::Tensor& rng_state) {
  const c10::cuda::CUDAGuard guard(application.out.device());
  const int64_t* data = rng_state.const_data_ptr<int64_t>();
  StateSource source;
  source.seed = data;
  source.offset = data + rng_state.stride(0);
  launch_on_stream(application, source);
}

at::Tensor draw_and_apply(
    const Application& application,
    const std::optional<at::Generator>& generator,
    bool want_state) {
  const at::Tensor& out = application.out;
  const c10::cuda::CUDAGuard guard(out.device());
  StateSource source = draw_source(generator, out.get_device());
  at::Tensor state;
  if (want_state) {
    state = empty_state(out);
    source.written = state.mutable_data_ptr<int64_t>();
  }
  launch_on_stream(application, source);
  return state;
}

}  // namespace dropout::cuda
