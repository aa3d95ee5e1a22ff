// The CUDA backend of a build without CUDA.
#include <c10/util/Exception.h>

#include "torch/backend.h"

namespace dropout::cuda {

void check_built() {
  TORCH_CHECK(
      false,
      "dropout_ext was built without CUDA, but got a CUDA tensor. Rebuild it where a CUDA "
      "toolkit and a CUDA build of torch are installed: "
      "FORCE_CUDA=1 pip install --no-build-isolation --force-reinstall --no-deps .");
}

void draw(const at::Tensor&, const std::optional<at::Generator>&) {
  check_built();
}

void apply(const Task&, const at::Tensor&) {
  check_built();
}

at::Tensor draw_and_apply(
    const Task&, const at::Tensor&, const std::optional<at::Generator>&, bool) {
  check_built();
  return {};
}

}  // namespace dropout::cuda
