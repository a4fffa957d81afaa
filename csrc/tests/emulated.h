// For tests of the emulated CUDA kernels: what a launch says, and running a case under several orders of the threads.
#pragma once

#include <string>

#include "../simt/block.h"
#include "check.h"

namespace bk::test {

inline void expect_launched(int error, const std::string& what) {
  expect(error == 0, what + ": the launch failed: " + simt::last_failure());
}

inline int other_order_turn = 0;

// Runs `produce` (→ a tuple or vector of outputs) under two thread orders; the bits must not depend on them. The second
// is the reverse or a random one by turns: each kernel is called in many cases, and so runs in all three.
template <class Produce, class Same> auto under_all_orders(const std::string& what, Produce produce, Same same) {
  simt::set_order({simt::Order::forward, 0});
  auto first = produce();
  simt::set_order(other_order_turn++ % 2 == 0 ? simt::Order{simt::Order::reverse, 0}
                                              : simt::Order{simt::Order::random, 7});
  expect(same(first, produce()), what + ": the result depends on the order of the threads");
  simt::set_order({simt::Order::forward, 0});
  return first;
}

}  // namespace bk::test
