// AVX-512 F, BW, DQ and VL.

struct Isa {
  struct Lanes {
    using Vector = __m512i;
    static Vector broadcast(uint64_t x) { return _mm512_set1_epi64(static_cast<int64_t>(x)); }
    static Vector multiply(Vector a, Vector b) { return _mm512_mul_epu32(a, b); }
    static Vector high(Vector a) { return _mm512_srli_epi64(a, 32); }
    static Vector exclusive_or(Vector a, Vector b) { return _mm512_xor_si512(a, b); }
    static Vector exclusive_or(Vector a, Vector b, Vector c) {
      return _mm512_ternarylogic_epi64(a, b, c, 0x96);
    }
  };

  static constexpr int kBlocks = 8;
  static constexpr int kBatch = 4;

  // The unpacks of `compare` take the lanes in turn from the even and the odd ones.
  static __m512i block_low(uint32_t first) {
    return _mm512_or_si512(Lanes::broadcast(first), _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7));
  }

  template <class Words>
  static Comparison64 compare(const Words& words, int v, uint32_t threshold_hi) {
    const __m512i first_half =
        _mm512_mask_blend_epi32(0xaaaa, words.w0[v], _mm512_slli_epi64(words.w1[v], 32));
    const __m512i second_half =
        _mm512_mask_blend_epi32(0xaaaa, words.w2[v], _mm512_slli_epi64(words.w3[v], 32));
    const __m512i low = _mm512_unpacklo_epi64(first_half, second_half);   // blocks 0 ... 3
    const __m512i high = _mm512_unpackhi_epi64(first_half, second_half);  // blocks 4 ... 7
    const __m512i hi = _mm512_set1_epi16(static_cast<int16_t>(threshold_hi));
    return {
        join(_mm512_cmpge_epu16_mask(low, hi), _mm512_cmpge_epu16_mask(high, hi)),
        join(_mm512_cmpeq_epu16_mask(low, hi), _mm512_cmpeq_epu16_mask(high, hi))};
  }

 private:
  static uint64_t join(__mmask32 low, __mmask32 high) {
    return low | static_cast<uint64_t>(high) << 32;
  }
};

// The kept value of a rule, on sixteen floats or eight doubles.
template <class T>
__m512 kept_value(__m512 x, const Scale<T>& rule) {
  return _mm512_mul_ps(x, _mm512_set1_ps(rule.scale));
}

template <class T>
__m512 kept_value(__m512 x, const ScaleShift<T>& rule) {
  return _mm512_add_ps(_mm512_mul_ps(x, _mm512_set1_ps(rule.scale)), _mm512_set1_ps(rule.shift));
}

inline __m512d kept_value(__m512d x, const Scale<double>& rule) {
  return _mm512_mul_pd(x, _mm512_set1_pd(rule.scale));
}

inline __m512d kept_value(__m512d x, const ScaleShift<double>& rule) {
  return _mm512_add_pd(_mm512_mul_pd(x, _mm512_set1_pd(rule.scale)), _mm512_set1_pd(rule.shift));
}

// The lanes whose bit is set, and what the rule drops the others to.
inline __m512i select(uint64_t bits, __m512i kept, const Scale<float>&) {
  return _mm512_maskz_mov_epi32(static_cast<__mmask16>(bits), kept);
}

inline __m512i select(uint64_t bits, __m512i kept, const ScaleShift<float>& rule) {
  const __m512i fill = _mm512_castps_si512(_mm512_set1_ps(rule.fill));
  return _mm512_mask_mov_epi32(fill, static_cast<__mmask16>(bits), kept);
}

inline __m512i select(uint64_t bits, __m512i kept, const Scale<double>&) {
  return _mm512_maskz_mov_epi64(static_cast<__mmask8>(bits), kept);
}

inline __m512i select(uint64_t bits, __m512i kept, const ScaleShift<double>& rule) {
  const __m512i fill = _mm512_castpd_si512(_mm512_set1_pd(rule.fill));
  return _mm512_mask_mov_epi64(fill, static_cast<__mmask8>(bits), kept);
}

template <class T>
__m512i select(uint64_t bits, __m512i kept, const Scale<T>&) {
  static_assert(sizeof(T) == 2);
  return _mm512_maskz_mov_epi16(static_cast<__mmask32>(bits), kept);
}

