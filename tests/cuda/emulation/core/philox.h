// core/philox.h for the emulation: the same generator, which also counts its calls.
#pragma once

#include <type_traits>

#include "counts.h"

#define Philox UncountedPhilox
#include_next "core/philox.h"
#undef Philox

namespace dropout {

struct Philox : UncountedPhilox {
  static constexpr Words4 generate(Words4 counter, uint32_t key0, uint32_t key1) {
    if (!std::is_constant_evaluated()) {
      ++emulation::calls();
    }
    return UncountedPhilox::generate(counter, key0, key1);
  }
};

}  // namespace dropout
