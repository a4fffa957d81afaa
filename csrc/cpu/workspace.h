// Memory and threads as the kernels of every level use them. Defined once, in dispatch.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine.h"

namespace bk::cpu {

// Uninitialised memory, aligned to a cache line. Throws std::bad_alloc. A thread keeps up to 64 MiB of what it has given
// back: memory that is new to a process costs more than most of what is done in it.
class Workspace {
 public:
  explicit Workspace(std::size_t bytes);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  Workspace& operator=(Workspace&& other);  // trades memory
  BK_HD char* data() const { return static_cast<char*>(memory_); }

 private:
  void* memory_;
  std::size_t bytes_;  // may be more than was asked for
};

// body(context, task) for each task, in the pool if there are several of each; std::bad_alloc reaches the caller.
void run_tasks(const Parallel& run, std::int64_t tasks, void (*body)(void*, std::int64_t), void* context);

// Whether products of float32 numbers run on AMX tiles.
bool tiles_in_use();

// lead(context, run with a crew of all its threads), crew.h.
void lead_crew(const Parallel& run, void (*lead)(void* context, const Parallel& crew), void* context);

}  // namespace bk::cpu
