// Parallel loops over lambdas.
#pragma once

#include "simd.h"
#include "workspace.h"

namespace bk::cpu::BK_SIMD_LEVEL {

template <class Body> BK_HD void for_each_task(const Parallel& run, std::int64_t tasks, const Body& body) {
  run_tasks(
      run, tasks, [](void* context, std::int64_t task) { (*static_cast<const Body*>(context))(task); },
      const_cast<Body*>(&body));
}

// body(run with a crew): its loops are handed to threads that wait for them.
template <class Body> BK_HD void with_crew(const Parallel& run, const Body& body) {
  lead_crew(
      run, [](void* context, const Parallel& crew) { (*static_cast<const Body*>(context))(crew); },
      const_cast<Body*>(&body));
}

// Uninitialised numbers.
template <class A> class Numbers {
 public:
  BK_HD explicit Numbers(std::int64_t count) : memory_(static_cast<std::size_t>(count) * sizeof(A)) {}
  BK_HD A* data() const { return reinterpret_cast<A*>(memory_.data()); }

 private:
  Workspace memory_;
};

}  // namespace bk::cpu::BK_SIMD_LEVEL
