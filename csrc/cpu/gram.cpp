#include "gram.h"

#include <new>

#include "gram_walk.h"
#include "layer.h"
#include "squares.h"
#include "tasks.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

constexpr std::int64_t kChunkBytes = 1 << 27;  // of the arrays of a chunk of samples
constexpr std::int64_t kWalkBytes = 1 << 19;   // of the rows that are walked together: half of a core's L2

// The attack on one network.
template <class T> class NetworkAttack {
 public:
  using A = Compute<T>;

  NetworkAttack(const Network<T>& source, std::int64_t index, const Samples<A>& x0, const Attack<A>& attack,
                const AttackResult<A>& result, const Parallel& run)
      : attack_(attack),
        result_(result),
        run_(run),
        x0_(x0.x + index * x0.network_stride),
        first_row_(index * x0.count),
        samples_(x0.count),
        head_bias_(source.head_bias ? source.head_bias + index * source.heads : nullptr),
        prepared_(source, index, attack.gram ? attack.gram + index * source.neurons * source.neurons : nullptr),
        network_(prepared_.network),
        directions_(GramWalk<A>::directions(network_)) {}

  void run() {
    const std::int64_t arrays = 3 + directions_ + (attack_.start ? 1 : 0);
    const std::int64_t bytes = arrays * network_.size() * static_cast<std::int64_t>(sizeof(A));
    const std::int64_t most = kChunkBytes / (bytes + 1) + 1, chunks = divide_up(samples_, most);
    for (std::int64_t c = 0; c < chunks; ++c) {
      attack_chunk(samples_ * c / chunks, samples_ * (c + 1) / chunks);
    }
  }

 private:
  const Attack<A>& attack_;
  const AttackResult<A>& result_;
  Parallel run_;
  const A* x0_;
  std::int64_t first_row_, samples_;
  const A* head_bias_;
  PreparedNetwork<T> prepared_;
  const GramNetwork<A>& network_;
  std::int64_t directions_;

  std::int64_t point_size() const { return network_.patches * network_.dim; }
  void attack_chunk(std::int64_t begin, std::int64_t end);
  double set_start(std::int64_t sample, A* start) const;
  void product_with_weights(const A* points, std::int64_t stride, std::int64_t rows, A* H) const;
  void first_directions(const GramChunk<A>& chunk, GramWalk<A>* walks, std::int64_t blocks, bool summed) const;
  void set_points(const GramChunk<A>& chunk, const A* start, std::int64_t begin) const;
  std::int64_t blocks_of(std::int64_t samples) const;
};

template <class A> bool all_finite(const A* numbers, std::int64_t count) {
  using V = Vec<A>;
  V zeros(0);  // 0 · number is 0 for numbers, NaN for the rest
  std::int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) zeros += V::load(numbers + i) * V(0);
  A zero = 0;
  for (; i < count; ++i) zero += numbers[i] * A(0);
  return zero == 0 && bits(zeros == V(0)) == (std::uint32_t{1} << V::kLanes) - 1;
}

// start − x0, projected on the ball, into `start`; returns its norm. NaN where a number is none.
template <class T> double NetworkAttack<T>::set_start(std::int64_t sample, A* start) const {
  const std::int64_t size = point_size();
  const A* origin = x0_ + sample * size;
  if (!all_finite(origin, size)) return __builtin_nan("");
  if (!start) return 0;
  const A* given = attack_.start + (first_row_ + sample) * size;
  for (std::int64_t k = 0; k < size; ++k) start[k] = given[k] - origin[k];
  const double radius = static_cast<double>(attack_.threat.radius[first_row_ + sample]);
  const double norm = row_norm(start, size);
  if (!(norm > radius)) return norm;
  const A scale = radius > 0 ? static_cast<A>(radius / norm) : A(0);
  for (std::int64_t k = 0; k < size; ++k) start[k] *= scale;
  return radius;
}

