#include "evaluation.h"
#include "tasks.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

template <class T> struct Request {
  using A = Compute<T>;
  const Network<T>& network;
  const Samples<A>& samples;
  const A* cotangent;  // null: all ones
  A* f;                // null: not wanted
  A* gx;               // null: not wanted
};

// The task-th panel, counted through all networks.
struct PanelOf {
  std::int64_t network, first, count;  // samples [first, first + count)

  PanelOf(const Panels& panels, std::int64_t task)
      : network(task / panels.count),
        first(panels.first_sample(task % panels.count)),
        count(panels.samples_of(task % panels.count)) {}
};

template <class T> PanelEvaluation<T> describe(const Request<T>& request, const Sharing& sharing, std::int64_t task) {
  const Panels& panels = sharing.panels;
  return {request.network, task / panels.count, panels, task % panels.count, sharing.together};
}

template <class T>
void load(const Request<T>& request, const Sharing& sharing, std::int64_t task, PanelEvaluation<T>& panel) {
  using A = Compute<T>;
  const PanelOf at(sharing.panels, task);
  const std::int64_t size = panel.layer.size(), heads = panel.layer.heads;
  const A* x = request.samples.x + at.network * request.samples.network_stride + at.first * size;
  load_panel(x, size, at.count, size, panel.vectors, panel.x);
  panel.set_x();
  if (!request.gx) return;
  if (request.cotangent) {
    const A* rows = request.cotangent + (at.network * request.samples.count + at.first) * heads;
    load_panel(rows, heads, at.count, heads, panel.vectors, panel.cotangent);
  } else {
    for (std::int64_t i = 0; i < heads * panel.width(); ++i) panel.cotangent[i] = A(1);
  }
}

template <class T>
void store(const Request<T>& request, const Sharing& sharing, std::int64_t task, const PanelEvaluation<T>& panel) {
  using A = Compute<T>;
  const PanelOf at(sharing.panels, task);
  const std::int64_t size = panel.layer.size(), heads = panel.layer.heads;
  const std::int64_t row = at.network * request.samples.count + at.first;
  if (request.gx) store_panel(panel.gradient, panel.vectors, size, at.count, request.gx + row * size, size);
  if (!request.f) return;
  for (std::int64_t i = 0; i < at.count; ++i) {
    for (std::int64_t c = 0; c < heads; ++c) {
      const A constant = panel.layer.head_bias ? panel.layer.head_bias[c] : A(0);
      request.f[(row + i) * heads + c] = panel.sum.f[c * panel.width() + i] + constant;
    }
  }
}

// Slabs of all panels at the same time; each step over all panels before the next.
template <class T> void evaluate_together(const Request<T>& request, const Sharing& sharing, std::int64_t panels) {
  using A = Compute<T>;
  const bool value = request.f, gradient = request.gx;
  const std::int64_t slabs = describe(request, sharing, 0).slabs.count;
  std::int64_t memory = 0;
  for (std::int64_t task = 0; task < panels; ++task) memory += describe(request, sharing, task).memory(false);
  const Numbers<A> numbers(memory);
  const Numbers<PanelEvaluation<T>> evaluations(panels);
  A* next = numbers.data();
  for (std::int64_t task = 0; task < panels; ++task) {
    evaluations.data()[task] = describe(request, sharing, task);
    next = evaluations.data()[task].attach(next, false);
  }
  for_each_task(sharing.run, panels,
                [&](std::int64_t task) { load(request, sharing, task, evaluations.data()[task]); });
  for_each_task(sharing.run, panels * slabs,
                [&](std::int64_t task) { evaluations.data()[task / slabs].run_slab(task % slabs, value, gradient); });
  for_each_task(sharing.run, panels, [&](std::int64_t task) {
    evaluations.data()[task].join(value, gradient);
    store(request, sharing, task, evaluations.data()[task]);
  });
}

template <class T> void evaluate(const Request<T>& request, Parallel run) {
  using A = Compute<T>;
  if (!request.f && !request.gx) return;
  const Sharing sharing = share(request.network, request.samples.count, request.gx ? 2 : 1, run);
  const std::int64_t panels = sharing.panels.count * request.network.networks;
  if (sharing.together) return evaluate_together(request, sharing, panels);
  for_each_task(sharing.run, panels, [&](std::int64_t task) {
    PanelEvaluation<T> panel = describe(request, sharing, task);
    const Numbers<A> numbers(panel.memory(false));
    panel.attach(numbers.data(), false);
    load(request, sharing, task, panel);
    panel.run(request.f, request.gx);
    store(request, sharing, task, panel);
  });
}

}  // namespace

template <class T>
void two_layer(const Network<T>& network, const Samples<Compute<T>>& samples, Compute<T>* f, Parallel run) {
  evaluate<T>({network, samples, nullptr, f, nullptr}, run);
}

template <class T>
void two_layer_value_and_grad(const Network<T>& network, const Samples<Compute<T>>& samples,
                              const Compute<T>* cotangent, Compute<T>* f, Compute<T>* gx, Parallel run) {
  evaluate<T>({network, samples, cotangent, f, gx}, run);
}

#define BK_INSTANTIATE(T)                                                                                     \
  template void two_layer<T>(const Network<T>&, const Samples<Compute<T>>&, Compute<T>*, Parallel);           \
  template void two_layer_value_and_grad<T>(const Network<T>&, const Samples<Compute<T>>&, const Compute<T>*, \
                                            Compute<T>*, Compute<T>*, Parallel);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)
BK_INSTANTIATE(BFloat16)

}  // namespace bk::cpu::BK_SIMD_LEVEL