template <class T>
__m512i select(uint64_t bits, __m512i kept, const ScaleShift<T>& rule) {
  static_assert(sizeof(T) == 2);
  const __m512i fill = _mm512_set1_epi16(static_cast<int16_t>(rule.fill.bits));
  return _mm512_mask_mov_epi16(fill, static_cast<__mmask32>(bits), kept);
}

struct VectorBase {
  static void fence() { _mm_sfence(); }

 protected:
  template <bool kStream>
  static void store(void* y, __m512i value) {
    if constexpr (kStream) {
      _mm512_stream_si512(static_cast<__m512i*>(y), value);
    } else {
      _mm512_storeu_si512(y, value);
    }
  }
};

template <class T>
struct Vector;

template <>
struct Vector<float> : VectorBase {
  static constexpr int kLanes = 16;

  template <bool kStream, class Rule>
  static void apply(const float* x, float* y, uint64_t bits, const Rule& rule) {
    const __m512i kept = _mm512_castps_si512(kept_value(_mm512_loadu_ps(x), rule));
    store<kStream>(y, select(bits, kept, rule));
  }
};

template <>
struct Vector<BFloat16> : VectorBase {
  static constexpr int kLanes = 32;

  // The odd elements are floats already, but for their low halves; the even ones a shift away.
  template <bool kStream, class Rule>
  static void apply(const BFloat16* x, BFloat16* y, uint64_t bits, const Rule& rule) {
    const __m512i packed = _mm512_loadu_si512(x);
    const __m512i even = kept_rounded(_mm512_slli_epi32(packed, 16), rule);
    const __m512i odd = kept_rounded(_mm512_and_si512(packed, _mm512_set1_epi32(~0xffff)), rule);
    const __m512i both = _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(even, 16), odd);
    store<kStream>(y, select(bits, both, rule));
  }

 private:
  // The upper half is rounded to nearest even. A NaN that was widened from bfloat16 has no bits
  // the rounding could carry from.
  template <class Rule>
  static __m512i kept_rounded(__m512i x, const Rule& rule) {
    const __m512i kept = _mm512_castps_si512(kept_value(_mm512_castsi512_ps(x), rule));
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(kept, 16), _mm512_set1_epi32(1));
    return _mm512_add_epi32(kept, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  }
};

template <>
struct Vector<Float16> : VectorBase {
  static constexpr int kLanes = 32;

  template <bool kStream, class Rule>
  static void apply(const Float16* x, Float16* y, uint64_t bits, const Rule& rule) {
    const __m512i low = _mm512_castsi256_si512(kept(x, rule));
    const __m512i both = _mm512_inserti64x4(low, kept(x + 16, rule), 1);
    store<kStream>(y, select(bits, both, rule));
  }

 private:
  template <class Rule>
  static __m256i kept(const Float16* x, const Rule& rule) {
    const __m512 wide = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
    return _mm512_cvtps_ph(kept_value(wide, rule), _MM_FROUND_TO_NEAREST_INT);
  }
};

template <>
struct Vector<double> : VectorBase {
  static constexpr int kLanes = 8;

  template <bool kStream, class Rule>
  static void apply(const double* x, double* y, uint64_t bits, const Rule& rule) {
    const __m512i kept = _mm512_castpd_si512(kept_value(_mm512_loadu_pd(x), rule));
    store<kStream>(y, select(bits, kept, rule));
  }
};

template <>
struct Vector<bool> : VectorBase {
  static constexpr int kLanes = 64;

  template <bool kStream>
  static void apply(const bool*, bool* y, uint64_t bits, const Mask&) {
    store<kStream>(y, _mm512_maskz_set1_epi8(bits, 1));
  }
};

// See attention.inl.
template <class C>
struct Wide;

template <>
struct Wide<float> {
  using Vector = __m512;
  typedef int32_t Integers __attribute__((vector_size(64)));
  static constexpr int kLanes = 16;

  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  static Vector maximum(Vector a, Vector b) { return _mm512_max_ps(a, b); }
  static Vector keep(uint64_t bits, Vector x) {
    return _mm512_maskz_mov_ps(static_cast<__mmask16>(bits), x);
  }
};

template <>
struct Wide<double> {
  using Vector = __m512d;
  typedef int64_t Integers __attribute__((vector_size(64)));
  static constexpr int kLanes = 8;

  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_pd(a, b, c); }
  static Vector maximum(Vector a, Vector b) { return _mm512_max_pd(a, b); }
  static Vector keep(uint64_t bits, Vector x) {
    return _mm512_maskz_mov_pd(static_cast<__mmask8>(bits), x);
  }
};
