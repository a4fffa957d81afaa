// One thread of control with its own stack, switched by hand. AddressSanitizer is told of every switch.
#pragma once

#include <cstddef>
#include <functional>

namespace bk::simt {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Lets the next resume() run `body` from its beginning. A body left half-way is forgotten: its stack is reused and
  // no destructor runs, which suits kernels (they own nothing). `body` outlives the fiber's last resume().
  void begin(const std::function<void()>& body);

  // Runs the fiber until it calls suspend() or its body returns.
  void resume();

  // Called on the fiber: goes back to whoever resumed it.
  void suspend();

  bool finished() const { return finished_; }

 private:
  struct Context;
  static void enter(Fiber* self);
  static void trampoline();

  Context* context_;
  const std::function<void()>* body_ = nullptr;
  bool finished_ = true;
};

}  // namespace bk::simt
