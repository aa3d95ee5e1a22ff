// The loops of the CPU kernels, compiled once per instruction set: included inside the set's
// namespace and target region, after the definitions of
//   KeepWords     see keep_words.inl
//   Vector<T>     kLanes, and apply<kStream>(x, y, bits, rule) on that many elements

constexpr uint64_t low_bits(int64_t n) {
  return n >= kWord ? ~uint64_t{0} : (uint64_t{1} << n) - 1;
}

// Keep words of arbitrary stretches of mask indices. Remembers the last word, as short rows
// often continue in it.
class KeepBits {
 public:
  KeepBits(RngState state, Threshold threshold) : words_(state, threshold) {}

  // Bit k of the result: is mask index first + k kept? n <= kWord bits are valid.
  uint64_t take(uint64_t first, int64_t n) {
    const uint64_t group = first / kWord;
    const int shift = static_cast<int>(first % kWord);
    uint64_t bits = word(group) >> shift;
    if (shift + n > kWord) {
      bits |= word(group + 1) << (kWord - shift);
    }
    return bits;
  }

  // `take` of n bits from indices that are `stride` apart.
  uint64_t take_strided(uint64_t first, int64_t n, int64_t stride) {
    if (stride == 1) {
      return take(first, n);
    }
    if (stride == 0) {
      return (take(first, 1) & 1) != 0 ? low_bits(n) : 0;
    }
    uint64_t bits = 0;
    for (int64_t k = 0; k < n; ++k) {
      bits |= (take(first + static_cast<uint64_t>(k * stride), 1) & 1) << k;
    }
    return bits;
  }

  void fill(uint64_t first, int64_t n, int64_t stride, uint64_t* words) {
    if (stride == 1 && first % kWord == 0) {
      const uint64_t group = first / kWord;
      int64_t k = 0;
      for (; (k + KeepWords::kBatch - 1) * kWord < n; k += KeepWords::kBatch) {
        const KeepWords::Batch batch =
            words_.batch([&](int w) { return group + static_cast<uint64_t>(k + w); });
        std::copy_n(batch.word, KeepWords::kBatch, words + k);
      }
      for (; k * kWord < n; ++k) {
        words[k] = words_.word(group + static_cast<uint64_t>(k));
      }
      return;
    }
    for (int64_t k = 0; k * kWord < n; ++k) {
      words[k] = take_strided(
          first + static_cast<uint64_t>(k * kWord * stride), std::min(kWord, n - k * kWord),
          stride);
    }
  }

  // Keep words of `runs` runs of n indices, the first indices `stride` apart: `words` receives
  // those of each run in turn. `raw` has room for a word more in each run.
  void fill_runs(
      uint64_t first, int64_t stride, int64_t runs, int64_t n, uint64_t* raw, uint64_t* words) {
    const bool aligned = first % kWord == 0 && stride % kWord == 0;
    const int64_t words_per_run = divide_up(n, kWord);
    const int64_t count = words_per_run + (aligned ? 0 : 1);  // words a run may touch
    uint64_t* const target = aligned ? words : raw;
    uint64_t start = first;
    int64_t step = 0;
    const auto next = [&](int) {
      const uint64_t group = start / kWord + static_cast<uint64_t>(step);
      if (++step == count) {
        step = 0;
        start += static_cast<uint64_t>(stride);
      }
      return group;
    };
    const int64_t total = runs * count;
    int64_t k = 0;
    for (; k + KeepWords::kBatch <= total; k += KeepWords::kBatch) {
      const KeepWords::Batch batch = words_.batch(next);
      std::copy_n(batch.word, KeepWords::kBatch, target + k);
    }
    for (; k < total; ++k) {
      target[k] = words_.word(next(0));
    }
    for (int64_t run = 0; !aligned && run < runs; ++run) {
      const int shift = static_cast<int>((first + static_cast<uint64_t>(run * stride)) % kWord);
      for (int64_t w = 0; w < words_per_run; ++w, ++words) {
        const uint64_t* from = raw + run * count + w;
        *words = shift == 0 ? from[0] : from[0] >> shift | from[1] << (kWord - shift);
      }
    }
  }

 private:
  uint64_t word(uint64_t group) {
    if (group != group_) {
      group_ = group;
      word_ = words_.word(group);
    }
    return word_;
  }

  KeepWords words_;
  uint64_t group_ = ~uint64_t{0};  // no group: indices have 64 bits
  uint64_t word_ = 0;
};

