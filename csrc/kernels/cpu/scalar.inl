// Portable path: plain C++, any architecture.

struct Isa {
  struct Lanes {
    using Vector = uint64_t;
    static Vector broadcast(uint64_t x) { return x; }
    static Vector multiply(Vector a, Vector b) {
      return static_cast<uint64_t>(static_cast<uint32_t>(a)) * static_cast<uint32_t>(b);
    }
    static Vector high(Vector a) { return a >> 32; }
    static Vector exclusive_or(Vector a, Vector b) { return a ^ b; }
    static Vector exclusive_or(Vector a, Vector b, Vector c) { return a ^ b ^ c; }
  };

  static constexpr int kBlocks = 1;
  static constexpr int kBatch = 1;

  static uint64_t block_low(uint32_t first) { return first; }

  template <class Words>
  static Comparison64 compare(const Words& words, int v, uint32_t threshold_hi) {
    const Words4 narrow{
        {static_cast<uint32_t>(words.w0[v]), static_cast<uint32_t>(words.w1[v]),
         static_cast<uint32_t>(words.w2[v]), static_cast<uint32_t>(words.w3[v])}};
    const FirstComparison first = compare_first(narrow, {uint64_t{threshold_hi} << 16});
    return {first.keep, first.tie};
  }
};

template <class T>
struct Vector {
  static constexpr int kLanes = 8;

  template <bool kStream, class Rule>
  static void apply(const T* x, T* y, uint64_t bits, const Rule& rule) {
    for (int j = 0; j < kLanes; ++j) {
      y[j] = apply_rule(x[j], ((bits >> j) & 1) != 0, rule);
    }
  }

  static void fence() {}
};

// Vectors of the compiler's, which are registers where the machine has some.
template <class C>
struct Wide {
  using Integer = std::conditional_t<sizeof(C) == 4, int32_t, int64_t>;
  typedef C Vector __attribute__((vector_size(16)));
  typedef Integer Integers __attribute__((vector_size(16)));
  static constexpr int kLanes = 16 / sizeof(C);

  static Vector multiply_add(Vector a, Vector b, Vector c) { return a * b + c; }
  static Vector maximum(Vector a, Vector b) { return a > b ? a : b; }
  static Vector keep(uint64_t bits, Vector x) {
    Vector result{};
    for (int lane = 0; lane < kLanes; ++lane) {
      result[lane] = (bits >> lane & 1) != 0 ? x[lane] : C{0};
    }
    return result;
  }
};
