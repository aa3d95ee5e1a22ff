#include "torch/gemm.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>

#include <type_traits>

// The BLAS that libtorch_cpu holds or is linked with; null where it has none by these names.
#if defined(__linux__)
#define DROPOUT_WEAK __attribute__((weak))
extern "C" {
DROPOUT_WEAK void sgemm_(
    const char*,
    const char*,
    const int*,
    const int*,
    const int*,
    const float*,
    const float*,
    const int*,
    const float*,
    const int*,
    const float*,
    float*,
    const int*);
DROPOUT_WEAK void dgemm_(
    const char*,
    const char*,
    const int*,
    const int*,
    const int*,
    const double*,
    const double*,
    const int*,
    const double*,
    const int*,
    const double*,
    double*,
    const int*);
DROPOUT_WEAK int MKL_Set_Num_Threads_Local(int);
}
#endif

namespace dropout {
namespace {

#if defined(__linux__)
template <class C>
auto blas() {
  if constexpr (std::is_same_v<C, float>) {
    return sgemm_;
  } else {
    return dgemm_;
  }
}

int set_threads(int count) {
  return MKL_Set_Num_Threads_Local != nullptr ? MKL_Set_Num_Threads_Local(count) : 0;
}
#else
template <class C>
auto blas() {
  using Gemm = void (*)(
      const char*, const char*, const int*, const int*, const int*, const C*, const C*,
      const int*, const C*, const int*, const C*, C*, const int*);
  return Gemm{nullptr};
}

int set_threads(int) {
  return 0;
}
#endif

template <class C>
at::Tensor view(const Matrix<C>& matrix, int64_t rows, int64_t columns) {
  const int64_t by_row = matrix.transposed ? 1 : matrix.pitch;
  const int64_t by_column = matrix.transposed ? matrix.pitch : 1;
  return at::from_blob(
      const_cast<C*>(matrix.data), {rows, columns}, {by_row, by_column},
      at::TensorOptions().dtype(c10::CppTypeToScalarType<C>::value));
}

}  // namespace

template <class C>
void Product<C>::into(C* out, int64_t pitch, int64_t rows, int64_t columns, int64_t depth) const {
  if (blas<C>() == nullptr) {
    at::Tensor result = view(Matrix<C>{out, pitch}, rows, columns);
    at::addmm_out(
        result, result, view(a, rows, depth), view(b, depth, columns), add ? 1 : 0, factor);
    return;
  }
  // A row-major matrix is the transpose of a column-major one, and (AB)^T = B^T A^T.
  const char* const transpose_a = a.transposed ? "T" : "N";
  const char* const transpose_b = b.transposed ? "T" : "N";
  const int m = static_cast<int>(columns);
  const int n = static_cast<int>(rows);
  const int k = static_cast<int>(depth);
  const int ld_a = static_cast<int>(a.pitch);
  const int ld_b = static_cast<int>(b.pitch);
  const int ld_out = static_cast<int>(pitch);
  const C beta = add ? 1 : 0;
  blas<C>()(
      transpose_b, transpose_a, &m, &n, &k, &factor, b.data, &ld_b, a.data, &ld_a, &beta, out,
      &ld_out);
}

template struct Product<float>;
template struct Product<double>;

SingleThreadedProducts::SingleThreadedProducts() : before_(set_threads(1)) {}

SingleThreadedProducts::~SingleThreadedProducts() {
  set_threads(before_);
}

}  // namespace dropout
