#include "torch/gemm.h"

#include <ATen/Context.h>
#include <ATen/native/CPUBlas.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <type_traits>
#include <vector>

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
  return at::from_blob(
      matrix.data, {rows, columns}, {matrix.pitch, 1},
      at::TensorOptions().dtype(c10::CppTypeToScalarType<C>::value));
}

#if defined(CPUBLAS_BRGEMM_F32F32F32)
using at::native::cpublas::brgemm;

// oneDNN's products, with AVX-512 on any vendor's processor: is this one? Torch says by an error.
bool probe_brgemm() {
  constexpr int64_t n = 16;
  const std::vector<float> zeros(n * n);
  std::vector<float> out(n * n);
  try {
    brgemm(n, n, n, n, n, n, false, zeros.data(), zeros.data(), out.data());
  } catch (const c10::Error&) {
    return false;
  }
  return true;
}

// It compiles a kernel for each size and keeps it: sizes of any number are not for it.
bool takes_brgemm(ProductSize size) {
  constexpr int64_t kStep = 8;
  if (size.rows % kStep != 0 || size.columns % kStep != 0 || size.depth % kStep != 0 ||
      !at::globalContext().userEnabledMkldnn()) {
    return false;
  }
  static const bool is_there = probe_brgemm();
  return is_there;
}
#endif

}  // namespace

template <class C>
void multiply(Matrix<C> a, Matrix<C> b, Matrix<C> out, ProductSize size, bool add) {
  const auto [rows, columns, depth] = size;
  if (rows == 0 || columns == 0 || depth == 0) {
    for (int64_t r = 0; !add && r < rows; ++r) {
      std::fill_n(out.data + r * out.pitch, columns, C{0});
    }
    return;
  }
#if defined(CPUBLAS_BRGEMM_F32F32F32)
  if constexpr (std::is_same_v<C, float>) {
    if (takes_brgemm(size)) {
      return brgemm(
          rows, columns, depth, a.pitch, b.pitch, out.pitch, add, a.data, b.data, out.data);
    }
  }
#endif
  if (blas<C>() == nullptr) {
    at::Tensor result = view(out, rows, columns);
    at::addmm_out(result, result, view(a, rows, depth), view(b, depth, columns), add ? 1 : 0);
    return;
  }
  // A row-major matrix is the transpose of a column-major one, and (AB)^T = B^T A^T.
  const int m = static_cast<int>(columns);
  const int n = static_cast<int>(rows);
  const int k = static_cast<int>(depth);
  const int ld_a = static_cast<int>(a.pitch);
  const int ld_b = static_cast<int>(b.pitch);
  const int ld_out = static_cast<int>(out.pitch);
  const C alpha = 1;
  const C beta = add ? 1 : 0;
  blas<C>()("N", "N", &m, &n, &k, &alpha, b.data, &ld_b, a.data, &ld_a, &beta, out.data, &ld_out);
}

template void multiply(Matrix<float>, Matrix<float>, Matrix<float>, ProductSize, bool);
template void multiply(Matrix<double>, Matrix<double>, Matrix<double>, ProductSize, bool);

SingleThreadedProducts::SingleThreadedProducts() : before_(set_threads(1)) {}

SingleThreadedProducts::~SingleThreadedProducts() {
  set_threads(before_);
}

}  // namespace dropout
