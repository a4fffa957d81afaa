#include "precision.h"

#include <dlfcn.h>

namespace bk::ops {
namespace {

// The stable ABI has no word for the switch. What torch's products ask is at::Context::float32Precision; it is looked up
// by name, so that a torch without it loads this library too. Numbers of ATen/Context.h, torch 2.11 to 2.13;
// python_tests/test_precision.py sees when they change.
enum class Backend { generic, cuda };
enum class Operation { all, conv, rnn, matmul };
enum class Answer { none, ieee, tf32 };

using GlobalContext = void* (*)();
using Float32Precision = Answer (*)(const void* context, Backend, Operation);

}  // namespace

bool allows_tf32() {
  static void* const library = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
  const auto find = [](const char* name) { return library == nullptr ? nullptr : dlsym(library, name); };
  static const auto context = reinterpret_cast<GlobalContext>(find("_ZN2at13globalContextEv"));
  static const auto ask =
      reinterpret_cast<Float32Precision>(find("_ZNK2at7Context16float32PrecisionENS_14Float32BackendENS_9Float32OpE"));
  return context != nullptr && ask != nullptr && ask(context(), Backend::cuda, Operation::matmul) == Answer::tf32;
}

}  // namespace bk::ops

// For Python, which tests it.
extern "C" __attribute__((visibility("default"))) bool benign_kernels_allows_tf32() { return bk::ops::allows_tf32(); }
