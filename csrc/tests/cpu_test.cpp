// What only the CPU engine has: SIMD levels, and errors that must find their way out of a thread pool.
#include <new>

#include "../cpu/workspace.h"
#include "engine_cpu.h"

namespace bk::test {
namespace {

void check_levels() {
  expect(cpu::set_simd_level("base") && cpu::simd_level() == std::string("base"), "every machine has the base level");
  for (const char* level : {"v5", "", "V4", static_cast<const char*>(nullptr)}) {
    expect(!cpu::set_simd_level(level), "a level that there is not");
  }
  expect(cpu::simd_level() == std::string("base"), "a refused level changed the level");
}

// Every task runs once, and no exception is thrown through the pool.
void check_tasks() {
  for (const auto for_each : {tasks_in_order, tasks_in_reverse, tasks_in_threads}) {
    for (const std::int64_t threads : {1, kTestThreads}) {
      for (const std::int64_t tasks : {0, 1, 2, 50}) {
        std::vector<int> runs(static_cast<std::size_t>(tasks));
        const TaskBody count = [](void* context, std::int64_t task) { ++static_cast<int*>(context)[task]; };
        cpu::run_tasks({for_each, threads}, tasks, count, runs.data());
        expect(runs == std::vector<int>(runs.size(), 1), "every task once");
      }
      bool caught = false;
      try {
        cpu::run_tasks({for_each, threads}, 5, [](void*, std::int64_t) { throw std::bad_alloc(); }, nullptr);
      } catch (const std::bad_alloc&) {
        caught = true;
      }
      expect(caught, "memory that ran out in a task is the caller's to know");
    }
  }
}

}  // namespace
}  // namespace bk::test

int main() {
  bk::test::check_levels();
  bk::test::check_tasks();
  return bk::test::finish("cpu");
}
