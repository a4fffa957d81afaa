// One network in training. Every iteration looks at the samples and their attacked points, and makes a step.
//
// X (rows, d) are the patches of all samples, rows = n·P. In products, of 2·a·b·c operations:
//
//   H  = X wᵀ                   rows·d·m     less where the last columns of X are zero
//   V  = U G                    rows·m²      where the walk begins, gram_walk.h; its steps flip few gates
//   X' = X + C w                rows·m·d
//   ∇W = Uᵀ X'                  rows·m·d     U = φ'(H') ∘ R A, R the cotangent; with a mixture, X and its U below these
//   G' = w' w'ᵀ                 m²·d/2
//
// Where the rows are few beside d (carries_gram) G follows the step w' = βw − ηUᵀX', β = 1 − ηκ, instead:
//
//   G' = β²G − ηUᵀE − ηEᵀU,  E = βH' − ηX'X'ᵀU/2            rows·m² + rows²·(m + d/2)
//
// as one product of half the elements, (−ηUᵀ | −ηEᵀ) by (E; U). Its rounding errors add up, and it is taken in full at
// every kRefresh-th iteration, counted from the training's first, so that no bit depends on where calls begin and end.
// Nor does one on the threads: they share rows, never sums.
#pragma once

#include "../model/training.h"
#include "gram_walk.h"

namespace bk::cpu::BK_SIMD_LEVEL {

// Numbers that begin as zero: what lies beyond a row's end stays so.
template <class A> class Zeros : public Numbers<A> {
 public:
  explicit Zeros(std::int64_t count) : Numbers<A>(count) {
    for (std::int64_t i = 0; i < count; ++i) this->data()[i] = A(0);
  }
};

template <class A> class NetworkTraining {
 public:
  NetworkTraining(const Training<A>& task, std::int64_t index, const Parallel& run);
  NetworkTraining(const NetworkTraining&) = delete;

  // All iterations, in place.
  void run();

 private:
  static constexpr std::int64_t kRefresh = 32;

  const Training<A>& task_;
  const Descent<A>& descent_;
  std::int64_t index_;
  Parallel run_;
  std::int64_t samples_, patches_, rows_, heads_, neurons_, dim_;
  std::int64_t width_, depth_;  // padded neurons and dim: strides
  std::int64_t x_dim_ = 0;      // columns of X from here on are zero: a span may begin with that of the samples
  bool attacked_, mixed_;       // whether x' is another point than x, and whether x is learnt from beside it
  std::int64_t first_seen_, seen_, seen_stride_;  // rows of (X'; X) that are learnt from
  std::int64_t factors_stride_;                   // seen_stride, or twice that
  A *head_, *bias_, *head_bias_;                  // the present ones

  GramNetwork<A> network_{};
  GramChunk<A> chunk_{};
  Attack<A> attack_;
  Zeros<A> w_, velocity_;          // (m, depth)
  Numbers<A> gradient_;            // (m, depth)
  Zeros<A> gram_;                  // (width, width)
  PackedColumns packed_gram_;      // of this iteration, where V changes by products with G
  Zeros<A> points_;                // (2·rows, depth): X', X
  Zeros<A> network_rows_;          // (k + 3, width): the head in its unit, bias, norms, influence
  Numbers<A> chunk_rows_;          // (3 + directions, rows, width)
  Numbers<A> hidden_, values_;     // (2·rows, width): H at X' and X, and φ of it where the head is trained
  Zeros<A> factors_;               // where G is carried, E (seen_stride, width); U (2·rows and some, width)
  Zeros<A> transposed_;            // (width, factors_stride): Uᵀ, and where G is carried Eᵀ beside it
  Zeros<A> residuals_;             // (k, padded 2·rows): R, once for each patch
  Numbers<A> outputs_;             // (2k + 1, n): f(x'), f(x), and room for margins
  Numbers<A> small_gradients_;     // (k·m + m + k)
  Numbers<A> points_gram_;         // (seen, seen_stride): X'X'ᵀ
  Numbers<double> sums_, scales_;  // (m) of the rows of W; (3, n) of the walk
  std::int64_t blocks_;            // of samples that are walked together
  Numbers<A> combined_;            // (blocks, width): R A of a sample
  Numbers<GramWalk<A>> walks_;
  Numbers<A> walk_memory_;

  bool due(std::int64_t update) const { return task_.updates == 0 || (task_.iteration + update) % task_.every == 0; }
  bool carries_gram() const { return task_.gram != nullptr; }
  // Whether a step is w −= ηUᵀX' and no more: then it needs no gradient in memory.
  bool steps_at_once() const { return !task_.velocity.weight && value_of(descent_.weight_decay, 0) == 0; }
  A* E() const { return factors_.data(); }
  A* U() const { return factors_.data() + (factors_stride_ - seen_stride_) * width_; }
  std::int64_t block_begin(std::int64_t block) const { return samples_ * block / blocks_; }
  A* head_gradient() const { return small_gradients_.data(); }
  A* bias_gradient() const { return head_gradient() + heads_ * neurons_; }
  A* head_bias_gradient() const { return bias_gradient() + neurons_; }
  A* clean_outputs() const { return outputs_.data() + samples_ * heads_; }
  const A* target_of(std::int64_t sample) const {
    return attack_.target ? attack_.target + sample * (descent_.loss == TrainingLoss::squared ? heads_ : 1) : nullptr;
  }
  std::int64_t label_of(std::int64_t sample) const { return attack_.label ? attack_.label[sample] : 0; }
  double value_of(const double* numbers, double otherwise) const { return numbers ? numbers[index_] : otherwise; }
  template <class Number> Number* of_network(Number* numbers, std::int64_t size) const {
    return numbers ? numbers + index_ * size : nullptr;
  }

  // training_network.cpp: looking
  std::int64_t blocks_of_samples() const;
  std::int64_t make_walks();
  void load();
  void store() const;
  void load_head();
  void look(bool clean);
  void first_directions();
  void see_clean(std::int64_t block);
  void see_attacked(std::int64_t block);
  void learn_from(std::int64_t sample, std::int64_t row, const A* f, double share, A* combined);

  // training_update.cpp: learning
  void find_gradient(bool of_weights);
  void transpose(const A* rows, A* to) const;
  void multiply_by_points(bool accumulate, A* to) const;
  void record(std::int64_t place);
  double mean_loss(const A* f) const;
  double norm_of_gradient() const;
  double distance_from_first() const;
  void update(std::int64_t update);
  void step_numbers(A* now, const A* gradient, A* velocity, std::int64_t count, A rate, A decay, A momentum) const;
  void project(double distance);
  void step_weights(double rate, double decay, A momentum);
  void find_gram_factor(double rate, double kept);
  void set_hidden();
  void set_gram(bool in_full, double kept);
  void measure_neurons();
};

}  // namespace bk::cpu::BK_SIMD_LEVEL
