// at::parallel_for on torch's own OpenMP threads, whichever compiler builds this.
//
// torch's header leaves the loop to the compiler's OpenMP. GCC calls the runtime that torch has
// loaded, libgomp. Clang would bring its own, whose threads torch.set_num_threads does not know
// and for whom libgomp's omp_get_thread_num is 0: each would do the whole work. For clang, the
// call that GCC generates stands here.
#pragma once

#include <ATen/Config.h>
#include <ATen/Parallel.h>

#if defined(__clang__) && AT_PARALLEL_OPENMP
#include <c10/util/ParallelGuard.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>

extern "C" {
int omp_get_num_threads();
int omp_get_thread_num();
void GOMP_parallel(void (*body)(void*), void* data, unsigned num_threads, unsigned flags);
}

namespace dropout {
namespace detail {

// One loop shared by a team of threads.
template <class F>
struct Team {
  int64_t begin;
  int64_t end;
  int64_t grain;
  const F& f;
  std::once_flag failed{};
  std::exception_ptr error{};

  static void work(void* data) {
    Team& team = *static_cast<Team*>(data);
    const int64_t n = team.end - team.begin;
    const int64_t pieces = at::divup(n, std::max<int64_t>(team.grain, 1));
    const int64_t size = at::divup(n, std::min<int64_t>(omp_get_num_threads(), pieces));
    const int64_t first = team.begin + omp_get_thread_num() * size;
    if (first >= team.end) {
      return;
    }
    try {
      const at::internal::ThreadIdGuard id(omp_get_thread_num());
      const c10::ParallelGuard guard(true);
      team.f(first, std::min(team.end, first + size));
    } catch (...) {
      std::call_once(team.failed, [&] { team.error = std::current_exception(); });
    }
  }
};

}  // namespace detail

// f(begin, end) on pieces of at least `grain`.
template <class F>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const F& f) {
  at::internal::lazy_init_num_threads();
  if (end - begin <= grain || at::in_parallel_region() || at::get_num_threads() == 1) {
    return at::parallel_for(begin, end, grain, f);  // on this thread
  }
  detail::Team<F> team{begin, end, grain, f};
  GOMP_parallel(&detail::Team<F>::work, &team, 0, 0);
  if (team.error) {
    std::rethrow_exception(team.error);
  }
}

}  // namespace dropout
#else
namespace dropout {
using at::parallel_for;
}  // namespace dropout
#endif