// H (rows, width) = points wᵀ, the points `stride` apart.
template <class T>
void NetworkAttack<T>::product_with_weights(const A* points, std::int64_t stride, std::int64_t rows, A* H) const {
  const std::int64_t d = network_.dim;
  matmul<A>({points, stride, rows, d, network_.w, d, true, network_.neurons, H, network_.width}, run_);
}

// The first V of each direction: U G where `summed`, else (U w) wᵀ.
template <class T>
void NetworkAttack<T>::first_directions(const GramChunk<A>& chunk, GramWalk<A>* walks, std::int64_t blocks,
                                        bool summed) const {
  const std::int64_t rows = chunk.samples * network_.patches, m = network_.neurons, d = network_.dim;
  const std::int64_t width = network_.width;
  const Numbers<A> g(summed ? 0 : rows * padded(d));
  const A* U = chunk.coefficients;
  for (std::int64_t c = 0; c < directions_; ++c) {
    for_each_task(run_, blocks, [&](std::int64_t block) { walks[block].write_directions(c); });
    A* V = chunk.V + c * rows * width;
    if (summed) {
      matmul<A>({U, width, rows, m, network_.gram, width, false, width, V, width, false, network_.packed_gram}, run_);
    } else {
      matmul<A>({U, width, rows, m, network_.w, d, false, d, g.data(), padded(d)}, run_);
      product_with_weights(g.data(), padded(d), rows, V);
    }
  }
}

// x = x0 + δ, δ = start_scale · start + coefficient_scale · C w, taken back to the ball where rounding has left it.
template <class T>
void NetworkAttack<T>::set_points(const GramChunk<A>& chunk, const A* start, std::int64_t begin) const {
  const std::int64_t patches = network_.patches, d = network_.dim, size = point_size(), stride = padded(d);
  const Numbers<A> moved(chunk.samples * patches * stride);
  matmul<A>({chunk.coefficients, network_.width, chunk.samples * patches, network_.neurons, network_.w, d, false, d,
             moved.data(), stride},
            run_);
  for_each_task(run_, chunk.samples, [&](std::int64_t i) {
    const std::int64_t row = first_row_ + begin + i;
    const A by = static_cast<A>(chunk.coefficient_scales[i]), start_by = static_cast<A>(chunk.start_scales[i]);
    A* x = result_.x + row * size;
    for (std::int64_t p = 0; p < patches; ++p) {
      const A* from = moved.data() + (i * patches + p) * stride;
      for (std::int64_t k = 0; k < d; ++k) x[p * d + k] = by * from[k];
    }
    for (std::int64_t k = 0; start && k < size; ++k) x[k] += start_by * start[i * size + k];
    const double norm = row_norm(x, size), radius = static_cast<double>(attack_.threat.radius[row]);
    const A* origin = x0_ + (begin + i) * size;
    const A scale = norm > radius ? static_cast<A>(radius / norm) : A(1);
    const bool valid = result_.margin[row] == result_.margin[row];
    for (std::int64_t k = 0; k < size; ++k) {
      const A point = x[k] == 0 ? origin[k] : origin[k] + scale * x[k];  // −0 + 0 would be 0
      x[k] = valid ? point : kNaN<A>;
    }
  });
}

// Rows are walked in blocks that stay in the cache; for smooth φ, in blocks that fill the product with G.
template <class T> std::int64_t NetworkAttack<T>::blocks_of(std::int64_t samples) const {
  const std::int64_t bytes = (4 + directions_) * network_.size() * static_cast<std::int64_t>(sizeof(A));
  std::int64_t together = network_.flips && bytes > 0 ? kWalkBytes / bytes : kMaxWidth<A>;
  together = together < 1 ? 1 : together < kMaxWidth<A> ? together : kMaxWidth<A>;
  const std::int64_t blocks = divide_up(samples, together), threads = run_.threads;
  const std::int64_t shared = threads > 1 && blocks < 8 * threads ? divide_up(blocks, threads) * threads : blocks;
  return shared < samples ? shared : samples;
}

