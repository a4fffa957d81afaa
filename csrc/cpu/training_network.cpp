#include "training_network.h"

#include <new>

#include "gate.h"
#include "gram_rows.h"
#include "layer.h"
#include "training_loss.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

constexpr std::int64_t kWalkBytes = 1 << 19;  // of the rows that are walked together: a quarter of a core's L2

// The same attack, of one network.
template <class A> Attack<A> attack_of(const Training<A>& task, std::int64_t index) {
  Attack<A> attack = task.attack;
  const std::int64_t n = task.samples.count, first = index * n;
  if (attack.threat.radius.values) attack.threat.radius.values += first;
  if (attack.threat.step.values) attack.threat.step.values += first;
  if (attack.target) attack.target += first * (task.descent.loss == TrainingLoss::squared ? task.shape.heads : 1);
  if (attack.label) attack.label += first;
  return attack;
}

}  // namespace

template <class A>
NetworkTraining<A>::NetworkTraining(const Training<A>& task, std::int64_t index, const Parallel& run)
    : task_(task),
      descent_(task.descent),
      index_(index),
      run_(run),
      samples_(task.samples.count),
      patches_(task.shape.patches),
      rows_(samples_ * patches_),
      heads_(task.shape.heads),
      neurons_(task.shape.neurons),
      dim_(task.shape.dim),
      width_(padded(neurons_)),
      depth_(padded(dim_)),
      attacked_(task.attack.threat.steps > 0),
      mixed_(attacked_ && task.descent.mixture),
      first_seen_(attacked_ ? 0 : rows_),
      seen_(mixed_ ? 2 * rows_ : rows_),
      seen_stride_(padded(seen_)),
      factors_stride_(task.gram ? 2 * seen_stride_ : seen_stride_),
      head_(of_network(task.now.head, heads_ * neurons_)),
      bias_(of_network(task.now.bias, neurons_)),
      head_bias_(of_network(task.now.head_bias, heads_)),
      attack_(attack_of(task, index)),
      w_(neurons_ * depth_),
      velocity_(task.velocity.weight ? neurons_ * depth_ : 0),
      gradient_(neurons_ * depth_),
      gram_(width_ * width_),
      points_(2 * rows_ * depth_),
      network_rows_((heads_ + 3) * width_),
      chunk_rows_((3 + heads_) * rows_ * width_),
      hidden_(2 * rows_ * width_),
      values_(task.descent.trains_head ? 2 * rows_ * width_ : 0),
      factors_((factors_stride_ - seen_stride_ + 2 * rows_ + kPadding) * width_),
      transposed_(width_ * factors_stride_),
      residuals_(heads_ * padded(2 * rows_)),
      outputs_((2 * heads_ + 1) * samples_),
      small_gradients_((heads_ + 1) * neurons_ + heads_),
      points_gram_(task.gram ? seen_ * seen_stride_ : 0),
      sums_(neurons_),
      scales_(3 * samples_),
      blocks_(blocks_of_samples()),
      combined_(blocks_ * width_),
      walks_(blocks_),
      walk_memory_(make_walks()) {
  A* next = walk_memory_.data();
  for (std::int64_t block = 0; block < blocks_; ++block) next = walks_.data()[block].attach(next);
}

// In blocks that stay in the cache; for smooth φ, in blocks that fill the product with G.
template <class A> std::int64_t NetworkTraining<A>::blocks_of_samples() const {
  const std::int64_t bytes = (4 + heads_) * patches_ * width_ * static_cast<std::int64_t>(sizeof(A));
  std::int64_t together = piecewise_linear(task_.shape.activation) && bytes > 0 ? kWalkBytes / bytes : kMaxWidth<A>;
  together = together < 1 ? 1 : together < kMaxWidth<A> ? together : kMaxWidth<A>;
  const std::int64_t least = run_.threads > 1 ? 4 * run_.threads : 1, wanted = divide_up(samples_, together);
  const std::int64_t blocks = wanted > least ? wanted : least;
  return blocks < samples_ ? blocks : samples_;
}

template <class A> std::int64_t NetworkTraining<A>::make_walks() {
  network_.neurons = neurons_;
  network_.dim = depth_;
  network_.patches = patches_;
  network_.heads = heads_;
  network_.width = width_;
  network_.activation = task_.shape.activation;
  network_.flips = piecewise_linear(network_.activation);
  network_.w = w_.data();
  network_.gram = gram_.data();
  network_.packed_gram = &packed_gram_;
  network_.head = network_rows_.data();
  network_.bias = network_.head + heads_ * width_;
  network_.norms = network_.bias + width_;
  network_.influence = network_.norms + width_;
  chunk_.samples = samples_;
  chunk_.hidden = chunk_rows_.data();
  chunk_.slopes = chunk_.hidden + rows_ * width_;
  chunk_.coefficients = chunk_.slopes + rows_ * width_;
  chunk_.V = chunk_.coefficients + rows_ * width_;
  chunk_.start_norms = scales_.data();
  chunk_.start_scales = scales_.data() + samples_;
  chunk_.coefficient_scales = chunk_.start_scales + samples_;
  for (std::int64_t i = 0; i < samples_; ++i) scales_.data()[i] = 0;
  std::int64_t memory = 0;
  for (std::int64_t block = 0; block < blocks_; ++block) {
    const std::int64_t begin = block_begin(block), count = block_begin(block + 1) - begin;
    new (walks_.data() + block) GramWalk<A>(network_, chunk_, attack_, head_bias_, begin, begin, count);
    memory += walks_.data()[block].memory();
  }
  return memory;
}

