// The planner: which exact algorithm an attack should use, and what that costs. A pure function of the problem's sizes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "../model/threat.h"

namespace bk::plan {

enum class Device { cpu, cuda };

// K steps of l2 PGD on n samples of P patches in d dimensions, against B networks of m neurons and k heads.
struct Problem {
  std::int64_t samples;    // n
  std::int64_t dim;        // d
  std::int64_t neurons;    // m
  std::int64_t patches;    // P
  std::int64_t heads;      // k
  std::int64_t steps;      // K
  std::int64_t networks;   // B
  bool piecewise_linear;   // φ is identity, ReLU or leaky ReLU
  std::int64_t item_size;  // bytes of a weight as it is stored: 2, 4 or 8
  Device device;
  // What an algorithm may not be able to do.
  bool l2 = true;
  bool box = false;
  bool trajectory = false;
  // What costs it time, or saves it.
  bool start = false;
  bool knows_gram = false;
  bool needs_x = true;
};

struct Cost {
  double flops;   // multiplications and additions
  double bytes;   // to and from main memory
  double effort;  // its time, in multiplications and additions of a large matrix product
};

struct Plan {
  Algorithm algorithm;
  std::string name;  // of the algorithm
  Cost cost;
  std::string reason;  // one sentence with the numbers that decided
};

// The plan of `algorithm`, or of the cheapest one for "auto". Throws std::invalid_argument for any other name and for
// sizes that no problem has.
Plan plan(const Problem& problem, std::string_view algorithm);

// The algorithm of that plan, without its words: for each call of an op. The sizes are those of tensors.
Algorithm choose(const Problem& problem, std::string_view algorithm);

// The names that `plan` accepts, "auto" first.
std::vector<std::string> available_algorithms();

}  // namespace bk::plan
