// AVX2 and F16C.

struct Isa {
  struct Lanes {
    using Vector = __m256i;
    static Vector broadcast(uint64_t x) { return _mm256_set1_epi64x(static_cast<int64_t>(x)); }
    static Vector multiply(Vector a, Vector b) { return _mm256_mul_epu32(a, b); }
    static Vector high(Vector a) { return _mm256_srli_epi64(a, 32); }
    static Vector exclusive_or(Vector a, Vector b) { return _mm256_xor_si256(a, b); }
    static Vector exclusive_or(Vector a, Vector b, Vector c) {
      return _mm256_xor_si256(_mm256_xor_si256(a, b), c);
    }
  };

  static constexpr int kBlocks = 4;
  static constexpr int kBatch = 2;

  static __m256i block_low(uint32_t first) {
    return _mm256_or_si256(Lanes::broadcast(first), _mm256_setr_epi64x(0, 1, 2, 3));
  }

  // Each vector of the interleaved words holds two whole blocks in element order: blocks 0 and 2,
  // and blocks 1 and 3; the saturating pack, which takes its operands' halves in turn, puts the
  // bytes of the four into order.
  template <class Words>
  static Comparison64 compare(const Words& words, int v, uint32_t threshold_hi) {
    const __m256i first_half =
        _mm256_blend_epi32(words.w0[v], _mm256_slli_epi64(words.w1[v], 32), 0xaa);
    const __m256i second_half =
        _mm256_blend_epi32(words.w2[v], _mm256_slli_epi64(words.w3[v], 32), 0xaa);
    const __m256i even = _mm256_unpacklo_epi64(first_half, second_half);
    const __m256i odd = _mm256_unpackhi_epi64(first_half, second_half);
    const __m256i hi = _mm256_set1_epi16(static_cast<int16_t>(threshold_hi));
    return {
        gather_bits(not_below(even, hi), not_below(odd, hi)),
        gather_bits(_mm256_cmpeq_epi16(even, hi), _mm256_cmpeq_epi16(odd, hi))};
  }

 private:
  static __m256i not_below(__m256i a, __m256i b) {  // unsigned a >= b
    return _mm256_cmpeq_epi16(_mm256_max_epu16(a, b), a);
  }

  static uint64_t gather_bits(__m256i even, __m256i odd) {
    return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_packs_epi16(even, odd)));
  }
};

// All ones in the lanes whose bit is set.
inline __m256i expand_bits32(uint64_t bits) {
  const __m256i select = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i spread = _mm256_set1_epi32(static_cast<int32_t>(bits));
  return _mm256_cmpeq_epi32(_mm256_and_si256(spread, select), select);
}

inline __m256i expand_bits64(uint64_t bits) {
  const __m256i select = _mm256_setr_epi64x(1, 2, 4, 8);
  const __m256i spread = _mm256_set1_epi64x(static_cast<int64_t>(bits));
  return _mm256_cmpeq_epi64(_mm256_and_si256(spread, select), select);
}

// A rule on eight floats or four doubles; what is dropped is `fill`, which is in the range of
// the element type, widened.
template <class T>
__m256 apply_rule(__m256 x, uint64_t bits, const Scale<T>& rule) {
  const __m256 scaled = _mm256_mul_ps(x, _mm256_set1_ps(rule.scale));
  return _mm256_and_ps(scaled, _mm256_castsi256_ps(expand_bits32(bits)));
}

template <class T>
__m256 apply_rule(__m256 x, uint64_t bits, const ScaleShift<T>& rule) {
  const __m256 scaled = _mm256_mul_ps(x, _mm256_set1_ps(rule.scale));
  const __m256 shifted = _mm256_add_ps(scaled, _mm256_set1_ps(rule.shift));
  return _mm256_blendv_ps(
      _mm256_set1_ps(widen(rule.fill)), shifted, _mm256_castsi256_ps(expand_bits32(bits)));
}

inline __m256d apply_rule(__m256d x, uint64_t bits, const Scale<double>& rule) {
  const __m256d scaled = _mm256_mul_pd(x, _mm256_set1_pd(rule.scale));
  return _mm256_and_pd(scaled, _mm256_castsi256_pd(expand_bits64(bits)));
}

