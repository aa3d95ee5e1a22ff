// How the elements of a tensor are laid out, in memory and in the mask.
//
// An element at coordinates (i_0 ... i_n-1) is read at sum i_d * in_d, written at
// sum i_d * out_d, and has mask index base + sum i_d * mask_d. Plain dropout: mask strides of the
// row-major shape. A decision shared along a dimension: mask stride 0 there. A shard: base and
// mask strides of the global shape.
#pragma once

#include <cstdint>
#include <utility>

namespace dropout {

constexpr int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

struct Dim {
  int64_t size;
  int64_t in;
  int64_t out;
  int64_t mask;
};

struct IndexMap {
  // Enough for any output that fits a 64-bit address space in practice: its dimensions of size 1
  // are gone and it does not overlap itself, so that 2^ndim elements exist.
  static constexpr int kMaxDims = 40;

  int ndim = 0;
  uint64_t base = 0;
  Dim dims[kMaxDims];  // dims[0] is the innermost, the one with the smallest output stride

  // Appends a dimension; false if there is no room. Sizes of 1 carry no information.
  bool push(Dim dim) {
    if (dim.size == 1) {
      return true;
    }
    if (ndim == kMaxDims) {
      return false;
    }
    dims[ndim++] = dim;
    return true;
  }

  int64_t numel() const {
    int64_t n = 1;
    for (int d = 0; d < ndim; ++d) {
      n *= dims[d].size;
    }
    return n;
  }

  // Sorts the dimensions into memory order and merges those that walk as one in all three
  // strides; at least one dimension remains.
  void normalize() {
    for (int d = 1; d < ndim; ++d) {
      for (int e = d; e > 0 && before(dims[e], dims[e - 1]); --e) {
        std::swap(dims[e], dims[e - 1]);
      }
    }
    int merged = 0;
    for (int d = 1; d < ndim; ++d) {
      if (continues(dims[merged], dims[d])) {
        dims[merged].size *= dims[d].size;
      } else {
        dims[++merged] = dims[d];
      }
    }
    if (ndim == 0) {
      dims[0] = {1, 1, 1, 1};
    }
    ndim = merged + 1;
  }

  // The dimension along which consecutive elements have consecutive mask indices; -1 if none.
  int run_dim() const {
    for (int d = 0; d < ndim; ++d) {
      if (dims[d].mask == 1) {
        return d;
      }
    }
    return -1;
  }

 private:
  static bool before(const Dim& a, const Dim& b) {
    return a.out != b.out ? a.out < b.out : a.in < b.in;
  }

  static bool continues(const Dim& inner, const Dim& outer) {
    return outer.in == inner.in * inner.size && outer.out == inner.out * inner.size &&
           outer.mask == inner.mask * inner.size;
  }
};

}  // namespace dropout
