// Compiled once, for the baseline: picks the SIMD level at run time and forwards each function of engine.h to it.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "crew.h"
#include "engine.h"
#include "workspace.h"

#if defined(BK_HAS_TILES)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace bk::cpu {

// The kernels of one level, as the sources compiled for it define them.
#define BK_DECLARE_LEVEL(level)                                                                                       \
  namespace level {                                                                                                   \
  template <class T> void two_layer(const Network<T>&, const Samples<Compute<T>>&, Compute<T>*, Parallel);            \
  template <class T>                                                                                                  \
  void two_layer_value_and_grad(const Network<T>&, const Samples<Compute<T>>&, const Compute<T>*, Compute<T>*,        \
                                Compute<T>*, Parallel);                                                               \
  template <class T>                                                                                                  \
  void two_layer_parameter_grad(const Network<T>&, const Samples<Compute<T>>&, const Compute<T>*, Compute<T>*,        \
                                Compute<T>*, Compute<T>*, Parallel);                                                  \
  template <class A> void l2_pgd_step(const PgdStep<A>&, Parallel);                                                   \
  template <class A> void linf_pgd_step(const PgdStep<A>&, Parallel);                                                 \
  template <class T>                                                                                                  \
  void pgd(const Network<T>&, const Samples<Compute<T>>&, const Attack<Compute<T>>&, const AttackResult<Compute<T>>&, \
           Parallel);                                                                                                 \
  template <class A> void train(const Training<A>&, Parallel);                                                        \
  }

BK_DECLARE_LEVEL(base)
#if defined(__x86_64__)
BK_DECLARE_LEVEL(v3)
BK_DECLARE_LEVEL(v4)
#endif

namespace {

enum class Level : int { base, v3, v4, amx };
constexpr const char* kLevelNames[] = {"base", "v3", "v4", "amx"};
constexpr int kLevels = 4;

// Whether the machine has tiles for bfloat16 numbers, and the system lends this process their registers.
bool machine_has_tiles() {
#if defined(BK_HAS_TILES)
  static const bool lent = [] {
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
    const bool tiles = edx >> 24 & 1, of_bfloat16 = edx >> 22 & 1;
    constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return tiles && of_bfloat16 && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return lent;
#else
  return false;
#endif
}

bool machine_has(Level level) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                  __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  return level == Level::base || (level == Level::v3 && v3) || (level == Level::v4 && v4) ||
         (level == Level::amx && v4 && machine_has_tiles());
#else
  return level == Level::base;
#endif
}

// -1 when `name` is no level of this machine.
int find_level(const char* name) {
  for (int level = 0; level < kLevels; ++level) {
    if (std::strcmp(name, kLevelNames[level]) == 0 && machine_has(static_cast<Level>(level))) return level;
  }
  return -1;
}

// What BENIGN_KERNELS_SIMD names; unset or empty, the best of this machine.
int first_level() {
  const char* wanted = std::getenv("BENIGN_KERNELS_SIMD");
  if (wanted && *wanted) return find_level(wanted);
  int best = kLevels - 1;
  while (!machine_has(static_cast<Level>(best))) --best;
  return best;
}

// -1 when BENIGN_KERNELS_SIMD names no level of this machine.
std::atomic<int>& chosen_level() {
  static std::atomic<int> level{first_level()};
  return level;
}

Level current_level() {
  const int level = chosen_level().load(std::memory_order_relaxed);
  if (level < 0) throw std::invalid_argument(simd_problem());
  return static_cast<Level>(level);
}

}  // namespace

const char* simd_level() {
  const int level = chosen_level().load(std::memory_order_relaxed);
  return level < 0 ? nullptr : kLevelNames[level];
}

const char* simd_problem() {
  static const std::string text = [] {
    std::string levels;
    for (const char* name : kLevelNames) {
      if (find_level(name) >= 0) levels = std::string(name) + (levels.empty() ? "" : ", ") + levels;
    }
    const char* wanted = std::getenv("BENIGN_KERNELS_SIMD");
    return "BENIGN_KERNELS_SIMD: got '" + std::string(wanted ? wanted : "") +
           "', expected a level of this machine: " + levels;
  }();
  return text.c_str();
}

bool set_simd_level(const char* level) {
  const int named = level ? find_level(level) : -1;
  if (named >= 0) chosen_level().store(named, std::memory_order_relaxed);
  return named >= 0;
}

bool tiles_in_use() { return current_level() == Level::amx; }

// ---- what the levels share: memory and the guarded parallel loop ----------------------------------------------------

namespace {

constexpr std::align_val_t kCacheLine{64};

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kMostSpare = 0;  // what is kept is not watched
#else
constexpr std::size_t kMostSpare = std::size_t{64} << 20;
#endif
constexpr std::size_t kLeastSpare = std::size_t{1} << 16;  // malloc keeps smaller ones itself

// Memory of one thread that nobody uses at the moment, the oldest first.
class Spare {
 public:
  ~Spare() {
    while (count_ > 0) ::operator delete(remove(0).memory, kCacheLine);
  }

  // A block of `bytes`, at most twice as many, which `bytes` becomes; null if there is none.
  void* take(std::size_t& bytes) {
    int best = -1;
    for (int i = 0; i < count_; ++i) {
      const bool fits = blocks_[i].bytes >= bytes && blocks_[i].bytes / 2 <= bytes;
      if (fits && (best < 0 || blocks_[i].bytes < blocks_[best].bytes)) best = i;
    }
    if (best < 0) return nullptr;
    const Block found = remove(best);
    bytes = found.bytes;
    return found.memory;
  }

