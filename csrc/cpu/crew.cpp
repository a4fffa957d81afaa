#include "crew.h"

#include <new>
#include <thread>

#include "workspace.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bk::cpu {
namespace {

constexpr std::int64_t kGroupsPerThread = 8;
constexpr int kSpins = 4096;  // before a thread lets others have its CPU: some tens of microseconds

class Patience {
 public:
  void wait() {
    if (++spins_ % kSpins == 0) return std::this_thread::yield();
#if defined(__x86_64__)
    _mm_pause();
#endif
  }

 private:
  int spins_ = 0;
};

}  // namespace

void Crew::for_each(std::int64_t tasks, void (*body)(void*, std::int64_t), void* context) {
  const std::int64_t most = kGroupsPerThread * threads_;
  tasks_ = tasks;
  group_size_ = (tasks + most - 1) / most;
  body_ = body;
  context_ = context;
  const std::int64_t groups = (tasks + group_size_ - 1) / group_size_;
  unfinished_.store(groups, std::memory_order_relaxed);
  groups_.store(static_cast<std::uint64_t>(groups) << 32, std::memory_order_release);
  while (take_group()) {
  }
  for (Patience patience; unfinished_.load(std::memory_order_acquire) > 0;) patience.wait();
  if (out_of_memory_.load(std::memory_order_relaxed)) throw std::bad_alloc();
}

// Runs one group of the loop at hand; false where none is left.
bool Crew::take_group() {
  std::uint64_t seen = groups_.load(std::memory_order_acquire);
  do {
    if ((seen & 0xffffffff) >= seen >> 32) return false;
  } while (!groups_.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel, std::memory_order_acquire));
  const std::int64_t begin = static_cast<std::int64_t>(seen & 0xffffffff) * group_size_;
  const std::int64_t end = begin + group_size_ < tasks_ ? begin + group_size_ : tasks_;
  try {
    for (std::int64_t task = begin; task < end; ++task) body_(context_, task);
  } catch (const std::bad_alloc&) {
    out_of_memory_.store(true, std::memory_order_relaxed);
  }
  unfinished_.fetch_sub(1, std::memory_order_release);
  return true;
}

void Crew::join(void (*lead)(void*, const Parallel&), void* context, const Parallel& led) {
  if (led_.exchange(true)) {
    for (Patience patience; !over_.load(std::memory_order_acquire);) {
      if (!take_group()) patience.wait();
    }
    return;
  }
  try {
    lead(context, led);
  } catch (const std::bad_alloc&) {  // the only exception of the kernels; it must not cross the pool
    out_of_memory_.store(true);
  }
  over_.store(true, std::memory_order_release);
}

void lead_crew(const Parallel& run, void (*lead)(void*, const Parallel&), void* context) {
  if (run.threads <= 1) return lead(context, run);
  struct Call {
    Crew crew;
    void (*lead)(void*, const Parallel&);
    void* context;
    Parallel led;
  } call{Crew(run.threads), lead, context, run};
  call.led.crew = &call.crew;
  run.for_each(
      run.threads,
      [](void* erased, std::int64_t) {
        auto* joined = static_cast<Call*>(erased);
        joined->crew.join(joined->lead, joined->context, joined->led);
      },
      &call);
  if (call.crew.out_of_memory()) throw std::bad_alloc();
}

}  // namespace bk::cpu
