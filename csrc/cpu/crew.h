// The threads of a pool, kept together through many parallel loops that follow each other within microseconds.
//
// One thread leads: it runs what there is to run, and hands out the tasks of its loops. The others wait, spinning, and
// take tasks as they come. Nobody waits for a thread that has taken none: where the system runs only one of them, for a
// while or at all, the leader does everything itself.
#pragma once

#include <atomic>
#include <cstdint>

#include "engine.h"

namespace bk::cpu {

class Crew {
 public:
  explicit Crew(std::int64_t threads) : threads_(threads) {}

  // By the leader: body(context, task) for each task. std::bad_alloc reaches it.
  void for_each(std::int64_t tasks, void (*body)(void*, std::int64_t), void* context);

  // By each thread, in any order: the first one leads.
  void join(void (*lead)(void*, const Parallel&), void* context, const Parallel& led);
  bool out_of_memory() const { return out_of_memory_.load(); }

 private:
  // Of a loop: the groups of tasks there are (upper half), and how many are taken (lower half). What is compared and
  // exchanged is the loop at hand, whichever was looked at: body and context stay until all of its groups are done.
  std::atomic<std::uint64_t> groups_{0};
  std::atomic<std::int64_t> unfinished_{0};
  std::atomic<bool> led_{false}, over_{false}, out_of_memory_{false};
  std::int64_t threads_, tasks_ = 0, group_size_ = 1;
  void (*body_)(void*, std::int64_t) = nullptr;
  void* context_ = nullptr;

  bool take_group();
};

}  // namespace bk::cpu
