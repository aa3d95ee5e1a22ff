// The instruction sets, each a namespace with its own target region, and the choice among them.
//
// Regions rather than compiler flags per file: what is instantiated inside a region lives in that
// region's namespace, so that no AVX-512 copy of a shared inline function can be linked into the
// scalar path.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>

#include "core/mask.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/kernel.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define DROPOUT_X86 1
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace dropout::cpu {
namespace {

// The first comparison of up to eight blocks, one bit an element.
struct Comparison64 {
  uint64_t keep;
  uint64_t tie;
};

template <class C>
struct Softmax {
  void (*forward)(const ScoreBlock<C>&, const RunningSoftmax<C>&);
  void (*backward)(const ScoreBlock<C>&, C*, const C*, const C*);
};
using SoftmaxTypes = std::tuple<Softmax<float>, Softmax<double>>;

namespace scalar {
#include "core/philox_lanes.inl"

#include "kernels/cpu/scalar.inl"

#include "kernels/cpu/keep_words.inl"

#include "kernels/cpu/body.inl"

#include "kernels/cpu/attention.inl"
}  // namespace scalar

#if DROPOUT_X86
#include "kernels/cpu/target_avx2.inl"
namespace avx2 {
#include "core/philox_lanes.inl"

#include "kernels/cpu/avx2.inl"

#include "kernels/cpu/keep_words.inl"

#include "kernels/cpu/body.inl"

#include "kernels/cpu/attention.inl"
}  // namespace avx2
#include "kernels/cpu/target_end.inl"

#include "kernels/cpu/target_avx512.inl"
namespace avx512 {
#include "core/philox_lanes.inl"

#include "kernels/cpu/avx512.inl"

#include "kernels/cpu/keep_words.inl"

#include "kernels/cpu/body.inl"

#include "kernels/cpu/attention.inl"
}  // namespace avx512
#include "kernels/cpu/target_end.inl"
#endif

using Run = decltype(&run);

struct Implementation {
  const char* name;
  bool supported;
  Run run;
  SoftmaxTypes softmax;
};

#if DROPOUT_X86
// Clang's __builtin_cpu_supports knows F16C from version 17 on only.
bool supports_f16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

const Implementation* implementations() {
#if DROPOUT_X86
  static const Implementation table[kPaths] = {
      {"scalar", true, scalar::run, scalar::kSoftmax},
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && supports_f16c(),
       avx2::run, avx2::kSoftmax},
      {"avx512",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"),
       avx512::run, avx512::kSoftmax},
  };
#else
  static const Implementation table[kPaths] = {
      {"scalar", true, scalar::run, scalar::kSoftmax},
      {"avx2", false, nullptr, {}},
      {"avx512", false, nullptr, {}}};
#endif
  return table;
}

// The path named by DROPOUT_EXT_CPU, or the best this machine has.
int initial_path() {
  const char* forced = std::getenv("DROPOUT_EXT_CPU");
  std::string names;
  for (int path = kPaths - 1; path >= 0; --path) {
    const Implementation& candidate = implementations()[path];
    if (!candidate.supported) {
      continue;
    }
    if (forced == nullptr || *forced == '\0' || std::string(forced) == candidate.name) {
      return path;
    }
    names = candidate.name + (names.empty() ? "" : ", " + names);
  }
  throw std::runtime_error(
      std::string("DROPOUT_EXT_CPU must name an instruction set of this machine (") + names +
      "), but got '" + forced + "'");
}

std::atomic<int>& active() {
  static std::atomic<int> path{initial_path()};
  return path;
}

}  // namespace

const char* path_name(Path path) {
  return implementations()[static_cast<int>(path)].name;
}

bool path_supported(Path path) {
  return implementations()[static_cast<int>(path)].supported;
}

Path active_path() {
  return static_cast<Path>(active().load(std::memory_order_relaxed));
}

bool set_active_path(Path path) {
  if (!path_supported(path)) {
    return false;
  }
  active().store(static_cast<int>(path), std::memory_order_relaxed);
  return true;
}

void run(
    const Plan& plan,
    const Task& task,
    int64_t sample,
    RngState state,
    int64_t begin,
    int64_t end) {
  const Implementation& active = implementations()[static_cast<int>(active_path())];
  active.run(plan, task, sample, state, begin, end);
}

template <class C>
void softmax_dropout(const ScoreBlock<C>& block, const RunningSoftmax<C>& running) {
  const Implementation& active = implementations()[static_cast<int>(active_path())];
  std::get<Softmax<C>>(active.softmax).forward(block, running);
}

template <class C>
void softmax_dropout_backward(
    const ScoreBlock<C>& block, C* gradient, const C* softmax, const C* row_dot) {
  const Implementation& active = implementations()[static_cast<int>(active_path())];
  std::get<Softmax<C>>(active.softmax).backward(block, gradient, softmax, row_dot);
}

template void softmax_dropout(const ScoreBlock<float>&, const RunningSoftmax<float>&);
template void softmax_dropout(const ScoreBlock<double>&, const RunningSoftmax<double>&);
template void softmax_dropout_backward(
    const ScoreBlock<float>&, float*, const float*, const float*);
template void softmax_dropout_backward(
    const ScoreBlock<double>&, double*, const double*, const double*);

}  // namespace dropout::cpu