template <bool kStream = false, class Rule, class T>
inline __attribute__((always_inline)) void apply_word(
    const T* x, T* y, uint64_t keep, const Rule& rule) {
  constexpr int kLanes = Vector<T>::kLanes;
  for (int j = 0; j < kWord; j += kLanes) {
    Vector<T>::template apply<kStream>(x + j, y + j, keep >> j, rule);
  }
}

// Less than kWord elements.
template <class Rule, class T>
__attribute__((noinline)) void apply_part(
    const T* x, T* y, int64_t n, uint64_t keep, const Rule& rule) {
  constexpr int kLanes = Vector<T>::kLanes;
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    Vector<T>::template apply<false>(x + j, y + j, keep >> j, rule);
  }
  for (; j < n; ++j) {
    y[j] = apply_rule(x[j], ((keep >> j) & 1) != 0, rule);
  }
}

// n elements that are dense on both sides.
template <class Rule, class T>
inline void apply_dense(const T* x, T* y, int64_t n, const uint64_t* words, const Rule& rule) {
  int64_t k = 0;
  for (; k + kWord <= n; k += kWord) {
    apply_word(x + k, y + k, words[k / kWord], rule);
  }
  if (k < n) {
    apply_part(x + k, y + k, n - k, words[k / kWord], rule);
  }
}

template <class Rule, class T>
void apply_row(
    const T* x,
    int64_t in,
    T* y,
    int64_t out,
    int64_t n,
    const uint64_t* words,
    const Rule& rule) {
  if (in == 1 && out == 1) {
    return apply_dense(x, y, n, words, rule);
  }
  T staged[kWord];
  for (int64_t k = 0; k < n; k += kWord) {
    const int64_t count = std::min(kWord, n - k);
    const T* source = x + k;
    if (in != 1) {
      for (int64_t j = 0; j < count; ++j) {
        staged[j] = x[(k + j) * in];
      }
      source = staged;
    }
    apply_dense(source, out == 1 ? y + k : staged, count, words + k / kWord, rule);
    for (int64_t j = 0; out != 1 && j < count; ++j) {
      y[(k + j) * out] = staged[j];
    }
  }
}

// Row r, bit c of the 64 x 64 bit matrix becomes row c, bit r (Hacker's Delight, section 7-3).
inline void transpose_bits(uint64_t* rows) {
  uint64_t mask = 0x00000000ffffffff;
  for (int width = 32; width != 0; width >>= 1, mask ^= mask << width) {
    for (int base = 0; base < kWord; base += 2 * width) {
      for (int r = base; r < base + width; ++r) {
        const uint64_t swapped = ((rows[r] >> width) ^ rows[r + width]) & mask;
        rows[r] ^= swapped << width;
        rows[r + width] ^= swapped;
      }
    }
  }
}

// Appends pieces of at most kWord bits to a run of keep words.
class BitWriter {
 public:
  explicit BitWriter(uint64_t* words) : words_(words) {}

  void append(uint64_t bits, int64_t n) {
    bits &= low_bits(n);
    pending_ |= bits << used_;
    used_ += n;
    if (used_ >= kWord) {
      *words_++ = pending_;
      used_ -= kWord;
      pending_ = used_ == 0 ? 0 : bits >> (n - used_);
    }
  }

  void finish() {
    if (used_ != 0) {
      *words_ = pending_;
    }
  }

 private:
  uint64_t* words_;
  uint64_t pending_ = 0;
  int64_t used_ = 0;
};

// A bit at every multiple of n, which divides kWord.
inline uint64_t every(int64_t n) {
  return ~uint64_t{0} / low_bits(n);
}

// Each of `count` bits n times in a row.
inline void repeat_bits(const uint64_t* bits, int64_t count, int64_t n, uint64_t* words) {
  const auto bit = [&](int64_t k) { return bits[k / kWord] >> (k % kWord) & 1; };
  if (kWord % n != 0) {
    BitWriter writer(words);
    for (int64_t k = 0; k < count; ++k) {
      for (int64_t left = n; left > 0; left -= kWord) {
        writer.append(0 - bit(k), std::min(kWord, left));
      }
    }
    return writer.finish();
  }
  // Within a word: groups of bits are halved and the halves moved apart until there is a bit
  // every n, which the product fills up (Hacker's Delight, section 7-2).
  const int64_t per_word = kWord / n;
  uint64_t halves[6];
  int steps = 0;
  for (int64_t half = per_word / 2; half > 0; half /= 2) {
    halves[steps++] = every(half * n) * low_bits(half);
  }
  for (int64_t k = 0; k < count; k += per_word) {
    uint64_t spread = bits[k / kWord] >> (k % kWord) & low_bits(per_word);
    int64_t half = per_word / 2;
    for (int step = 0; step < steps; ++step, half /= 2) {
      spread = (spread | spread << (half * (n - 1))) & halves[step];
    }
    *words++ = spread * low_bits(n);
  }
}

