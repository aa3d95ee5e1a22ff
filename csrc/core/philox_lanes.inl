// Philox4x32-10 over several consecutive blocks at once, for any type that offers 64-bit lanes.
//
// The 32-bit words live in the low halves of the lanes; what the high halves hold is ignored, so
// that no word is ever moved between lanes. Three of the four counter words are the same in all
// lanes, which leaves rounds one and two with a single vector product each: the other one is
// computed here, once per 2^32 blocks.
//
// Included inside the target region of an instruction set, as vector code has to be; after
// core/mask.h.

// Lanes offers: Vector; broadcast(uint64_t); multiply(Vector, Vector), the 64-bit products of the
// low halves; high(Vector), each lane's high half moved to the low one; exclusive_or(a, b) and
// exclusive_or(a, b, c).
template <class Lanes>
class PhiloxLanes {
 public:
  using Vector = typename Lanes::Vector;

  PhiloxLanes(RngState state, uint32_t block_high) {
    const uint32_t seed0 = static_cast<uint32_t>(state.seed);
    const uint32_t seed1 = static_cast<uint32_t>(state.seed >> 32);
    const auto key0 = [&](uint32_t round) { return seed0 + round * Philox::kWeyl0; };
    const auto key1 = [&](uint32_t round) { return seed1 + round * Philox::kWeyl1; };
    const uint64_t product0 =
        static_cast<uint64_t>(Philox::kMultiplier0) * static_cast<uint32_t>(state.offset);
    const uint32_t word2 = static_cast<uint32_t>(product0 >> 32) ^ block_high ^ key1(0);
    const uint64_t product1 = static_cast<uint64_t>(Philox::kMultiplier1) * word2;
    for (uint32_t round = 3; round < Philox::kRounds; ++round) {
      key0_[round] = Lanes::broadcast(key0(round));
      key1_[round] = Lanes::broadcast(key1(round));
    }
    key0_[0] = Lanes::broadcast(key0(0) ^ static_cast<uint32_t>(state.offset >> 32));
    key0_[1] = Lanes::broadcast(key0(1) ^ static_cast<uint32_t>(product1 >> 32));
    key1_[1] = Lanes::broadcast(key1(1) ^ static_cast<uint32_t>(product0));
    key0_[2] = Lanes::broadcast(key0(2) ^ static_cast<uint32_t>(product1));
    key1_[2] = Lanes::broadcast(key1(2));
  }

  // The low counter words of the blocks of `kCount` vectors.
  template <int kCount>
  struct Counters {
    Vector low[kCount];
  };

  template <int kCount>
  struct Words {
    Vector w0[kCount], w1[kCount], w2[kCount], w3[kCount];
  };

  // The vectors advance round by round together: each is a chain of dependent products, and only
  // several chains keep the multiplier busy.
  template <int kCount>
  inline __attribute__((always_inline)) Words<kCount> generate(
      const Counters<kCount>& counters) const {
    const Vector multiplier0 = Lanes::broadcast(Philox::kMultiplier0);
    const Vector multiplier1 = Lanes::broadcast(Philox::kMultiplier1);
    Words<kCount> x;
    // Rounds one to three: the words that are equal in all lanes are part of the keys.
    for (int v = 0; v < kCount; ++v) {
      const Vector product1 = Lanes::multiply(counters.low[v], multiplier1);
      x.w3[v] =
          Lanes::multiply(Lanes::exclusive_or(Lanes::high(product1), key0_[0]), multiplier0);
      x.w0[v] = Lanes::exclusive_or(product1, key0_[1]);
      x.w2[v] = Lanes::exclusive_or(Lanes::high(x.w3[v]), key1_[1]);
    }
    for (int v = 0; v < kCount; ++v) {
      const Vector product0 = Lanes::multiply(x.w0[v], multiplier0);
      x.w1[v] = Lanes::multiply(x.w2[v], multiplier1);
      x.w0[v] = Lanes::exclusive_or(Lanes::high(x.w1[v]), key0_[2]);
      x.w2[v] = Lanes::exclusive_or(Lanes::high(product0), x.w3[v], key1_[2]);
      x.w3[v] = product0;
    }
    for (int round = 3; round < Philox::kRounds; ++round) {
      for (int v = 0; v < kCount; ++v) {
        const Vector product0 = Lanes::multiply(x.w0[v], multiplier0);
        const Vector product1 = Lanes::multiply(x.w2[v], multiplier1);
        x.w0[v] = Lanes::exclusive_or(Lanes::high(product1), x.w1[v], key0_[round]);
        x.w2[v] = Lanes::exclusive_or(Lanes::high(product0), x.w3[v], key1_[round]);
        x.w1[v] = product1;
        x.w3[v] = product0;
      }
    }
    return x;
  }

 private:
  Vector key0_[Philox::kRounds];
  Vector key1_[Philox::kRounds];
};
