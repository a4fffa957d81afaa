// How a network in training learns: its gradient, what is written down, the step, and H and G after it.
#include "gram_rows.h"
#include "layer.h"
#include "squares.h"
#include "training_loss.h"
#include "training_network.h"
#include "transpose.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

double norm_of_rows(const double* norms, std::int64_t rows) {
  double sum = 0;
  for (std::int64_t j = 0; j < rows; ++j) sum += norms[j] * norms[j];
  return __builtin_sqrt(sum);
}

}  // namespace

template <class A> void NetworkTraining<A>::find_gradient(bool of_weights) {
  transpose(U() + first_seen_ * width_, transposed_.data());
  if (of_weights) multiply_by_points(false, gradient_.data());
  const std::int64_t stride = padded(2 * rows_);
  for (std::int64_t c = 0; descent_.trains_head && c < heads_; ++c) {
    A* sums = head_gradient() + c * neurons_;
    for (std::int64_t j = 0; j < neurons_; ++j) sums[j] = A(0);
    for (std::int64_t i = first_seen_; i < first_seen_ + seen_; ++i) {
      const A R = residuals_.data()[c * stride + i];
      for (std::int64_t j = 0; j < neurons_; ++j) sums[j] += R * values_.data()[i * width_ + j];
    }
  }
  for (std::int64_t j = 0; descent_.trains_bias && j < neurons_; ++j) {
    A sum = 0;
    for (std::int64_t i = 0; i < seen_; ++i) sum += transposed_.data()[j * factors_stride_ + i];
    bias_gradient()[j] = sum;
  }
  for (std::int64_t c = 0; descent_.trains_head_bias && c < heads_; ++c) {
    A sum = 0;
    for (std::int64_t i = first_seen_; i < first_seen_ + seen_; i += patches_) sum += residuals_.data()[c * stride + i];
    head_bias_gradient()[c] = sum;
  }
}

// Rows (seen, width) into columns of `transposed`.
template <class A> void NetworkTraining<A>::transpose(const A* rows, A* to) const {
  constexpr std::int64_t kLanes = Vec<A>::kLanes;
  for_each_task(run_, divide_up(width_, kPadding), [&](std::int64_t strip) {
    for (std::int64_t j = strip * kPadding; j < (strip + 1) * kPadding; j += kLanes) {
      for (std::int64_t i = 0; i < seen_stride_; i += kLanes) {
        Vec<A> square[kLanes];
        for (int k = 0; k < kLanes; ++k) square[k] = Vec<A>::load(rows + (i + k) * width_ + j);
        cpu::BK_SIMD_LEVEL::transpose(square);
        for (int k = 0; k < kLanes; ++k) square[k].store(to + (j + k) * factors_stride_ + i);
      }
    }
  });
}

// `to` = or += Uᵀ X', of the rows that are learnt from.
template <class A> void NetworkTraining<A>::multiply_by_points(bool accumulate, A* to) const {
  matmul<A>({transposed_.data(), factors_stride_, neurons_, seen_, points_.data() + first_seen_ * depth_, depth_, false,
             depth_, to, depth_, accumulate},
            run_);
}

// ---- what is written down -------------------------------------------------------------------------------------------

template <class A> void NetworkTraining<A>::record(std::int64_t place) {
  const TrainingRecords<A>& records = task_.records;
  const std::int64_t at = place * task_.shape.networks + index_, size = samples_ * heads_;
  const A* attacked = attacked_ ? outputs_.data() : clean_outputs();
  if (records.attacked) copy_row(records.attacked + at * size, attacked, size);
  if (records.clean) copy_row(records.clean + at * size, clean_outputs(), size);
  if (records.attacked_loss) records.attacked_loss[at] = static_cast<A>(mean_loss(attacked));
  if (records.clean_loss) records.clean_loss[at] = static_cast<A>(mean_loss(clean_outputs()));
  if (records.gradient_norm) records.gradient_norm[at] = static_cast<A>(norm_of_gradient());
  if (records.distance) records.distance[at] = static_cast<A>(distance_from_first());
  if (records.weight_norm) {
    for_each_task(run_, neurons_, [&](std::int64_t j) { sums_.data()[j] = row_norm(w_.data() + j * depth_, dim_); });
    records.weight_norm[at] = static_cast<A>(network_.weight_unit * norm_of_rows(sums_.data(), neurons_));
  }
}

