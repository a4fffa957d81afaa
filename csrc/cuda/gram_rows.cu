// What is done to the rows of a walk in neuron space before and after it.
#include "gram_row.cuh"

namespace bk::cuda {
namespace {

// Of the largest finite number; teams are blocks here.
template <class A, class Team, class Values> __device__ double unit_of(const Team& team, int64_t count, Values values) {
  Largest<A> largest = {A(0)};
  team.for_each(count, [&](int64_t i) {
    const A size = magnitude(values(i));
    if (is_finite(size)) largest.merge({size});
  });
  return unit_near<A>(static_cast<double>(team.reduce(largest).value));
}

template <class A>
__global__ void __launch_bounds__(kThreads, kTeamBlocks)
    units_kernel(const int64_t neurons, const int64_t heads, const A* norms, const A* head, A* weight_unit,
                 A* weight_scale, A* head_unit, A* gram_scale) {
  const Team<kThreads> team;
  const int64_t network = team.row();
  const A* norm = norms + network * neurons;
  const A* a = head + network * heads * neurons;
  const double weight = unit_of<A>(team, neurons, [=](int64_t j) { return norm[j]; });
  const double heads_unit = unit_of<A>(team, heads * neurons, [=](int64_t j) { return a[j]; });
  if (team.lane() != 0) return;
  weight_unit[network] = static_cast<A>(weight);
  weight_scale[network] = static_cast<A>(1 / weight);
  head_unit[network] = static_cast<A>(heads_unit);
  if (gram_scale != nullptr) gram_scale[network] = static_cast<A>(1 / weight / weight);
}

template <class T, int kSize>
__global__ void __launch_bounds__(kThreads, kTeamBlocks)
    look_first_kernel(const GramWalk<T> p, const Gate<Compute<T>> phi) {
  using A = Compute<T>;
  const Team<kSize> team;
  if (team.row() >= p.rows.rows()) return;
  const Row<T> row(p, team.row());
  const A* bias = p.network.bias == nullptr ? nullptr : p.network.bias + row.network * row.m;
  const A* start = p.start_hidden == nullptr ? nullptr : row.of(p.start_hidden);
  const A unscale = static_cast<A>(1 / row_unit(p, row.row, start_norm(p, team, row.row)));
  const A scale = row.weight_unit;
  A *H = row.of(p.hidden), *S = row.of(p.slopes), *D = row.of(p.moved), *C = row.of(p.coefficients);
  each_neuron(team, p.network.patches, row.m, [=](int64_t i, int64_t neuron) {
    const A h0 = (bias == nullptr ? A(0) : bias[neuron]) + scale * H[i];
    H[i] = h0;
    S[i] = phi.first(start == nullptr ? h0 : h0 + scale * start[i]);
    D[i] = start == nullptr ? A(0) : start[i] * unscale;
    C[i] = A(0);
  });
}

template <class T, int kSize>
__global__ void __launch_bounds__(kThreads, kTeamBlocks) direction_kernel(const GramWalk<T> p, const int64_t head) {
  const Team<kSize> team;
  if (team.row() >= p.rows.rows()) return;
  const Row<T> row(p, team.row());
  const auto* S = row.of(p.slopes);
  auto* U = row.of(p.kept);
  each_neuron(team, p.network.patches, row.m,
              [=](int64_t i, int64_t neuron) { U[i] = S[i] * row.head_of(head, neuron); });
}

// x = x0 + δ, taken back to the ball where rounding has left it.
template <class T, int kSize>
__global__ void __launch_bounds__(kThreads, kTeamBlocks) points_kernel(const GramWalk<T> p) {
  using A = Compute<T>;
  const Team<kSize> team;
  const int64_t row = team.row();
  if (row >= p.rows.rows()) return;
  const A* origin = p.rows.origin(row);
  const A* moved = p.rows.x + row * p.rows.dim;
  const A* start = p.start_hidden == nullptr ? nullptr : p.rows.delta + row * p.rows.dim;
  const A by = static_cast<A>(p.coefficient_scales[row]), start_by = static_cast<A>(p.start_scales[row]);
  const auto delta = [=](int64_t i) { return start == nullptr ? by * moved[i] : by * moved[i] + start_by * start[i]; };
  const Projection<A> projection = project(team, p.rows.dim, Norm::l2, p.rows.threat.radius[row], delta);
  const bool good = p.rows.good[row] != 0;
  A* x = p.rows.result.x + row * p.rows.dim;
  team.for_each(p.rows.dim,
                [=](int64_t i) { x[i] = good ? displaced(origin[i], projection(delta(i))) : not_a_number<A>(); });
}

}  // namespace

template <class T>
int find_units(const Network<T>& network, const Compute<T>* norms, Compute<T>* weight_unit, Compute<T>* weight_scale,
               Compute<T>* head_unit, Compute<T>* gram_scale, cudaStream_t stream) {
  return launch(units_kernel<Compute<T>>, network.networks, stream, network.neurons, network.heads, norms, network.head,
                weight_unit, weight_scale, head_unit, gram_scale);
}

template <class T> int look_first(const GramWalk<T>& walk, cudaStream_t stream) {
  return launch_teams(walk.rows.rows(), walk.size(), look_first_kernel<T, kWarp>, look_first_kernel<T, kThreads>,
                      stream, walk, gate_of<Compute<T>>(walk.network.activation));
}

template <class T> int write_direction(const GramWalk<T>& walk, int64_t head, cudaStream_t stream) {
  return launch_teams(walk.rows.rows(), walk.size(), direction_kernel<T, kWarp>, direction_kernel<T, kThreads>, stream,
                      walk, head);
}

template <class T> int write_points(const GramWalk<T>& walk, cudaStream_t stream) {
  return launch_teams(walk.rows.rows(), walk.rows.dim, points_kernel<T, kWarp>, points_kernel<T, kThreads>, stream,
                      walk);
}

#define BK_INSTANTIATE(T)                                                                                           \
  template int find_units(const Network<T>&, const Compute<T>*, Compute<T>*, Compute<T>*, Compute<T>*, Compute<T>*, \
                          cudaStream_t);                                                                            \
  template int look_first(const GramWalk<T>&, cudaStream_t);                                                        \
  template int write_direction(const GramWalk<T>&, int64_t, cudaStream_t);                                          \
  template int write_points(const GramWalk<T>&, cudaStream_t);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)
BK_INSTANTIATE(BFloat16)
#undef BK_INSTANTIATE

}  // namespace bk::cuda
