// One application of dropout to memory: what the kernels of every device are given, but for the
// state, which each device holds in a form of its own.
#pragma once

#include "core/coefficients.h"
#include "core/index_map.h"
#include "core/mask.h"
#include "core/scalar.h"

namespace dropout {

// Tensors of the same map that lie apart in memory, each with a state of its own. Steps from one
// to the next are in elements, for `state` in int64.
struct Samples {
  int64_t count = 1;
  int64_t in = 0;
  int64_t out = 0;
  int64_t state = 0;
};

struct Task {
  const void* in;  // kBool: `out`, for the mask itself is written and nothing read
  void* out;
  ScalarType dtype;
  Threshold threshold;
  Coefficients coefficients;
  Samples samples;  // `in`, `out` and `map` are those of the first
  IndexMap map;     // normalized and not empty
};

}  // namespace dropout
