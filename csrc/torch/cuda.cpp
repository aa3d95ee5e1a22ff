// CUDA backend: torch's generator, device and stream around the kernels.
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <mutex>
#include <vector>

#include "kernels/cuda/kernel.h"
#include "torch/backend.h"
#include "torch/checks.h"

namespace dropout::cuda {
namespace {

// The offset of torch's generator counts 32-bit numbers, of which a Philox call gives four.
constexpr int kOffsetShift = 2;
// Two Philox calls: h and the tie break. Reserved by each call, whatever its size.
constexpr uint64_t kReserved = 8;

StateSource draw_source(
    const std::optional<at::Generator>& generator, c10::DeviceIndex device, int64_t calls) {
  auto* engine = at::get_generator_or_default<at::CUDAGeneratorImpl>(
      generator, at::cuda::detail::getDefaultCUDAGenerator(device));
  at::PhiloxCudaState drawn;
  {
    const std::lock_guard<std::mutex> lock(engine->mutex_);
    drawn = engine->philox_cuda_state(kReserved * static_cast<uint64_t>(calls));
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

at::Tensor empty_states(at::IntArrayRef batch, const at::Tensor& like) {
  std::vector<int64_t> shape = batch.vec();
  shape.push_back(2);
  return at::empty(shape, at::TensorOptions().dtype(at::kLong).device(like.device()));
}

void launch_on_stream(const Application& application, const StateSource& source) {
  const at::Tensor& out = application.out;
  const Task task{
      (application.in.defined() ? application.in : out).const_data_ptr(),
      out.mutable_data_ptr(),
      scalar_type(out),
      source,
      application.threshold,
      application.coefficients,
      application.samples};
  C10_CUDA_CHECK(
      launch(task, application.map, c10::cuda::getCurrentCUDAStream(out.get_device())));
}

}  // namespace

at::Tensor draw(
    const at::Tensor& input,
    at::IntArrayRef batch,
    const std::optional<at::Generator>& generator) {
  const c10::cuda::CUDAGuard guard(input.device());
  const at::Tensor states = empty_states(batch, input);
  const int64_t calls = states.numel() / 2;
  if (calls == 0) {
    return states;
  }
  StateSource source = draw_source(generator, input.get_device(), calls);
  source.written = states.mutable_data_ptr<int64_t>();
  C10_CUDA_CHECK(
      launch_write_states(source, calls, c10::cuda::getCurrentCUDAStream(input.get_device())));
  return states;
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
  StateSource source = draw_source(generator, out.get_device(), 1);
  at::Tensor state;
  if (want_state) {
    state = empty_states({}, out);
    source.written = state.mutable_data_ptr<int64_t>();
  }
  launch_on_stream(application, source);
  return state;
}

}  // namespace dropout::cuda