// ---- the state ------------------------------------------------------------------------------------------------------

template <class A> void NetworkTraining<A>::load() {
  const A* x = task_.samples.x + index_ * task_.samples.network_stride;
  const A* W = of_network(task_.now.weight, neurons_ * dim_);
  const A* velocity = of_network(task_.velocity.weight, neurons_ * dim_);
  network_.weight_unit = unit_of(W, neurons_ * dim_);
  network_.head_unit = unit_of(head_, heads_ * neurons_);
  const A scale = static_cast<A>(1 / network_.weight_unit);
  for (std::int64_t i = 0; i < rows_; ++i) {
    copy_row(points_.data() + (rows_ + i) * depth_, x + i * dim_, dim_);
    std::int64_t end = dim_;
    while (end > x_dim_ && x[i * dim_ + end - 1] == 0) --end;
    if (end > x_dim_) x_dim_ = end;
  }
  for (std::int64_t j = 0; j < neurons_; ++j) {
    for (std::int64_t k = 0; k < dim_; ++k) w_.data()[j * depth_ + k] = W[j * dim_ + k] * scale;
    if (velocity) copy_row(velocity_.data() + j * depth_, velocity + j * dim_, dim_);
  }
  load_head();
  set_hidden();
  const A* gram = task_.knows_gram ? of_network(task_.gram, neurons_ * neurons_) : nullptr;
  for (std::int64_t j = 0; gram && j < neurons_; ++j) {
    for (std::int64_t k = 0; k < neurons_; ++k) gram_.data()[j * width_ + k] = gram[j * neurons_ + k] * scale * scale;
  }
  if (!gram && attacked_) gram_matrix(w_.data(), depth_, neurons_, depth_, gram_.data(), run_);
  measure_neurons();
}

template <class A> void NetworkTraining<A>::store() const {
  A* W = of_network(task_.now.weight, neurons_ * dim_);
  A* velocity = of_network(task_.velocity.weight, neurons_ * dim_);
  A* gram = of_network(task_.gram, neurons_ * neurons_);
  const A unit = static_cast<A>(network_.weight_unit);
  for (std::int64_t j = 0; j < neurons_; ++j) {
    for (std::int64_t k = 0; k < dim_; ++k) W[j * dim_ + k] = w_.data()[j * depth_ + k] * unit;
    if (velocity) copy_row(velocity + j * dim_, velocity_.data() + j * depth_, dim_);
    for (std::int64_t k = 0; gram && k < neurons_; ++k) {
      gram[j * neurons_ + k] = gram_.data()[j * width_ + k] * unit * unit;
    }
  }
}

template <class A> void NetworkTraining<A>::load_head() {
  A* head = network_rows_.data();
  A* bias = head + heads_ * width_;
  const A scale = static_cast<A>(1 / network_.head_unit);
  for (std::int64_t c = 0; c < heads_; ++c) {
    for (std::int64_t j = 0; j < neurons_; ++j) head[c * width_ + j] = head_[c * neurons_ + j] * scale;
  }
  for (std::int64_t j = 0; bias_ && j < neurons_; ++j) bias[j] = bias_[j];
}

template <class A> void NetworkTraining<A>::run() {
  load();
  std::int64_t place = 0;
  for (std::int64_t update = 0; update < task_.updates || update == 0; ++update) {
    const bool recorded = due(update);
    look(mixed_ || !attacked_ || (recorded && task_.records.clean));
    find_gradient(!steps_at_once() || (recorded && task_.records.gradient_norm));
    if (recorded) record(place++);
    if (task_.updates > 0) this->update(update);
  }
  store();
}

// ---- looking --------------------------------------------------------------------------------------------------------

// The outputs at the attacked points, and at the samples themselves; H, U and residuals of what is learnt from.
template <class A> void NetworkTraining<A>::look(bool clean) {
  for_each_task(run_, blocks_, [&](std::int64_t block) {
    walks_.data()[block].begin();
    if (clean) see_clean(block);
    if (attacked_) walks_.data()[block].write_directions(0);
  });
  if (!attacked_) return;
  if (!network_.flips && attack_.threat.steps > 1) {
    packed_gram_ = pack_once(gram_.data(), width_, neurons_, width_, run_);
  }
  first_directions();
  for_each_task(run_, blocks_, [&](std::int64_t block) { see_attacked(block); });
  matmul<A>(
      {chunk_.coefficients, width_, rows_, neurons_, w_.data(), depth_, false, depth_, points_.data(), depth_, true},
      run_);
}

