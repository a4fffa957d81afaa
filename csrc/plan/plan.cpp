#include "plan.h"

#include <cstdio>
#include <stdexcept>

#include "cost.h"

namespace bk::plan {
namespace {

struct Algorithm {
  const char* name;
  bool (*applies)(const Problem&);
  Cost (*cost)(const Problem&);
  const char* work;  // what dominates, for the reason
};

// One row per algorithm that the ops can run.
constexpr Algorithm kAlgorithms[] = {
    {"dense", [](const Problem&) { return true; }, dense_cost, "4·n·P·m·d"},
};

double weight_of(const Problem& problem, const Algorithm& algorithm) {
  const Cost cost = algorithm.cost(problem);
  return cost.flops + flops_per_byte(problem.device) * cost.bytes;
}

const Algorithm& cheapest(const Problem& problem) {
  const Algorithm* best = nullptr;
  for (const Algorithm& candidate : kAlgorithms) {
    if (!candidate.applies(problem)) continue;
    if (best == nullptr || weight_of(problem, candidate) < weight_of(problem, *best)) best = &candidate;
  }
  return *best;
}

const Algorithm& named(const Problem& problem, std::string_view name) {
  for (const Algorithm& candidate : kAlgorithms) {
    if (name != candidate.name) continue;
    if (candidate.applies(problem)) return candidate;
    throw std::invalid_argument("algorithm: got '" + std::string(name) + "', which does not apply to this network");
  }
  std::string names;
  for (const std::string& accepted : available_algorithms()) names += (names.empty() ? "'" : ", '") + accepted + "'";
  throw std::invalid_argument("algorithm: got '" + std::string(name) + "', expected one of " + names);
}

void check(const char* name, std::int64_t value, std::int64_t least) {
  if (value < least)
    throw std::invalid_argument(std::string(name) + ": got " + std::to_string(value) + ", expected an integer ≥ " +
                                std::to_string(least));
}

std::string engineering(double value, const char* unit) {
  constexpr const char* kPrefixes[] = {"", "k", "M", "G", "T", "P", "E"};
  int prefix = 0;
  for (; value >= 1000 && prefix < 6; ++prefix) value /= 1000;
  char text[64];
  std::snprintf(text, sizeof text, "%.3g %s%s", value, kPrefixes[prefix], unit);
  return text;
}

std::string reason_of(const Problem& problem, const Algorithm& chosen, const Cost& cost, bool asked_for) {
  constexpr std::size_t kCount = sizeof kAlgorithms / sizeof *kAlgorithms;
  const char* why = asked_for     ? "as asked for"
                    : kCount == 1 ? "the only algorithm available"
                                  : "the cheapest that applies";
  return std::string(chosen.name) + ", " + why + ": " + std::to_string(problem.steps) + " steps of " + chosen.work +
         " with n=" + std::to_string(problem.samples) + ", P=" + std::to_string(problem.patches) +
         ", m=" + std::to_string(problem.neurons) + ", d=" + std::to_string(problem.dim) + " on " +
         std::to_string(problem.networks) + (problem.networks == 1 ? " network" : " networks") + " make " +
         engineering(cost.flops, "FLOP") + " and move " + engineering(cost.bytes, "B") + ".";
}

}  // namespace

Plan plan(const Problem& problem, std::string_view algorithm) {
  check("n", problem.samples, 0);
  check("d", problem.dim, 0);
  check("m", problem.neurons, 0);
  check("patches", problem.patches, 1);
  check("heads", problem.heads, 1);
  check("steps", problem.steps, 0);
  check("networks", problem.networks, 0);
  const bool asked_for = algorithm != "auto";
  const Algorithm& chosen = asked_for ? named(problem, algorithm) : cheapest(problem);
  const Cost cost = chosen.cost(problem);
  return {chosen.name, cost, reason_of(problem, chosen, cost, asked_for)};
}

std::vector<std::string> available_algorithms() {
  std::vector<std::string> names = {"auto"};
  for (const Algorithm& algorithm : kAlgorithms) names.emplace_back(algorithm.name);
  return names;
}

}  // namespace bk::plan
