// The CUDA kernels and their launcher as a host library, for ctypes.
#include <cstdint>
#include <utility>

#include "kernels/cuda/launch.cu"

using dropout::Coefficients;
using dropout::Dim;
using dropout::RngState;
using dropout::ScalarType;
using dropout::Threshold;
using dropout::cuda::StateSource;

namespace {

// state: {seed, offset} as int64. In graph capture the seed and what the offset starts from are
// read through pointers, and the generator's offset is four times that of the mask.
StateSource make_source(const int64_t* state, int64_t intragraph, int capture, int64_t* written) {
  StateSource source;
  source.written = written;
  if (capture != 0) {
    source.seed = state;
    source.offset = state + 1;
    source.value.offset = static_cast<uint64_t>(intragraph);
    source.shift = 2;
  } else {
    source.value = RngState{static_cast<uint64_t>(state[0]), static_cast<uint64_t>(state[1])};
  }
  return source;
}

}  // namespace

extern "C" {

// What the kernels did since this was last called; from now on, `mode` holds for them.
void emulate_counts(int mode, emulation::Counts* counts) {
  *counts = std::exchange(emulation::counts, {});
  emulation::mode = static_cast<emulation::Mode>(mode);
}

// samples: how many, and the steps between their inputs, outputs and states.
// dims: ndim rows of (size, input stride, output stride, mask stride), outermost first.
int emulate(
    const void* in,
    void* out,
    int dtype,
    int ndim,
    const int64_t* dims,
    uint64_t base,
    double p,
    double scale,
    double shift,
    double fill,
    const int64_t* state,
    int64_t intragraph,
    int capture,
    int64_t* written,
    const int64_t* samples) {
  dropout::Task task{
      in != nullptr ? in : out,
      out,
      static_cast<ScalarType>(dtype),
      Threshold::from_probability(p),
      Coefficients{scale, shift, fill},
      dropout::Samples{samples[0], samples[1], samples[2], samples[3]},
      {}};
  task.map.base = base;
  for (int d = ndim - 1; d >= 0; --d) {
    const int64_t* dim = dims + 4 * d;
    task.map.push(Dim{dim[0], dim[1], dim[2], dim[3]});
  }
  task.map.normalize();
  StateSource source = make_source(state, intragraph, capture, written);
  if (samples[0] > 1) {  // as with an rng_state that is given: all are read from device memory
    source = {state, state + 1};
  }
  return dropout::cuda::launch(task, source, nullptr);
}

int emulate_write_states(
    const int64_t* state, int64_t intragraph, int capture, int64_t count, int64_t* written) {
  return dropout::cuda::launch_write_states(
      make_source(state, intragraph, capture, written), count, nullptr);
}

int emulate_fold_in(
    const int64_t* states, const int64_t* numbers, int64_t count, int64_t* folded) {
  return dropout::cuda::launch_fold_in(states, numbers, count, folded, nullptr);
}
}
