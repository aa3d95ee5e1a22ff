// CUDA backend: torch's generator, device and stream around the kernels.
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <ATen/cuda/EmptyTensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <mutex>

#include "kernels/cuda/kernel.h"
#include "torch/backend.h"

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

at::Tensor empty(at::IntArrayRef size, at::ScalarType dtype, at::Device device) {
  return at::detail::empty_cuda(size, dtype, device, std::nullopt);
}

void reserve(const std::optional<at::Generator>& generator, at::Device device) {
  const c10::cuda::CUDAGuard guard(device);
  draw_source(generator, device.index(), 1);
}

void draw(const at::Tensor& states, const std::optional<at::Generator>& generator) {
  const c10::cuda::CUDAGuard guard(states.device());
  const int64_t calls = states.numel() / 2;
  StateSource source = draw_source(generator, states.get_device(), calls);
  source.written = states.mutable_data_ptr<int64_t>();
  C10_CUDA_CHECK(
      launch_write_states(source, calls, c10::cuda::getCurrentCUDAStream(states.get_device())));
}

void apply(const Task& task, const at::Tensor& rng_state) {
  const c10::cuda::CUDAGuard guard(rng_state.device());
  const int64_t* data = rng_state.const_data_ptr<int64_t>();
  StateSource source;
  source.seed = data;
  source.offset = data + rng_state.stride(0);
  C10_CUDA_CHECK(launch(task, source, c10::cuda::getCurrentCUDAStream(rng_state.get_device())));
}

void fold_in(const at::Tensor& rng_states, const at::Tensor& numbers, const at::Tensor& folded) {
  const c10::cuda::CUDAGuard guard(folded.device());
  C10_CUDA_CHECK(launch_fold_in(
      rng_states.const_data_ptr<int64_t>(), numbers.const_data_ptr<int64_t>(), numbers.numel(),
      folded.mutable_data_ptr<int64_t>(), c10::cuda::getCurrentCUDAStream(folded.get_device())));
}

at::Tensor draw_and_apply(
    const Task& task,
    const at::Tensor& out,
    const std::optional<at::Generator>& generator,
    bool want_state) {
  const c10::cuda::CUDAGuard guard(out.device());
  StateSource source = draw_source(generator, out.get_device(), 1);
  at::Tensor state;
  if (want_state) {
    state = empty({2}, at::kLong, out.device());
    source.written = state.mutable_data_ptr<int64_t>();
  }
  C10_CUDA_CHECK(launch(task, source, c10::cuda::getCurrentCUDAStream(out.get_device())));
  return state;
}

}  // namespace

const Backend& backend() {
  static constexpr Backend kBackend{empty, draw, reserve, apply, draw_and_apply, fold_in};
  return kBackend;
}

}  // namespace dropout::cuda
