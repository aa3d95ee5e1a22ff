// The draw as it stands in compiled graphs.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>
#include <c10/util/OptionalArrayRef.h>

#include <optional>

namespace dropout::traced {

// The number under which `draw` finds this generator again, in this process. It is kept for the
// rest of the process, as graphs that name it may be.
int64_t register_generator(const at::Generator& generator);

at::Tensor draw(
    const at::Tensor& input,
    at::OptionalSymIntArrayRef batch,
    std::optional<int64_t> generator,
    const std::optional<at::Tensor>& after);

}  // namespace dropout::traced
