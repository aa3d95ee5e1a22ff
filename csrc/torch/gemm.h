// Matrix products of blocks in the caches, by torch's own kernels.
#pragma once

#include <cstdint>

namespace dropout {

// Row-major, rows `pitch` apart.
template <class C>
struct Matrix {
  C* data;
  int64_t pitch;
};

struct ProductSize {
  int64_t rows;
  int64_t columns;
  int64_t depth;
};

// out = a b, or += where `add`. No pitch is larger than kMaxPitch.
template <class C>
void multiply(Matrix<C> a, Matrix<C> b, Matrix<C> out, ProductSize size, bool add);

constexpr int64_t kMaxPitch = INT32_MAX;

// Products of this thread are computed by it alone for as long as this lives, so that they do not
// depend on the number of threads.
class SingleThreadedProducts {
 public:
  SingleThreadedProducts();
  ~SingleThreadedProducts();
  SingleThreadedProducts(const SingleThreadedProducts&) = delete;
  SingleThreadedProducts& operator=(const SingleThreadedProducts&) = delete;

 private:
  int before_;
};

}  // namespace dropout
