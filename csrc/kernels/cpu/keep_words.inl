// Keep words from vectors of random words, for any instruction set: included inside its namespace
// and target region after the definition of `Isa`, which offers
//   Lanes                               see core/philox_lanes.inl
//   kBlocks                             blocks per vector
//   kBatch                              keep words made together: enough for four vectors, as the
//                                       rounds within each are one chain of dependent products
//   block_low(uint32_t first)           the low counter words of blocks first ... in lane order
//   compare(words, threshold_hi)        the first comparison of these blocks, bits in mask order

class KeepWords {
 public:
  // Words made together.
  static constexpr int kBatch = Isa::kBatch;

  struct Batch {
    uint64_t word[kBatch];
  };

  KeepWords(RngState state, Threshold threshold)
      : state_(state), threshold_(threshold), philox_(state, 0) {}

  // Bit j of word k: is the element with mask index 64 * (group + k) + j kept?
  Batch batch(uint64_t group) {
    Batch result;
    if (__builtin_expect(select(group) != select(group + kBatch - 1), 0)) {
      for (int k = 0; k < kBatch; ++k) {
        result.word[k] = generate<1>(group + static_cast<uint64_t>(k)).word[0];
      }
      return result;
    }
    return generate<kBatch>(group);
  }

  uint64_t word(uint64_t group) { return generate<1>(group).word[0]; }

 private:
  static constexpr int kWordBlocks = static_cast<int>(kWord) / kBlock;

  static uint32_t select(uint64_t group) {
    return static_cast<uint32_t>((group * kWordBlocks) >> 32);
  }

  template <int kCount>
  inline __attribute__((always_inline)) Batch generate(uint64_t group) {
    if (__builtin_expect(select(group) != block_high_, 0)) {
      block_high_ = select(group);
      philox_ = PhiloxLanes<typename Isa::Lanes>(state_, block_high_);
    }
    const uint64_t block = group * kWordBlocks;
    constexpr int kVectors = kCount * kWordBlocks / Isa::kBlocks;
    typename PhiloxLanes<typename Isa::Lanes>::template Counters<kVectors> counters;
    for (int v = 0; v < kVectors; ++v) {
      counters.low[v] = Isa::block_low(static_cast<uint32_t>(block) + v * Isa::kBlocks);
    }
    const auto words = philox_.generate(counters);
    Batch keep{};
    Batch tie{};
    uint64_t any_tie = 0;
    for (int v = 0; v < kVectors; ++v) {
      const Comparison64 first = Isa::compare(words, v, threshold_.hi());
      const int k = v * Isa::kBlocks / kWordBlocks;
      const int shift = v * Isa::kBlocks % kWordBlocks * kBlock;
      keep.word[k] |= first.keep << shift;
      tie.word[k] |= first.tie << shift;
      any_tie |= first.tie;
    }
    if (__builtin_expect(any_tie != 0, 0)) {
      for (int k = 0; k < kCount; ++k) {
        keep.word[k] = resolve(block + k * kWordBlocks, keep.word[k], tie.word[k]);
      }
    }
    return keep;
  }

  __attribute__((noinline)) uint64_t resolve(uint64_t block, uint64_t keep, uint64_t tie) const {
    uint64_t resolved = 0;
    for (int b = 0; b < kWordBlocks; ++b) {
      FirstComparison first{
          static_cast<uint32_t>(keep >> (b * kBlock)) & 0xffu,
          static_cast<uint32_t>(tie >> (b * kBlock)) & 0xffu};
      if (first.tie != 0) {
        first.keep = resolve_ties(first, state_, block + static_cast<uint64_t>(b), threshold_);
      }
      resolved |= static_cast<uint64_t>(first.keep) << (b * kBlock);
    }
    return resolved;
  }

  RngState state_;
  Threshold threshold_;
  PhiloxLanes<typename Isa::Lanes> philox_;
  uint32_t block_high_ = 0;
};
