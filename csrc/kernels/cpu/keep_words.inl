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

  // Word k: bit j says whether the element with mask index 64 * group(k) + j is kept.
  template <class Group>
  inline __attribute__((always_inline)) Batch batch(const Group& group) {
    uint64_t groups[kBatch];
    bool together = true;
    for (int k = 0; k < kBatch; ++k) {
      groups[k] = group(k);
      together = together && select(groups[k]) == select(groups[0]);
    }
    if (__builtin_expect(together, 1)) {
      return generate<kBatch>(groups);
    }
    Batch result;
    for (int k = 0; k < kBatch; ++k) {
      result.word[k] = word(groups[k]);
    }
    return result;
  }

  uint64_t word(uint64_t group) { return generate<1>(&group).word[0]; }

 private:
  static constexpr int kWordBlocks = static_cast<int>(kWord) / kBlock;

  // What the generator has to be set up for: the high counter word of the group's blocks.
  static uint32_t select(uint64_t group) {
    return static_cast<uint32_t>((group * kWordBlocks) >> 32);
  }

  template <int kCount>
  inline __attribute__((always_inline)) Batch generate(const uint64_t* groups) {
    if (__builtin_expect(select(groups[0]) != block_high_, 0)) {
      block_high_ = select(groups[0]);
      philox_ = PhiloxLanes<typename Isa::Lanes>(state_, block_high_);
    }
    constexpr int kVectors = kCount * kWordBlocks / Isa::kBlocks;
    typename PhiloxLanes<typename Isa::Lanes>::template Counters<kVectors> counters;
    for (int v = 0; v < kVectors; ++v) {
      const int block = v * Isa::kBlocks;
      counters.low[v] = Isa::block_low(
          static_cast<uint32_t>(groups[block / kWordBlocks] * kWordBlocks) + block % kWordBlocks);
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
        keep.word[k] = resolve(groups[k] * kWordBlocks, keep.word[k], tie.word[k]);
      }
    }
    return keep;
  }

  __attribute__((noinline)) uint64_t resolve(uint64_t block, uint64_t keep, uint64_t tie) const {
    for (int b = 0; b < kWordBlocks; ++b) {
      const uint64_t bits = uint64_t{0xff} << (b * kBlock);
      if ((tie & bits) != 0) {
        const uint64_t decided = keep_block(state_, block + static_cast<uint64_t>(b), threshold_);
        keep = (keep & ~bits) | (decided << (b * kBlock));
      }
    }
    return keep;
  }

  RngState state_;
  Threshold threshold_;
  PhiloxLanes<typename Isa::Lanes> philox_;
  uint32_t block_high_ = 0;
};
