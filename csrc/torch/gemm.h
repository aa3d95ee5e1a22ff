// Matrix products of blocks in the caches, by torch's BLAS.
#pragma once

#include <cstdint>

namespace dropout {

// Rows or columns of a matrix that is row-major in memory, rows `pitch` apart.
template <class C>
struct Matrix {
  const C* data;
  int64_t pitch;
  bool transposed = false;

  Matrix t() const { return {data, pitch, !transposed}; }
};

template <class C>
struct Product {
  C factor;
  Matrix<C> a;  // rows x depth
  Matrix<C> b;  // depth x columns
  bool add;     // to what is there

  // Writes a matrix whose rows are `pitch` apart. No pitch is larger than kMaxPitch.
  void into(C* out, int64_t pitch, int64_t rows, int64_t columns, int64_t depth) const;
};

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
