// Softmax with dropout of blocks of scores, for any instruction set: included inside its
// namespace and target region after body.inl and the definition of `Wide<C>`, which offers
//   Vector, kLanes                      as many C as a register holds
//   Integers                            as many integers of their size
//   multiply_add(a, b, c)               a * b + c
//   maximum(a, b)                       b where a is NaN
//   keep(bits, x)                       0 in the lanes whose bit is not set

template <class C>
inline typename Wide<C>::Vector load(const C* x) {
  typename Wide<C>::Vector result;
  __builtin_memcpy(&result, x, sizeof(result));
  return result;
}

template <class C>
inline void store(C* x, typename Wide<C>::Vector value) {
  __builtin_memcpy(x, &value, sizeof(value));
}

template <class C>
inline typename Wide<C>::Vector broadcast(C x) {
  return x - typename Wide<C>::Vector{};
}

// What the exponential is made of. exp(x) = 2^n exp(r) with n = round(x / ln 2) and
// |r| <= ln(2) / 2, where ln 2 is the sum of two numbers of which n times the first is exact, and
// exp(r) the series up to r^kDegree. Adding `round` leaves n in the lowest bits.
template <class C>
struct Exponential;

template <>
struct Exponential<float> {
  static constexpr int kDegree = 7;
  static constexpr int kMantissa = 23;
  static constexpr float kRound = 0x1.8p23f + 127;  // and the bias of the exponent
  static constexpr float kLn2High = 0x1.62e4p-1f;
  static constexpr float kLn2Low = 0x1.7f7d1cp-20f;
  static constexpr float kLeast = -87.0f;  // below, the result is taken for 0
};

template <>
struct Exponential<double> {
  static constexpr int kDegree = 13;
  static constexpr int kMantissa = 52;
  static constexpr double kRound = 0x1.8p52 + 1023;
  static constexpr double kLn2High = 0x1.62e42fefa38p-1;
  static constexpr double kLn2Low = 0x1.ef35793c7673p-45;
  static constexpr double kLeast = -708.0;
};

constexpr double inverse_factorial(int k) {
  return k == 0 ? 1.0 : inverse_factorial(k - 1) / k;
}

// The sum of r^(k - kTerm) / k! from kTerm on.
template <class C, int kTerm = 0>
inline __attribute__((always_inline)) typename Wide<C>::Vector exponential_series(
    typename Wide<C>::Vector r) {
  const auto term = broadcast(static_cast<C>(inverse_factorial(kTerm)));
  if constexpr (kTerm == Exponential<C>::kDegree) {
    return term;
  } else {
    return Wide<C>::multiply_add(exponential_series<C, kTerm + 1>(r), r, term);
  }
}

// For x up to about ln 2; NaN for NaN.
template <class C>
inline __attribute__((always_inline)) typename Wide<C>::Vector exponential(
    typename Wide<C>::Vector x) {
  using Constants = Exponential<C>;
  using Vector = typename Wide<C>::Vector;
  using Integers = typename Wide<C>::Integers;
  constexpr C kLog2E = static_cast<C>(1.4426950408889634);
  const Vector shifted =
      Wide<C>::multiply_add(x, broadcast(kLog2E), broadcast(Constants::kRound));
  const Vector n = shifted - broadcast(Constants::kRound);
  Vector r = Wide<C>::multiply_add(n, broadcast(-Constants::kLn2High), x);
  r = Wide<C>::multiply_add(n, broadcast(-Constants::kLn2Low), r);
  const Vector power =
      reinterpret_cast<Vector>(reinterpret_cast<Integers>(shifted) << Constants::kMantissa);
  const Vector result = exponential_series<C>(r) * power;
  return x < broadcast(Constants::kLeast) ? Vector{} : result;
}