template <class A> double NetworkTraining<A>::mean_loss(const A* f) const {
  double sum = 0;
  for (std::int64_t i = 0; i < samples_; ++i) {
    sum += loss_of(descent_.loss, f + i * heads_, heads_, target_of(i), label_of(i));
  }
  return sum / static_cast<double>(samples_);
}

template <class A> double NetworkTraining<A>::norm_of_gradient() const {
  for_each_task(run_, neurons_,
                [&](std::int64_t j) { sums_.data()[j] = row_norm(gradient_.data() + j * depth_, dim_); });
  double norms[] = {norm_of_rows(sums_.data(), neurons_), 0, 0, 0};
  if (descent_.trains_head) norms[1] = row_norm(head_gradient(), heads_ * neurons_);
  if (descent_.trains_bias) norms[2] = row_norm(bias_gradient(), neurons_);
  if (descent_.trains_head_bias) norms[3] = row_norm(head_bias_gradient(), heads_);
  return norm_of_rows(norms, 4);
}

template <class A> double NetworkTraining<A>::distance_from_first() const {
  const A* first = of_network(descent_.first_weight, neurons_ * dim_);
  for_each_task(run_, neurons_, [&](std::int64_t j) {
    double sum = 0;
    for (std::int64_t k = 0; k < dim_; ++k) {
      const double moved = network_.weight_unit * w_.data()[j * depth_ + k] - first[j * dim_ + k];
      sum += moved * moved;
    }
    sums_.data()[j] = __builtin_sqrt(sum);
  });
  return norm_of_rows(sums_.data(), neurons_);
}

// ---- the step -------------------------------------------------------------------------------------------------------

template <class A> void NetworkTraining<A>::update(std::int64_t update) {
  const double rate = descent_.step_size[update * task_.shape.networks + index_];
  const double decay = value_of(descent_.weight_decay, 0);
  const A momentum = static_cast<A>(value_of(descent_.momentum, 0));
  const bool in_full = !carries_gram() || (task_.iteration + update + 1) % kRefresh == 0;
  const double unit = network_.weight_unit, kept = 1 - rate * decay;
  if (!in_full) find_gram_factor(rate / unit, kept);
  step_weights(rate / unit, decay * unit, momentum);
  const auto step = [&](A* now, const A* gradient, A* velocity, std::int64_t count) {
    step_numbers(now, gradient, velocity, count, static_cast<A>(rate), static_cast<A>(decay), momentum);
  };
  if (descent_.trains_head) {
    step(head_, head_gradient(), of_network(task_.velocity.head, heads_ * neurons_), heads_ * neurons_);
  }
  if (descent_.trains_bias) step(bias_, bias_gradient(), of_network(task_.velocity.bias, neurons_), neurons_);
  if (descent_.trains_head_bias) {
    step(head_bias_, head_bias_gradient(), of_network(task_.velocity.head_bias, heads_), heads_);
  }
  if (descent_.distance) project(descent_.distance[index_]);
  load_head();
  set_hidden();
  if (!attacked_) return;
  set_gram(in_full, kept);
  measure_neurons();
}

// `rate`: η / unit; `decay`: κ · unit. From here on `transposed` holds −η / unit times what it did.
template <class A> void NetworkTraining<A>::step_weights(double rate, double decay, A momentum) {
  for_each_task(run_, neurons_, [&](std::int64_t j) {
    A* row = transposed_.data() + j * factors_stride_;
    for (std::int64_t i = 0; i < factors_stride_; ++i) row[i] *= static_cast<A>(-rate);
  });
  if (steps_at_once()) return multiply_by_points(true, w_.data());
  for_each_task(run_, neurons_, [&](std::int64_t j) {
    A* velocity = task_.velocity.weight ? velocity_.data() + j * depth_ : nullptr;
    step_numbers(w_.data() + j * depth_, gradient_.data() + j * depth_, velocity, depth_, static_cast<A>(rate),
                 static_cast<A>(decay), momentum);
  });
}

