// The dense attack: every step evaluates the network, all steps in one call.
#include <new>

#include "attack_panel.h"
#include "gram.h"
#include "half_sparse.h"
#include "row_norms.h"
#include "tasks.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

// All steps of one panel, on this thread.
template <class T> void attack_panel(const AttackProblem<T>& problem, std::int64_t task) {
  AttackPanel<T> panel(problem, task);
  const Numbers<Compute<T>> numbers(panel.memory());
  panel.attach(numbers.data());
  panel.begin();
  const std::int64_t steps = problem.attack.threat.steps;
  const bool value = problem.follows_value(), two_passes = problem.several_heads();
  const HiddenUse first = problem.keeps_hidden() ? HiddenUse::compute_and_keep : HiddenUse::compute;
  const HiddenUse second = problem.keeps_hidden() ? HiddenUse::reuse : HiddenUse::compute;
  for (std::int64_t step = 0; step < steps; ++step) {
    panel.evaluation.run(value, !two_passes, first);
    panel.see_value();
    if (panel.at_rest()) break;
    if (two_passes) panel.evaluation.run(false, true, second);
    panel.move();
  }
  panel.evaluation.run(true, false);
  panel.see_value();
  panel.end();
}

// The same with all panels in step, each pass over the slabs of all of them at once.
template <class T> class JointAttack {
 public:
  using A = Compute<T>;

  explicit JointAttack(const AttackProblem<T>& problem)
      : problem_(problem),
        count_(problem.sharing.panels.count * problem.network.networks),
        panels_(count_),
        numbers_(make_panels_of_all()) {
    A* memory = numbers_.data();
    for (std::int64_t task = 0; task < count_; ++task) memory = panels_.data()[task].attach(memory);
  }

  void run() {
    const std::int64_t steps = problem_.attack.threat.steps;
    const bool value = problem_.follows_value(), two_passes = problem_.several_heads();
    const HiddenUse first = problem_.keeps_hidden() ? HiddenUse::compute_and_keep : HiddenUse::compute;
    const HiddenUse second = problem_.keeps_hidden() ? HiddenUse::reuse : HiddenUse::compute;
    each([](AttackPanel<T>& panel) { panel.begin(); });
    for (std::int64_t step = 0; step < steps && !at_rest(); ++step) {
      each_slab(value, !two_passes, first);
      if (two_passes) {
        each([&](AttackPanel<T>& panel) {
          panel.evaluation.join(value, false);
          panel.see_value();
        });
        each_slab(false, true, second);
        each([](AttackPanel<T>& panel) {
          panel.evaluation.join(false, true);
          panel.move();
        });
      } else {
        each([&](AttackPanel<T>& panel) {
          panel.evaluation.join(value, true);
          panel.see_value();
          panel.move();
        });
      }
    }
    each_slab(true, false, HiddenUse::compute);
    each([](AttackPanel<T>& panel) {
      panel.evaluation.join(true, false);
      panel.see_value();
      panel.end();
    });
  }

 private:
  const AttackProblem<T>& problem_;
  std::int64_t count_;
  Numbers<AttackPanel<T>> panels_;
  Numbers<A> numbers_;

  // Makes the panels; returns the numbers they need together.
  std::int64_t make_panels_of_all() {
    std::int64_t memory = 0;
    for (std::int64_t task = 0; task < count_; ++task) {
      new (panels_.data() + task) AttackPanel<T>(problem_, task);
      memory += panels_.data()[task].memory();
    }
    return memory;
  }

  bool at_rest() const {
    bool rest = problem_.attack.threat.stop_early;
    for (std::int64_t task = 0; rest && task < count_; ++task) rest = panels_.data()[task].at_rest();
    return rest;
  }

  template <class Body> void each(const Body& body) {
    for_each_task(problem_.sharing.run, count_, [&](std::int64_t task) { body(panels_.data()[task]); });
  }

  void each_slab(bool value, bool gradient, HiddenUse use) {
    const std::int64_t slabs = panels_.data()[0].evaluation.slabs.count;
    for_each_task(problem_.sharing.run, count_ * slabs, [&](std::int64_t task) {
      panels_.data()[task / slabs].evaluation.run_slab(task % slabs, value, gradient, use);
    });
  }
};

}  // namespace

template <class T>
void pgd(const Network<T>& network, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
         const AttackResult<Compute<T>>& result, Parallel run) {
  if (attack.algorithm == Algorithm::gram) return gram_attack(network, x0, attack, result, run);
  using A = Compute<T>;
  const double passes = 2.0 * static_cast<double>(attack.threat.steps) + 1;
  const Sharing sharing = share(network, x0.count, passes, run);
  const bool measured = attack.threat.direction == Direction::exact || attack.algorithm == Algorithm::half_sparse;
  const bool with_norms = measured && attack.threat.steps > 0;
  const Numbers<A> norms(with_norms ? network.networks * network.neurons : 0);
  if (with_norms) row_norms(network, norms.data(), sharing.run);
  const AttackProblem<T> problem{network, x0, attack, result, with_norms ? norms.data() : nullptr, sharing};
  if (attack.algorithm == Algorithm::half_sparse) return half_sparse(problem);
  const std::int64_t panels = sharing.panels.count * network.networks;
  if (sharing.together) return JointAttack<T>(problem).run();
  for_each_task(sharing.run, panels, [&](std::int64_t task) { attack_panel(problem, task); });
}

#define BK_INSTANTIATE(T)                                                                        \
  template void pgd<T>(const Network<T>&, const Samples<Compute<T>>&, const Attack<Compute<T>>&, \
                       const AttackResult<Compute<T>>&, Parallel);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)
BK_INSTANTIATE(BFloat16)

}  // namespace bk::cpu::BK_SIMD_LEVEL