inline __m256d apply_rule(__m256d x, uint64_t bits, const ScaleShift<double>& rule) {
  const __m256d scaled = _mm256_mul_pd(x, _mm256_set1_pd(rule.scale));
  const __m256d shifted = _mm256_add_pd(scaled, _mm256_set1_pd(rule.shift));
  return _mm256_blendv_pd(
      _mm256_set1_pd(rule.fill), shifted, _mm256_castsi256_pd(expand_bits64(bits)));
}

// The upper halves of the lanes rounded to nearest even, as 16 bits each. A NaN that was widened
// from bfloat16 has no bits the rounding could carry from.
inline __m128i round_to_bfloat16(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(
      _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
}

struct VectorBase {
  static constexpr int kLanes = 8;
  static void fence() { _mm_sfence(); }

 protected:
  template <bool kStream>
  static void store(void* y, __m256i value) {
    if constexpr (kStream) {
      _mm256_stream_si256(static_cast<__m256i*>(y), value);
    } else {
      _mm256_storeu_si256(static_cast<__m256i*>(y), value);
    }
  }

  template <bool kStream>
  static void store(void* y, __m128i value) {
    if constexpr (kStream) {
      _mm_stream_si128(static_cast<__m128i*>(y), value);
    } else {
      _mm_storeu_si128(static_cast<__m128i*>(y), value);
    }
  }
};

template <class T>
struct Vector;

template <>
struct Vector<float> : VectorBase {
  template <bool kStream, class Rule>
  static void apply(const float* x, float* y, uint64_t bits, const Rule& rule) {
    store<kStream>(y, _mm256_castps_si256(apply_rule(_mm256_loadu_ps(x), bits, rule)));
  }
};

template <>
struct Vector<BFloat16> : VectorBase {
  template <bool kStream, class Rule>
  static void apply(const BFloat16* x, BFloat16* y, uint64_t bits, const Rule& rule) {
    const __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
    const __m256 wide = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16));
    store<kStream>(y, round_to_bfloat16(apply_rule(wide, bits, rule)));
  }
};

template <>
struct Vector<Float16> : VectorBase {
  template <bool kStream, class Rule>
  static void apply(const Float16* x, Float16* y, uint64_t bits, const Rule& rule) {
    const __m256 wide = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
    store<kStream>(y, _mm256_cvtps_ph(apply_rule(wide, bits, rule), _MM_FROUND_TO_NEAREST_INT));
  }
};

template <>
struct Vector<double> : VectorBase {
  static constexpr int kLanes = 4;

  template <bool kStream, class Rule>
  static void apply(const double* x, double* y, uint64_t bits, const Rule& rule) {
    store<kStream>(y, _mm256_castpd_si256(apply_rule(_mm256_loadu_pd(x), bits, rule)));
  }
};

template <>
struct Vector<bool> : VectorBase {
  static constexpr int kLanes = 32;

  template <bool kStream>
  static void apply(const bool*, bool* y, uint64_t bits, const Mask&) {
    const __m256i byte_of_lane =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit_of_lane = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
    const __m256i spread =
        _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int32_t>(bits)), byte_of_lane);
    const __m256i keep = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit_of_lane), bit_of_lane);
    store<kStream>(y, _mm256_and_si256(keep, _mm256_set1_epi8(1)));
  }
};

// See attention.inl.
template <class C>
struct Wide;

template <>
struct Wide<float> {
  using Vector = __m256;
  typedef int32_t Integers __attribute__((vector_size(32)));
  static constexpr int kLanes = 8;

  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
  static Vector maximum(Vector a, Vector b) { return _mm256_max_ps(a, b); }
  static Vector keep(uint64_t bits, Vector x) {
    return _mm256_and_ps(x, _mm256_castsi256_ps(expand_bits32(bits)));
  }
};

template <>
struct Wide<double> {
  using Vector = __m256d;
  typedef int64_t Integers __attribute__((vector_size(32)));
  static constexpr int kLanes = 4;

  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_pd(a, b, c); }
  static Vector maximum(Vector a, Vector b) { return _mm256_max_pd(a, b); }
  static Vector keep(uint64_t bits, Vector x) {
    return _mm256_and_pd(x, _mm256_castsi256_pd(expand_bits64(bits)));
  }
};