// v ← μ v + ∇ + κθ, θ ← θ − η v
template <class A>
void NetworkTraining<A>::step_numbers(A* now, const A* gradient, A* velocity, std::int64_t count, A rate, A decay,
                                      A momentum) const {
  for (std::int64_t k = 0; k < count; ++k) {
    A step = gradient[k] + decay * now[k];
    if (velocity) step = velocity[k] = momentum * velocity[k] + step;
    now[k] -= rate * step;
  }
}

// W back into the ball around W0.
template <class A> void NetworkTraining<A>::project(double distance) {
  const double size = distance_from_first();
  if (!(size > distance)) return;
  const A* first = of_network(descent_.first_weight, neurons_ * dim_);
  const double scale = distance / size, unit = network_.weight_unit;
  for_each_task(run_, neurons_, [&](std::int64_t j) {
    A* w = w_.data() + j * depth_;
    for (std::int64_t k = 0; k < dim_; ++k) {
      const double origin = static_cast<double>(first[j * dim_ + k]);
      w[k] = static_cast<A>((origin + (unit * w[k] - origin) * scale) / unit);
    }
  });
}

// ---- what follows from W --------------------------------------------------------------------------------------------

// H without bias, where the next walk begins.
template <class A> void NetworkTraining<A>::set_hidden() {
  matmul<A>({points_.data() + rows_ * depth_, depth_, rows_, x_dim_, w_.data(), depth_, true, neurons_, chunk_.hidden,
             width_},
            run_);
}

// E of the step to come: the points, U and H are those it is made from. `rate`: η / unit.
template <class A> void NetworkTraining<A>::find_gram_factor(double rate, double kept) {
  gram_matrix(points_.data() + first_seen_ * depth_, depth_, seen_, depth_, points_gram_.data(), run_);
  matmul<A>(
      {points_gram_.data(), seen_stride_, seen_, seen_, U() + first_seen_ * width_, width_, false, width_, E(), width_},
      run_);
  const A* bias = network_.bias;
  const A by = static_cast<A>(-rate / 2), share = static_cast<A>(kept / network_.weight_unit);
  for_each_task(run_, seen_, [&](std::int64_t i) {
    A* change = E() + i * width_;
    const A* H = hidden_.data() + (first_seen_ + i) * width_;
    for (std::int64_t j = 0; j < width_; ++j) change[j] = share * (H[j] - bias[j]) + by * change[j];
  });
  transpose(E(), transposed_.data() + seen_stride_);
}

// `kept`: β.
template <class A> void NetworkTraining<A>::set_gram(bool in_full, double kept) {
  if (in_full) return gram_matrix(w_.data(), depth_, neurons_, depth_, gram_.data(), run_);
  const A share = static_cast<A>(kept * kept);
  for_each_task(run_, share == 1 ? 0 : neurons_, [&](std::int64_t j) {
    for (std::int64_t k = 0; k <= j; ++k) gram_.data()[j * width_ + k] *= share;
  });
  Matmul<A> change{transposed_.data(), factors_stride_, neurons_, factors_stride_, E(), width_, false, neurons_,
                   gram_.data(),       width_,          true};
  change.lower = true;
  matmul(change, run_);
  mirror_lower(gram_.data(), neurons_, run_);
}

// What the walk takes from G's diagonal, and from the head.
template <class A> void NetworkTraining<A>::measure_neurons() {
  A* norms = network_rows_.data() + (heads_ + 1) * width_;
  A* influence = norms + width_;
  for (std::int64_t j = 0; j < neurons_; ++j) {
    const double square = static_cast<double>(gram_.data()[j * width_ + j]);
    double heads = 0;
    for (std::int64_t c = 0; c < heads_; ++c) {
      heads += static_cast<double>(network_.head[c * width_ + j]) * network_.head[c * width_ + j];
    }
    const double norm = __builtin_sqrt(square > 0 ? square : square - square);
    norms[j] = static_cast<A>(norm);
    influence[j] = network_.flips ? static_cast<A>(norm * __builtin_sqrt(heads)) : norms[j];
  }
}

#define BK_INSTANTIATE(A)                                 \
  template void NetworkTraining<A>::find_gradient(bool);  \
  template void NetworkTraining<A>::record(std::int64_t); \
  template void NetworkTraining<A>::update(std::int64_t); \
  template void NetworkTraining<A>::set_hidden();         \
  template void NetworkTraining<A>::measure_neurons();
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)

}  // namespace bk::cpu::BK_SIMD_LEVEL
