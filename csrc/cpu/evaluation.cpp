#include "evaluation.h"

#include "gate.h"
#include "hidden.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

// One slab of a panel.
template <class T> struct SlabTask {
  using A = Compute<T>;
  const Layer<T>& layer;
  std::int64_t begin, end;  // neurons
  std::int64_t vectors;
  const A* x;
  const A* cotangent;  // null: no gradient
  bool value;
  A* hidden;
  HiddenUse use;
  FewSamples<A> few;
};

template <class A> void fill(A* to, std::int64_t size, A value) {
  for (std::int64_t i = 0; i < size; ++i) to[i] = value;
}

// Turns the tile's H to U and adds its share of f and of the bound. `slopes` (rows, width): several heads only.
template <class T>
void pass_gate(const SlabTask<T>& task, const Tile<T>& tile, Compute<T>* H, Compute<T>* slopes,
               const Part<Compute<T>>& part) {
  using A = Compute<T>;
  const Layer<T>& layer = task.layer;
  const A* head = layer.head + tile.begin;
  A* f = task.value ? part.f : nullptr;
  if (layer.heads == 1) {
    const A* norms = layer.norms ? layer.norms + tile.begin : head;  // an unused sum costs less than a branch
    gate<A>(layer.activation, {H, tile.rows, tile.vectors, head, task.cotangent, norms, f, part.bound});
    return;
  }
  if (f) {
    gate_elements<A>(layer.activation, H, tile.rows, tile.vectors, slopes, nullptr);
    product(head, layer.neurons, layer.heads, tile.rows, slopes, f, tile.vectors, true);
  }
  if (task.cotangent) {
    transposed_product(head, layer.neurons, tile.rows, layer.heads, task.cotangent, slopes, tile.vectors, false);
    gate_elements<A>(layer.activation, H, tile.rows, tile.vectors, nullptr, slopes);
    if (layer.norms) add_bound<A>(H, tile.rows, tile.vectors, layer.norms + tile.begin, part.bound);
  }
}

// Sets the wanted fields of `part`.
template <class T> void evaluate_slab(const SlabTask<T>& task, const Part<Compute<T>>& part, Compute<T>* scratch) {
  using A = Compute<T>;
  const Layer<T>& layer = task.layer;
  const std::int64_t width = task.vectors * Vec<A>::kLanes;
  A* tiles = scratch + kWidenedBlock<T>;
  A* slopes = tiles + kTileNeurons * width;
  A* few_scratch = slopes + (layer.heads == 1 ? 0 : kTileNeurons * width);
  if (task.value) fill(part.f, layer.heads * width, A(0));
  if (task.cotangent) fill(part.bound, width, A(0));
  if (task.cotangent && task.begin == task.end) fill(part.g, layer.size() * width, A(0));

  for (std::int64_t begin = task.begin; begin < task.end; begin += kTileNeurons) {
    const std::int64_t rows = task.end - begin < kTileNeurons ? task.end - begin : kTileNeurons;
    for (std::int64_t patch = 0; patch < layer.patches; ++patch) {
      const Tile<T> tile{layer, begin, rows, patch, task.vectors, scratch};
      A* H = task.use == HiddenUse::compute ? tiles : task.hidden + (begin * layer.patches + patch * rows) * width;
      if (task.use != HiddenUse::reuse) either_hidden(tile, task.few, task.x, H, few_scratch);
      pass_gate(task, tile, H, slopes, part);
      if (task.cotangent) either_gradient(tile, task.few, H, part.g, begin > task.begin, few_scratch);
    }
  }
}

template <class A> void add(A* sum, const A* term, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) sum[i] += term[i];
}

}  // namespace

template <class T> std::int64_t PanelEvaluation<T>::scratch_size() const {
  return kTileNeurons * width() * (layer.heads == 1 ? 1 : 2) + kWidenedBlock<T> +
         (few_.count ? FewSamples<A>::kScratch : 0);
}

template <class T> std::int64_t PanelEvaluation<T>::memory(bool keep_hidden) const {
  const std::int64_t parts = together || slabs.count < 2 ? slabs.count : 2;
  return (layer.size() + layer.heads) * width() + parts * part_size() + (together ? slabs.count : 1) * scratch_size() +
         (keep_hidden ? layer.patches * layer.neurons * width() : 0) + (few_.count ? 2 * layer.size() * width() : 0);
}

