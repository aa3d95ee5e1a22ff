// The CUDA backend of a build without CUDA.
#include <c10/util/Exception.h>

#include "torch/backend.h"

namespace dropout::cuda {

namespace {

[[noreturn]] void refuse() {
  TORCH_CHECK(
      false,
      "dropout_ext was built without CUDA, but got a CUDA tensor. Rebuild it where a CUDA "
      "toolkit and a CUDA build of torch are installed: "
      "FORCE_CUDA=1 pip install --no-build-isolation --force-reinstall --no-deps .");
}

}  // namespace

void draw(const at::Tensor&, const std::optional<at::Generator>&) {
  refuse();
}

void apply(const Task&, const at::Tensor&) {
  refuse();
}

at::Tensor draw_and_apply(
    const Task&, const at::Tensor&, const std::optional<at::Generator>&, bool) {
  refuse();
}

void fold_in(const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  refuse();
}

at::Tensor empty(at::IntArrayRef, at::ScalarType, at::Device) {
  refuse();
}

void reserve(const std::optional<at::Generator>&, at::Device) {
  refuse();
}

}  // namespace dropout::cuda
