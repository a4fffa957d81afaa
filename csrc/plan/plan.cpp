#include "plan.h"

#include <cstdio>
#include <stdexcept>

#include "cost.h"

namespace bk::plan {
namespace {

struct Candidate {
  Algorithm algorithm;
  const char* name;
  const char* (*obstacle)(const Problem&);  // why it does not apply, or null
  Cost (*cost)(const Problem&);
  const char* work;  // of a step, for the reason
};

const char* no_obstacle(const Problem&) { return nullptr; }

const char* half_sparse_obstacle(const Problem& p) {
  if (!p.l2) return "is for l2 attacks";
  if (!p.piecewise_linear) return "needs a piecewise-linear activation";
  return p.heads == 1 ? nullptr : "is for networks of one head";
}

const char* gram_obstacle(const Problem& p) {
  if (!p.l2) return "is for l2 attacks";
  if (p.box) return "knows no box";
  return p.trajectory ? "has no trajectory to return" : nullptr;
}

// One row per algorithm that the ops can run.
constexpr Candidate kCandidates[] = {
    {Algorithm::dense, "dense", no_obstacle, dense_cost, "two products of 2·n·P·m·d"},
    {Algorithm::half_sparse, "half_sparse", half_sparse_obstacle, half_sparse_cost, "one product of 2·n·P·m·d"},
    {Algorithm::gram, "gram", gram_obstacle, gram_cost, "n·P·m and the gates that flip, or 2·n·P·m²"},
};

// The cheapest that applies, `except` left out; null if there is none.
const Candidate* cheapest(const Problem& problem, const Candidate* except = nullptr) {
  const Candidate* best = nullptr;
  for (const Candidate& candidate : kCandidates) {
    if (&candidate == except || candidate.obstacle(problem)) continue;
    if (!best || candidate.cost(problem).effort < best->cost(problem).effort) best = &candidate;
  }
  return best;
}

std::string names_that(bool (*accept)(const Problem&, const Candidate&), const Problem& problem) {
  std::string names = "'auto'";
  for (const Candidate& candidate : kCandidates) {
    if (accept(problem, candidate)) names += std::string(", '") + candidate.name + "'";
  }
  return names;
}

const Candidate& named(const Problem& problem, std::string_view name) {
  const std::string got = "algorithm: got '" + std::string(name) + "', ";
  for (const Candidate& candidate : kCandidates) {
    if (name != candidate.name) continue;
    const char* obstacle = candidate.obstacle(problem);
    if (!obstacle) return candidate;
    const auto applies = [](const Problem& p, const Candidate& one) { return !one.obstacle(p); };
    throw std::invalid_argument(got + "which " + obstacle + ", expected one of " + names_that(applies, problem));
  }
  const auto any = [](const Problem&, const Candidate&) { return true; };
  throw std::invalid_argument(got + "expected one of " + names_that(any, problem));
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

std::string reason_of(const Problem& problem, const Candidate& chosen, const Cost& cost, bool asked_for) {
  const Candidate* other = cheapest(problem, &chosen);
  std::string why = asked_for ? "as asked for" : other ? "the cheapest that applies" : "the only one that applies";
  if (other) {
    char ratio[64];
    std::snprintf(ratio, sizeof ratio, " (%.2g× the time of ", cost.effort / other->cost(problem).effort);
    why += ratio + std::string(other->name) + ")";
  }
  return std::string(chosen.name) + ", " + why + ": " + std::to_string(problem.steps) + " steps of " + chosen.work +
         " with n=" + std::to_string(problem.samples) + ", P=" + std::to_string(problem.patches) +
         ", m=" + std::to_string(problem.neurons) + ", d=" + std::to_string(problem.dim) + " on " +
         std::to_string(problem.networks) + (problem.networks == 1 ? " network" : " networks") + " make " +
         engineering(cost.flops, "FLOP") + " in all and move " + engineering(cost.bytes, "B") + ".";
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
  const Candidate& chosen = asked_for ? named(problem, algorithm) : *cheapest(problem);
  const Cost cost = chosen.cost(problem);
  return {chosen.algorithm, chosen.name, cost, reason_of(problem, chosen, cost, asked_for)};
}

Algorithm choose(const Problem& problem, std::string_view algorithm) {
  return (algorithm == "auto" ? *cheapest(problem) : named(problem, algorithm)).algorithm;
}

std::vector<std::string> available_algorithms() {
  std::vector<std::string> names = {"auto"};
  for (const Candidate& candidate : kCandidates) names.emplace_back(candidate.name);
  return names;
}

}  // namespace bk::plan