  // Whether it keeps the block; the oldest ones make room.
  bool give(void* memory, std::size_t bytes) {
    if (bytes < kLeastSpare || bytes > kMostSpare) return false;
    while (count_ == kMostBlocks || total_ + bytes > kMostSpare) ::operator delete(remove(0).memory, kCacheLine);
    blocks_[count_++] = {memory, bytes};
    total_ += bytes;
    return true;
  }

 private:
  static constexpr int kMostBlocks = 32;
  struct Block {
    void* memory;
    std::size_t bytes;
  };
  Block blocks_[kMostBlocks];
  int count_ = 0;
  std::size_t total_ = 0;

  Block remove(int index) {
    const Block removed = blocks_[index];
    for (--count_; index < count_; ++index) blocks_[index] = blocks_[index + 1];
    total_ -= removed.bytes;
    return removed;
  }
};

thread_local Spare spare;

}  // namespace

// Not rounded up to the alignment, so that a sanitizer sees the end where it is.
Workspace::Workspace(std::size_t bytes) : memory_(nullptr), bytes_(bytes) {
  if (bytes >= kLeastSpare) memory_ = spare.take(bytes_);
  if (!memory_) memory_ = ::operator new(bytes_, kCacheLine);
}
Workspace::~Workspace() {
  if (!spare.give(memory_, bytes_)) ::operator delete(memory_, kCacheLine);
}

Workspace& Workspace::operator=(Workspace&& other) {
  std::swap(memory_, other.memory_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

namespace {

struct Guarded {
  void (*body)(void*, std::int64_t);
  void* context;
  std::atomic<bool> out_of_memory;
};

}  // namespace

void run_tasks(const Parallel& run, std::int64_t tasks, void (*body)(void*, std::int64_t), void* context) {
  if (tasks <= 1 || run.threads <= 1) {
    for (std::int64_t task = 0; task < tasks; ++task) body(context, task);
    return;
  }
  if (run.crew) return run.crew->for_each(tasks, body, context);
  // The only exception of the kernels is bad_alloc; it must not cross the pool.
  Guarded guarded{body, context, {false}};
  run.for_each(
      tasks,
      [](void* erased, std::int64_t task) {
        auto* guard = static_cast<Guarded*>(erased);
        try {
          guard->body(guard->context, task);
        } catch (const std::bad_alloc&) {
          guard->out_of_memory.store(true, std::memory_order_relaxed);
        }
      },
      &guarded);
  if (guarded.out_of_memory.load()) throw std::bad_alloc();
}

// ---- engine.h, forwarded --------------------------------------------------------------------------------------------

#if defined(__x86_64__)
#define BK_AT_LEVEL(call)            \
  switch (current_level()) {         \
    case Level::amx:                 \
    case Level::v4: return v4::call; \
    case Level::v3: return v3::call; \
    default: return base::call;      \
  }
#else
#define BK_AT_LEVEL(call) return static_cast<void>(current_level()), base::call;
#endif

template <class T>
void two_layer(const Network<T>& network, const Samples<Compute<T>>& samples, Compute<T>* f, Parallel run) {
  BK_AT_LEVEL(two_layer(network, samples, f, run));
}

template <class T>
void two_layer_value_and_grad(const Network<T>& network, const Samples<Compute<T>>& samples,
                              const Compute<T>* cotangent, Compute<T>* f, Compute<T>* gx, Parallel run) {
  BK_AT_LEVEL(two_layer_value_and_grad(network, samples, cotangent, f, gx, run));
}

template <class T>
void two_layer_parameter_grad(const Network<T>& network, const Samples<Compute<T>>& samples,
                              const Compute<T>* cotangent, Compute<T>* gw, Compute<T>* ga, Compute<T>* gb,
                              Parallel run) {
  BK_AT_LEVEL(two_layer_parameter_grad(network, samples, cotangent, gw, ga, gb, run));
}

template <class A> void l2_pgd_step(const PgdStep<A>& step, Parallel run) { BK_AT_LEVEL(l2_pgd_step(step, run)); }

template <class A> void linf_pgd_step(const PgdStep<A>& step, Parallel run) { BK_AT_LEVEL(linf_pgd_step(step, run)); }

template <class T>
void pgd(const Network<T>& network, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
         const AttackResult<Compute<T>>& result, Parallel run) {
  BK_AT_LEVEL(pgd(network, x0, attack, result, run));
}

template <class A> void train(const Training<A>& task, Parallel run) { BK_AT_LEVEL(train(task, run)); }

#define BK_INSTANTIATE(T)                                                                                     \
  template void two_layer<T>(const Network<T>&, const Samples<Compute<T>>&, Compute<T>*, Parallel);           \
  template void two_layer_value_and_grad<T>(const Network<T>&, const Samples<Compute<T>>&, const Compute<T>*, \
                                            Compute<T>*, Compute<T>*, Parallel);                              \
  template void two_layer_parameter_grad<T>(const Network<T>&, const Samples<Compute<T>>&, const Compute<T>*, \
                                            Compute<T>*, Compute<T>*, Compute<T>*, Parallel);                 \
  template void pgd<T>(const Network<T>&, const Samples<Compute<T>>&, const Attack<Compute<T>>&,              \
                       const AttackResult<Compute<T>>&, Parallel)

BK_INSTANTIATE(float);
BK_INSTANTIATE(double);
BK_INSTANTIATE(BFloat16);

template void l2_pgd_step<float>(const PgdStep<float>&, Parallel);
template void l2_pgd_step<double>(const PgdStep<double>&, Parallel);
template void linf_pgd_step<float>(const PgdStep<float>&, Parallel);
template void linf_pgd_step<double>(const PgdStep<double>&, Parallel);
template void train<float>(const Training<float>&, Parallel);
template void train<double>(const Training<double>&, Parallel);

}  // namespace bk::cpu
