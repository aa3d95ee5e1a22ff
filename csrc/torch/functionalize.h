// What torch.func.functionalize and the compilers make of the in-place operator: the pure one,
// whose result takes the place of the input.
#pragma once

#include "torch/ops.h"

namespace dropout::functionalize {

at::Tensor& dropout_(
    at::Tensor& input,
    double p,
    const at::Tensor& rng_state,
    at::OptionalSymIntArrayRef mask_strides,
    c10::SymInt mask_base);

}  // namespace dropout::functionalize
