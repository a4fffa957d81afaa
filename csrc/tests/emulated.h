// For tests of the emulated CUDA kernels: what a launch says, and running a case under several orders of the threads.
#pragma once

#include <string>

#include "../simt/block.h"
#include "check.h"

namespace bk::test {

inline void expect_launched(int error, const std::string& what) {
  expect(error == 0, what + ": the launch failed: " + simt::last_failure());
}

// Runs `produce` (→ a tuple or vector of outputs) under several thread orders; the bits must not depend on them.
template <class Produce, class Same> auto under_all_orders(const std::string& what, Produce produce, Same same) {
  simt::set_order({simt::Order::forward, 0});
  auto first = produce();
  for (const simt::Order order : {simt::Order{simt::Order::reverse, 0}, simt::Order{simt::Order::random, 7}}) {
    simt::set_order(order);
    expect(same(first, produce()), what + ": the result depends on the order of the threads");
  }
  simt::set_order({simt::Order::forward, 0});
  return first;
}

}  // namespace bk::test