template <class T> void NetworkAttack<T>::attack_chunk(std::int64_t begin, std::int64_t end) {
  const std::int64_t samples = end - begin, rows = samples * network_.patches, all = samples * network_.size();
  const std::int64_t steps = attack_.threat.steps, blocks = blocks_of(samples);
  const Numbers<A> arrays((3 + directions_ + (attack_.start ? 1 : 0)) * all);
  const Numbers<A> start(attack_.start ? samples * point_size() : 0);
  const Numbers<double> scales(3 * samples);
  GramChunk<A> chunk{};
  chunk.samples = samples;
  chunk.hidden = arrays.data();
  chunk.slopes = chunk.hidden + all;
  chunk.coefficients = chunk.slopes + all;
  chunk.V = chunk.coefficients + all;
  chunk.start_hidden = attack_.start ? chunk.V + directions_ * all : nullptr;
  chunk.start_norms = scales.data();
  chunk.start_scales = scales.data() + samples;
  chunk.coefficient_scales = chunk.start_scales + samples;
  A* from = attack_.start ? start.data() : nullptr;
  for_each_task(run_, samples, [&](std::int64_t i) {
    scales.data()[i] = set_start(begin + i, from ? from + i * point_size() : nullptr);
  });
  const A* points = x0_ + begin * point_size();
  if (begin == 0) prepared_.prepare(points, rows, chunk.hidden, steps, run_);
  else product_with_weights(points, network_.dim, rows, chunk.hidden);
  if (from) product_with_weights(from, network_.dim, rows, chunk.start_hidden);

  const Numbers<GramWalk<A>> walks(blocks);
  std::int64_t memory = 0;
  for (std::int64_t b = 0; b < blocks; ++b) {
    const std::int64_t first = samples * b / blocks, count = samples * (b + 1) / blocks - first;
    new (walks.data() + b) GramWalk<A>(network_, chunk, attack_, head_bias_, first, first_row_ + begin + first, count);
    memory += walks.data()[b].memory();
  }
  const Numbers<A> numbers(memory);
  A* next = numbers.data();
  for (std::int64_t b = 0; b < blocks; ++b) next = walks.data()[b].attach(next);

  const bool summed = network_.neurons <= 2 * network_.dim;  // the cheaper product
  for_each_task(run_, blocks, [&](std::int64_t block) { walks.data()[block].begin(); });
  if (steps > 0) first_directions(chunk, walks.data(), blocks, summed);
  for_each_task(run_, blocks, [&](std::int64_t block) { walks.data()[block].run(result_, summed); });
  if (result_.x) set_points(chunk, from, begin);
}

}  // namespace

template <class T>
void gram_attack(const Network<T>& network, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
                 const AttackResult<Compute<T>>& result, const Parallel& run) {
  if (x0.count < 1) return;
  const double points = 2.0 * static_cast<double>(x0.count * network.patches);
  const double work = (points + static_cast<double>(network.neurons)) *
                      static_cast<double>(network.neurons * network.dim) * static_cast<double>(network.networks);
  const Parallel serial{run.for_each, 1};
  const Parallel all = work < kParallelWork ? serial : run;
  const bool networks_apart = network.networks >= all.threads;
  for_each_task(networks_apart ? all : serial, network.networks, [&](std::int64_t index) {
    NetworkAttack<T>(network, index, x0, attack, result, networks_apart ? serial : all).run();
  });
}

#define BK_INSTANTIATE(T)                                                                                \
  template void gram_attack<T>(const Network<T>&, const Samples<Compute<T>>&, const Attack<Compute<T>>&, \
                               const AttackResult<Compute<T>>&, const Parallel&);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)
BK_INSTANTIATE(BFloat16)

}  // namespace bk::cpu::BK_SIMD_LEVEL
