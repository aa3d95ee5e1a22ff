// The CUDA backend of a build without CUDA.
#include <c10/util/Exception.h>

#include "torch/backend.h"

namespace dropout::cuda {

const Backend& backend() {
  TORCH_CHECK(
      false,
      "dropout_ext was built without CUDA, but got a CUDA tensor. Rebuild it where a CUDA "
      "toolkit and a CUDA build of torch are installed: "
      "FORCE_CUDA=1 pip install --no-build-isolation --force-reinstall --no-deps .");
}

}  // namespace dropout::cuda