template <class T> Compute<T>* PanelEvaluation<T>::attach(A* memory, bool keep_hidden) {
  const std::int64_t parts = together || slabs.count < 2 ? slabs.count : 2;
  const std::int64_t panel = layer.size() * width();
  A* next = memory;
  const auto take = [&next](std::int64_t size) {
    A* taken = next;
    next += size;
    return taken;
  };
  x = take(panel);
  cotangent = take(layer.heads * width());
  A* first = take(parts * part_size());
  sum = {first + panel, first, first + panel + layer.heads * width()};
  scratch_ = take((together ? slabs.count : 1) * scratch_size());
  hidden = keep_hidden ? take(layer.patches * layer.neurons * width()) : nullptr;
  few_x_ = few_.count ? take(panel) : nullptr;
  few_.x = few_x_;
  gradient = few_.count ? take(panel) : sum.g;
  return next;
}

template <class T> Part<Compute<T>> PanelEvaluation<T>::part(std::int64_t slab) const {
  const std::int64_t offset = slab * part_size();
  return {sum.f + offset, sum.g + offset, sum.bound + offset};
}

template <class T> void PanelEvaluation<T>::set_x() {
  if (few_.count) store_panel(x, vectors, layer.size(), few_.count, few_x_, layer.size());
}

template <class T> void PanelEvaluation<T>::finish_gradient() {
  if (few_.count) load_panel<A>(sum.g, layer.size(), few_.count, layer.size(), vectors, gradient);
}

template <class T>
void PanelEvaluation<T>::evaluate(std::int64_t slab, const Part<A>& to, A* memory, bool value, bool with_gradient,
                                  HiddenUse use) {
  const A* at = with_gradient ? cotangent : nullptr;
  const SlabTask<T> task{layer, slabs.begin(slab), slabs.end(slab), vectors, x, at, value, hidden, use, few_};
  evaluate_slab(task, to, memory);
}

template <class T> void PanelEvaluation<T>::run(bool value, bool with_gradient, HiddenUse use) {
  for (std::int64_t slab = 0; slab < slabs.count; ++slab) {
    const Part<A> to = part(slab == 0 ? 0 : 1);
    evaluate(slab, to, scratch_, value, with_gradient, use);
    if (slab > 0) add_to_sum(to, value, with_gradient);
  }
  if (with_gradient) finish_gradient();
}

template <class T> void PanelEvaluation<T>::run_slab(std::int64_t slab, bool value, bool with_gradient, HiddenUse use) {
  evaluate(slab, part(slab), scratch_ + slab * scratch_size(), value, with_gradient, use);
}

template <class T> void PanelEvaluation<T>::join(bool value, bool with_gradient) {
  for (std::int64_t slab = 1; slab < slabs.count; ++slab) add_to_sum(part(slab), value, with_gradient);
  if (with_gradient) finish_gradient();
}

template <class T> void PanelEvaluation<T>::add_to_sum(const Part<A>& term, bool value, bool with_gradient) {
  if (value) add(sum.f, term.f, layer.heads * width());
  if (!with_gradient) return;
  add(sum.g, term.g, layer.size() * (few_.count ? few_.count : width()));
  add(sum.bound, term.bound, width());
}

template <class T> Sharing share(const Network<T>& network, std::int64_t samples, double passes, Parallel run) {
  const double work = passes * static_cast<double>(samples) * static_cast<double>(network.neurons) *
                      static_cast<double>(network.dim * network.patches) * static_cast<double>(network.networks);
  if (work < kParallelWork) run.threads = 1;
  const std::int64_t threads = run.threads;
  const Panels panels = make_panels<Compute<T>>(samples, network.networks < threads ? threads : 1);
  const std::int64_t tasks = panels.count * network.networks;
  const std::int64_t slabs = Slabs(network.neurons, network.dim, network.patches).count;
  // Together: where panels alone would leave threads idle for a fifth of the time or more, and the parts are small.
  const bool idle = tasks < 4 * threads && 5 * tasks <= 4 * threads * divide_up(tasks, threads);
  const double parts = static_cast<double>(panels.vectors * panels.lanes * network.networks * slabs) *
                       static_cast<double>(network.dim * network.patches) * sizeof(Compute<T>);
  return {panels, tasks > 0 && idle && slabs > 1 && parts < kMaxParts, run};
}

#define BK_INSTANTIATE(T)             \
  template struct PanelEvaluation<T>; \
  template Sharing share<T>(const Network<T>&, std::int64_t, double, Parallel);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)
BK_INSTANTIATE(BFloat16)

}  // namespace bk::cpu::BK_SIMD_LEVEL
