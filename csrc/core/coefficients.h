// The factor that keeps the expectation, and the affine map that keeps mean and variance.
#pragma once

#include <cmath>

#include "core/mask.h"

namespace dropout {

// kept: x * scale + shift; dropped: fill.
struct Coefficients {
  double scale;
  double shift = 0.0;
  double fill = 0.0;

  bool shifts() const { return shift != 0.0 || fill != 0.0; }
};

// Alpha dropout (Klambauer et al., "Self-normalizing neural networks", 2017): what is dropped is
// set to alpha' = -lambda * alpha, the limit of SELU at minus infinity; then all is mapped by
// a x + b so that mean 0 and variance 1 are kept:
//   a = 1 / sqrt(q (1 + p alpha'^2)), b = -a p alpha', with p = 1 - q the probability to drop.
inline Coefficients alpha_coefficients(Threshold threshold) {
  constexpr double kAlpha = -1.7580993408473766;
  if (threshold.drops_all()) {
    return {0.0};
  }
  if (threshold.keeps_all()) {
    return {1.0};
  }
  const double p = threshold.probability();
  const double a = 1.0 / std::sqrt((1.0 - p) * (1.0 + p * kAlpha * kAlpha));
  const double b = -a * p * kAlpha;
  return {a, b, a * kAlpha + b};
}

}  // namespace dropout
