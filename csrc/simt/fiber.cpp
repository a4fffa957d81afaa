#include "fiber.h"

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace bk::simt {
namespace {

// Sanitized kernels keep every local in memory with a red zone around it. Untouched pages cost nothing.
constexpr std::size_t kStackBytes = 256 * 1024;

Fiber* entering = nullptr;  // hands `this` to the trampoline, which takes no argument

std::size_t guard_bytes() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

[[noreturn]] void give_up() {
  std::fputs("simt: no memory for a thread's stack\n", stderr);
  std::abort();
}

}  // namespace

#if defined(__x86_64__)

// Saves the registers that the ABI has a callee keep, swaps stack pointers, restores. swapcontext would do the same with two
// system calls, and a tile product switches some ten thousand times.
extern "C" void bk_simt_switch(void** save, void* load);
asm(R"(
.text
.globl bk_simt_switch
.type bk_simt_switch, @function
bk_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size bk_simt_switch, .-bk_simt_switch
)");

struct Fiber::Context {
  void* stack = nullptr;
  void* own = nullptr;  // stack pointers while switched out
  void* caller = nullptr;
  void* fake_own = nullptr;
  void* fake_caller = nullptr;
  const void* caller_bottom = nullptr;
  std::size_t caller_bytes = 0;

  void prepare(void (*entry)()) {
    auto** top = reinterpret_cast<void**>(static_cast<char*>(stack) + kStackBytes);
    *--top = nullptr;  // the entry's "return address": keeps its stack aligned as after a call
    *--top = reinterpret_cast<void*>(entry);
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
    own = top;
  }
  void switch_in() { bk_simt_switch(&caller, own); }
  void switch_out() { bk_simt_switch(&own, caller); }
};

#else

struct Fiber::Context {
  void* stack = nullptr;
  ucontext_t own = {};
  ucontext_t caller = {};
  void* fake_own = nullptr;
  void* fake_caller = nullptr;
  const void* caller_bottom = nullptr;
  std::size_t caller_bytes = 0;

  void prepare(void (*entry)()) {
    getcontext(&own);
    own.uc_stack.ss_sp = stack;
    own.uc_stack.ss_size = kStackBytes;
    own.uc_link = nullptr;
    makecontext(&own, entry, 0);
  }
  void switch_in() { swapcontext(&caller, &own); }
  void switch_out() { swapcontext(&own, &caller); }
};

#endif

Fiber::Fiber() : context_(new Context) {
  // Below the stack a page that cannot be touched: a kernel with too large local arrays ends there, and not in the
  // memory of another thread.
  const std::size_t guard = guard_bytes();
  void* memory = mmap(nullptr, guard + kStackBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) give_up();
  context_->stack = static_cast<char*>(memory) + guard;
  if (mprotect(context_->stack, kStackBytes, PROT_READ | PROT_WRITE) != 0) give_up();
}

Fiber::~Fiber() {
  munmap(static_cast<char*>(context_->stack) - guard_bytes(), guard_bytes() + kStackBytes);
  delete context_;
}

void Fiber::begin(const std::function<void()>& body) {
#if defined(__SANITIZE_ADDRESS__)
  // Red zones of a body that was left half-way. One that has returned left none, and for all threads of a block this
  // takes longer than most kernels.
  if (!finished_) __asan_unpoison_memory_region(context_->stack, kStackBytes);
  context_->fake_own = nullptr;
#endif
  body_ = &body;
  finished_ = false;
  context_->prepare(&Fiber::trampoline);
}

void Fiber::trampoline() { enter(entering); }

void Fiber::enter(Fiber* self) {
#if defined(__SANITIZE_ADDRESS__)
  Context& context = *self->context_;
  __sanitizer_finish_switch_fiber(nullptr, &context.caller_bottom, &context.caller_bytes);
#endif
  (*self->body_)();
  self->finished_ = true;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(nullptr, context.caller_bottom, context.caller_bytes);
#endif
  self->context_->switch_out();
  std::abort();  // a finished fiber is never resumed
}

void Fiber::resume() {
  entering = this;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&context_->fake_caller, context_->stack, kStackBytes);
#endif
  context_->switch_in();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(context_->fake_caller, nullptr, nullptr);
#endif
}

void Fiber::suspend() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&context_->fake_own, context_->caller_bottom, context_->caller_bytes);
#endif
  context_->switch_out();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(context_->fake_own, &context_->caller_bottom, &context_->caller_bytes);
#endif
}

}  // namespace bk::simt