// The units of a plan, one after the other.
template <class Rule>
class Worker {
 public:
  using T = typename Rule::Element;

  Worker(const Plan& plan, const T* x, T* y, const Rule& rule, KeepBits bits)
      : plan_(plan), in_(x), out_(y), rule_(rule), bits_(bits) {}

  void run(int64_t begin, int64_t end) {
    seek(begin);
    for (int64_t unit = begin; unit < end; ++unit) {
      const uint64_t first = plan_.base + mask_;
      const T* x = in_ + in_offset_;
      T* y = out_ + out_offset_;
      if (plan_.kind == Kind::kRows) {
        rows(x, y, first);
      } else if (plan_.kind == Kind::kPacked) {
        packed(x, y, first);
      } else {
        tile(x, y, first);
      }
      advance();
    }
  }

 private:
  // What is left of a dimension at the current piece of it.
  int64_t piece_length(const Dim& dim, int loop, int64_t piece) const {
    return loop < 0 ? dim.size : std::min(piece, dim.size - position_[loop] * piece);
  }

  void rows(const T* x, T* y, uint64_t first) {
    const int64_t n = piece_length(plan_.row, plan_.row_loop, plan_.row_piece);
    if (first != filled_first_ || n != filled_n_) {
      bits_.fill(first, n, plan_.row.mask, words_);
      filled_first_ = first;
      filled_n_ = n;
    }
    if (plan_.row.mask == 0 && plan_.row.out == 1 && words_[0] == 0) {
      std::fill_n(y, n, rule_.dropped());  // a row that is dropped whole need not be read
      return;
    }
    apply_row(x, plan_.row.in, y, plan_.row.out, n, words_, rule_);
  }

  void packed(const T* x, T* y, uint64_t first) {
    const int64_t n = plan_.row.size;
    const int64_t rows = piece_length(plan_.run, plan_.run_loop, plan_.run_piece);
    if (plan_.row.mask == 0) {
      bits_.fill(first, rows, plan_.run.mask, runs_);
      repeat_bits(runs_, rows, n, words_);
    } else if (plan_.run.mask == 0 && kWord % n == 0) {
      const uint64_t row = bits_.take_strided(first, n, plan_.row.mask) & low_bits(n);
      std::fill_n(words_, divide_up(rows * n, kWord), row * every(n));
    } else {
      BitWriter writer(words_);
      for (int64_t r = 0; r < rows; ++r) {
        const uint64_t start = first + static_cast<uint64_t>(r * plan_.run.mask);
        writer.append(bits_.take_strided(start, n, plan_.row.mask), n);
      }
      writer.finish();
    }
    apply_row(x, 1, y, 1, rows * n, words_, rule_);
  }

  void tile(const T* x, T* y, uint64_t first) {
    const int64_t columns = piece_length(plan_.row, plan_.row_loop, plan_.row_piece);
    const int64_t rows = piece_length(plan_.run, plan_.run_loop, plan_.run_piece);
    const int64_t run_words = divide_up(rows, kWord);
    const int64_t row_words = divide_up(columns, kWord);
    const int64_t runs =
        plan_.row.mask == 0 ? 1 : columns;  // what shares its decisions is copied
    bits_.fill_runs(first, plan_.row.mask, runs, rows, raw_, runs_);
    uint64_t* squares = squares_;
    if (run_words == 1 && runs == columns) {  // the words stand as the squares have them
      squares = runs_;
      std::fill(runs_ + columns, runs_ + row_words * kWord, 0);
    }
    BitWriter writer(words_);
    for (int64_t k = 0; k < run_words; ++k) {
      for (int64_t c = 0; c < row_words; ++c) {
        uint64_t* square = squares + c * kWord;
        for (int64_t j = 0; squares != runs_ && j < kWord; ++j) {
          const int64_t run = std::min(c * kWord + j, runs - 1);
          square[j] = runs_[run * run_words + k];
        }
        transpose_bits(square);
      }
      const int64_t count = std::min(kWord, rows - k * kWord);
      for (int64_t r = 0; r < count; ++r) {
        uint64_t row_bits[kAlignedTileColumns / kWord];
        for (int64_t c = 0; c < row_words; ++c) {
          row_bits[c] = squares[c * kWord + r];
        }
        if (plan_.adjacent) {
          for (int64_t c = 0; c < row_words; ++c) {
            writer.append(row_bits[c], std::min(kWord, columns - c * kWord));
          }
        } else {
          const int64_t row = k * kWord + r;
          apply_row(
              x + row * plan_.run.in, plan_.row.in, y + row * plan_.run.out, plan_.row.out,
              columns, row_bits, rule_);
        }
      }
    }
    if (plan_.adjacent) {
      writer.finish();
      apply_row(x, 1, y, 1, rows * columns, words_, rule_);
    }
  }