template <class A> void NetworkTraining<A>::first_directions() {
  const std::int64_t directions = GramWalk<A>::directions(network_);
  for (std::int64_t c = 0; c < directions; ++c) {
    if (c > 0) {
      for_each_task(run_, blocks_, [&](std::int64_t block) { walks_.data()[block].write_directions(c); });
    }
    matmul<A>({chunk_.coefficients, width_, rows_, neurons_, gram_.data(), width_, false, width_,
               chunk_.V + c * rows_ * width_, width_, false, &packed_gram_},
              run_);
  }
}

// f(x), from the H that a walk begins with, and what is learnt from x.
template <class A> void NetworkTraining<A>::see_clean(std::int64_t block) {
  A* values = combined_.data() + block * width_;
  for (std::int64_t i = block_begin(block); i < block_begin(block + 1); ++i) {
    A* f = clean_outputs() + i * heads_;
    for (std::int64_t c = 0; c < heads_; ++c) {
      double sum = 0;
      for (std::int64_t p = 0; p < patches_; ++p) {
        A* H = chunk_.hidden + (i * patches_ + p) * width_;
        gate_elements<A>(network_.activation, H, 1, width_ / Vec<A>::kLanes, values, nullptr);
        sum += dot(values, network_.head + c * width_, width_);
      }
      f[c] = static_cast<A>(sum * network_.head_unit) + (head_bias_ ? head_bias_[c] : A(0));
    }
    copy_row(hidden_.data() + (rows_ + i * patches_) * width_, chunk_.hidden + i * patches_ * width_,
             patches_ * width_);
    const double share = attacked_ ? 1 - value_of(descent_.mixture, 1) : 1;
    if (mixed_ || !attacked_) learn_from(i, rows_, f, share, values);
  }
}

// The walk, X as what is to become X', and what is learnt from X'.
template <class A> void NetworkTraining<A>::see_attacked(std::int64_t block) {
  const AttackResult<A> result{nullptr, outputs_.data(), outputs_.data() + 2 * samples_ * heads_, nullptr};
  GramWalk<A>& walk = walks_.data()[block];
  walk.run(result, true);
  walk.write_hidden(hidden_.data());
  A* combined = combined_.data() + block * width_;
  for (std::int64_t i = block_begin(block); i < block_begin(block + 1); ++i) {
    const A scale = static_cast<A>(chunk_.coefficient_scales[i]);
    A* C = chunk_.coefficients + i * patches_ * width_;
    for (std::int64_t j = 0; j < patches_ * width_; ++j) C[j] *= scale;
    copy_row(points_.data() + i * patches_ * depth_, points_.data() + (rows_ + i * patches_) * depth_,
             patches_ * depth_);
    learn_from(i, 0, outputs_.data() + i * heads_, value_of(descent_.mixture, 1), combined);
  }
}

// R, and U = φ'(H) ∘ R A, of a sample among the rows that begin at `row`.
template <class A>
void NetworkTraining<A>::learn_from(std::int64_t sample, std::int64_t row, const A* f, double share, A* combined) {
  const std::int64_t begin = row + sample * patches_, stride = padded(2 * rows_);
  A* R = residuals_.data() + begin;
  cotangent(descent_.loss, f, heads_, target_of(sample), label_of(sample), share / static_cast<double>(samples_), R,
            stride);
  for (std::int64_t c = 0; c < heads_; ++c) {
    for (std::int64_t p = 1; p < patches_; ++p) R[c * stride + p] = R[c * stride];
  }
  combine(combined, network_.head, width_, R, stride, heads_, width_);
  const A unit = static_cast<A>(network_.head_unit);
  for (std::int64_t j = 0; j < width_ && unit != 1; ++j) combined[j] *= unit;
  for (std::int64_t p = begin; p < begin + patches_; ++p) {
    A* U = this->U() + p * width_;
    copy_row(U, hidden_.data() + p * width_, width_);
    gate_elements<A>(network_.activation, U, 1, width_ / Vec<A>::kLanes,
                     descent_.trains_head ? values_.data() + p * width_ : nullptr, combined);
  }
}

#define BK_INSTANTIATE(A)                                                                          \
  template NetworkTraining<A>::NetworkTraining(const Training<A>&, std::int64_t, const Parallel&); \
  template void NetworkTraining<A>::load_head();                                                   \
  template void NetworkTraining<A>::run();
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)

}  // namespace bk::cpu::BK_SIMD_LEVEL
