#include "engine.h"
#include "step.cuh"

namespace bk::cuda {
namespace {

template <class A, int kSize>
__global__ void __launch_bounds__(kThreads, kTeamBlocks) pgd_step_kernel(const PgdStep<A> p, const Norm norm) {
  const Team<kSize> team;
  const int64_t row = team.row();
  if (row >= p.rows) return;
  const A* x = p.x + row * p.dim;
  const A* origin = p.origin + row * p.dim;
  const A* grad = p.grad + row * p.dim;
  A* out = p.out + row * p.dim;
  const A step = p.step[row], radius = p.radius[row];

  const auto g = [=](int64_t i) { return grad[i]; };
  const A peak = peak_of<A>(team, p.dim, g);
  bool good = is_finite(step) && step >= A(0) && is_valid_size(radius) && is_finite(peak);
  good = all_finite<A>(team, p.dim, [=](int64_t i) { return x[i]; }) && good;
  good = all_finite<A>(team, p.dim, [=](int64_t i) { return origin[i]; }) && good;

  Ascent<A> ascent = {good && step > A(0) && peak > A(0), norm, peak, step};
  if (ascent.moves && norm == Norm::l2) {
    ascent.rate = static_cast<A>(step / norm_over_peak(team, p.dim, peak, g));
  }
  const auto moved = [=](int64_t i) { return ascent(x[i] - origin[i], grad[i]); };
  const Projection<A> projection = project(team, p.dim, norm, radius, moved);
  good = good && projection.finite;

  team.for_each(p.dim, [=](int64_t i) {
    if (!good) {
      out[i] = not_a_number<A>();
    } else if (radius == A(0)) {
      out[i] = origin[i];
    } else if (ascent.moves || projection.outside) {
      out[i] = displaced(origin[i], projection(moved(i)));
    } else {
      out[i] = x[i];
    }
  });
}

template <class A> int pgd_step(const PgdStep<A>& step, Norm norm, cudaStream_t stream) {
  if (step.dim == 0) return cudaSuccess;
  return launch_teams(step.rows, step.dim, pgd_step_kernel<A, kWarp>, pgd_step_kernel<A, kThreads>, stream, step, norm);
}

}  // namespace

template <class A> int l2_pgd_step(const PgdStep<A>& step, cudaStream_t stream) {
  return pgd_step(step, Norm::l2, stream);
}
template <class A> int linf_pgd_step(const PgdStep<A>& step, cudaStream_t stream) {
  return pgd_step(step, Norm::linf, stream);
}

template int l2_pgd_step(const PgdStep<float>&, cudaStream_t);
template int l2_pgd_step(const PgdStep<double>&, cudaStream_t);
template int linf_pgd_step(const PgdStep<float>&, cudaStream_t);
template int linf_pgd_step(const PgdStep<double>&, cudaStream_t);

}  // namespace bk::cuda