// Calls `each` with the row, the number of its keys that are visible, and its keep words. Scores
// are minus infinity from there to the end of the vector.
template <class C, class Each>
inline __attribute__((always_inline)) void for_each_row(const ScoreBlock<C>& block, Each each) {
  constexpr int64_t kRows = 16;  // whose keep words are made together
  constexpr int64_t kWords = kKeyBlock / kWord;
  uint64_t raw[kRows * (kWords + 1)];
  uint64_t words[kRows * kWords];
  const int64_t per_row = divide_up(block.columns, kWord);
  const bool keeps_all = block.threshold.keeps_all();
  KeepBits bits(block.state, block.threshold);
  std::fill_n(words, kRows * kWords, ~uint64_t{0});
  for (int64_t begin = 0; begin < block.rows; begin += kRows) {
    const int64_t rows = std::min(kRows, block.rows - begin);
    if (!keeps_all) {
      const uint64_t first = block.first + static_cast<uint64_t>(begin * block.mask_stride);
      bits.fill_runs(first, block.mask_stride, rows, block.columns, raw, words);
    }
    for (int64_t k = 0; k < rows; ++k) {
      const int64_t row = begin + k;
      const int64_t n = std::min(block.columns, std::max<int64_t>(0, block.visible + row));
      C* const scores = block.scores + row * kPitch;
      std::fill(
          scores + n, scores + divide_up(n, Wide<C>::kLanes) * Wide<C>::kLanes,
          -std::numeric_limits<C>::infinity());
      each(row, n, scores, words + k * per_row);
    }
  }
}

// Calls `each` with the first of every kLanes keys among n, and their keep bits.
template <class C, class Each>
inline __attribute__((always_inline)) void for_each_vector(
    int64_t n, const uint64_t* words, Each each) {
  for (int64_t k = 0; k < n; k += kWord) {
    const uint64_t keep = words[k / kWord];
    const int64_t end = std::min(kWord, n - k);
    for (int64_t j = 0; j < end; j += Wide<C>::kLanes) {
      each(k + j, keep >> j);
    }
  }
}

template <class C>
inline C sum_of(typename Wide<C>::Vector x) {
  C sum = 0;
  for (int lane = 0; lane < Wide<C>::kLanes; ++lane) {
    sum += x[lane];
  }
  return sum;
}

template <class C>
C largest(const C* x, int64_t n) {
  auto largest = broadcast(-std::numeric_limits<C>::infinity());
  for (int64_t j = 0; j < n; j += Wide<C>::kLanes) {
    largest = Wide<C>::maximum(load(x + j), largest);
  }
  C result = largest[0];
  for (int lane = 1; lane < Wide<C>::kLanes; ++lane) {
    result = std::max<C>(result, largest[lane]);
  }
  return result;
}

template <class C>
void softmax_dropout(const ScoreBlock<C>& block, const RunningSoftmax<C>& running) {
  constexpr C kNothing = -std::numeric_limits<C>::infinity();
  for_each_row(block, [&](int64_t row, int64_t n, C* scores, const uint64_t* words) {
    const C before = running.max[row];
    const C max = std::max(before, largest(scores, n));
    running.max[row] = max;
    // Relative to minus infinity, minus infinity would be NaN.
    const auto relative = broadcast(max == kNothing ? C{0} : max);
    auto sum = broadcast(C{0});
    for_each_vector<C>(n, words, [&](int64_t j, uint64_t keep) {
      const auto weight = exponential<C>(load(scores + j) - relative);
      sum += weight;
      store(scores + j, Wide<C>::keep(keep, weight));
    });
    std::fill(scores + n, scores + padded(block.columns), C{0});
    const C rescale = before == max ? C{1} : std::exp(before - max);
    running.rescale[row] = rescale;
    running.sum[row] = running.sum[row] * rescale + sum_of<C>(sum);
  });
}

template <class C>
void softmax_dropout_backward(
    const ScoreBlock<C>& block, C* gradient, const C* softmax, const C* row_dot) {
  for_each_row(block, [&](int64_t row, int64_t n, C* scores, const uint64_t* words) {
    C* const slope = gradient + row * kPitch;
    const auto largest = broadcast(softmax[2 * row]);
    const auto inverse = broadcast(softmax[2 * row + 1]);
    const auto dot = broadcast(row_dot[row]);
    for_each_vector<C>(n, words, [&](int64_t j, uint64_t keep) {
      const auto weight = exponential<C>(load(scores + j) - largest) * inverse;
      store(scores + j, Wide<C>::keep(keep, weight));
      store(slope + j, weight * (Wide<C>::keep(keep, load(slope + j)) - dot));
    });
    std::fill(scores + n, scores + padded(block.columns), C{0});
    std::fill(slope + n, slope + padded(block.columns), C{0});
  });
}

constexpr SoftmaxTypes kSoftmax{
    Softmax<float>{softmax_dropout<float>, softmax_dropout_backward<float>},
    Softmax<double>{softmax_dropout<double>, softmax_dropout_backward<double>}};