  void seek(int64_t unit) {
    for (int loop = 0; loop < plan_.nloops; ++loop) {
      const Dim& axis = plan_.loops[loop];
      position_[loop] = unit % axis.size;
      unit /= axis.size;
      step(axis, position_[loop]);
    }
  }

  void advance() {
    for (int loop = 0; loop < plan_.nloops; ++loop) {
      const Dim& axis = plan_.loops[loop];
      if (++position_[loop] < axis.size) {
        step(axis, 1);
        return;
      }
      step(axis, 1 - axis.size);
      position_[loop] = 0;
    }
  }

  void step(const Dim& axis, int64_t n) {
    in_offset_ += n * axis.in;
    out_offset_ += n * axis.out;
    mask_ += static_cast<uint64_t>(n * axis.mask);
  }

  static constexpr int64_t kTileWords =
      std::max(kAlignedTileColumns * kAlignedTileRun, kTileColumns* kTileRun) / kWord;
  static constexpr int64_t kRawWords =
      std::max(kAlignedTileColumns, kTileColumns*(kTileRun / kWord + 1));

  const Plan& plan_;
  const T* in_;
  T* out_;
  Rule rule_;
  KeepBits bits_;
  int64_t position_[IndexMap::kMaxDims + 2];
  int64_t in_offset_ = 0;
  int64_t out_offset_ = 0;
  uint64_t mask_ = 0;
  uint64_t filled_first_ = 0;
  int64_t filled_n_ = 0;  // 0: words_ holds nothing
  uint64_t raw_[kRawWords];
  uint64_t runs_[kTileWords];
  uint64_t squares_[kAlignedTileColumns];
  uint64_t words_[std::max(kTileWords, kSegment / kWord)];
};

// The dense case, keep words on the fly without a buffer.
template <bool kStream, class Rule, class T>
void run_flat(
    const Plan& plan,
    const T* x,
    T* y,
    const Rule& rule,
    KeepWords words,
    int64_t begin,
    int64_t end) {
  const uint64_t base = plan.base / kWord;
  const int64_t full = std::min(end, plan.row.size / kWord);
  constexpr int kBatch = KeepWords::kBatch;
  int64_t g = begin;
  for (; g + kBatch <= full; g += kBatch) {
    const KeepWords::Batch keep =
        words.batch([&](int k) { return base + static_cast<uint64_t>(g + k); });
    for (int k = 0; k < kBatch; ++k) {
      const int64_t start = (g + k) * kWord;
      apply_word<kStream>(x + start, y + start, keep.word[k], rule);
    }
  }
  for (; g < end; ++g) {
    const int64_t start = g * kWord;
    const int64_t n = std::min(kWord, plan.row.size - start);
    const uint64_t keep = words.word(base + static_cast<uint64_t>(g));
    apply_dense(x + start, y + start, n, &keep, rule);
  }
  if (kStream) {
    Vector<T>::fence();
  }
}

void run(
    const Plan& plan,
    const Task& task,
    int64_t sample,
    RngState state,
    int64_t begin,
    int64_t end) {
  with_rule(task.dtype, task.coefficients, [&](const auto& rule) {
    using T = typename std::decay_t<decltype(rule)>::Element;
    const T* x = static_cast<const T*>(task.in) + sample * task.samples.in;
    T* y = static_cast<T*>(task.out) + sample * task.samples.out;
    if (plan.kind != Kind::kFlat) {
      Worker(plan, x, y, rule, KeepBits(state, task.threshold)).run(begin, end);
    } else if (plan.stream) {
      run_flat<true>(plan, x, y, rule, KeepWords(state, task.threshold), begin, end);
    } else {
      run_flat<false>(plan, x, y, rule, KeepWords(state, task.threshold), begin, end);
    }
  });
}
