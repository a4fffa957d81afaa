// How V follows the direction in the gram walk.
#include "gram_rows.h"
#include "gram_walk.h"

namespace bk::cpu::BK_SIMD_LEVEL {

// The last `flips` flips, so many that a product is faster, into `change`.
template <class A> void GramWalk<A>::set_aside(std::int64_t flips) {
  for (; flips > 0; --flips) {
    const Flip& flip = flips_[--flip_count_];
    change_[flip.sample * size() + flip.patch * network_.width + flip.neuron] = flip.by;
  }
}

// V += Σ ΔS_j head_j G_j for each head, a few rows of G at a time.
template <class A> void GramWalk<A>::follow_flips() {
  const std::int64_t width = network_.width;
  for (std::int64_t c = 0; c < directions_; ++c) {
    const A* head = network_.head + c * width;
    for (std::int64_t k = 0; k < flip_count_;) {
      const Flip& first = flips_[k];
      const A* rows[kRowsAtOnce];
      A by[kRowsAtOnce] = {};
      for (int r = 0; r < kRowsAtOnce; ++r) rows[r] = network_.gram;
      for (int r = 0; r < kRowsAtOnce && k < flip_count_; ++k, ++r) {
        const Flip& flip = flips_[k];
        if (flip.sample != first.sample || flip.patch != first.patch) break;
        rows[r] = network_.gram + flip.neuron * width;
        by[r] = flip.by * head[flip.neuron];
      }
      add_multiples(V(c, first.sample) + first.patch * width, rows, by, width);
    }
  }
}

// V += ΔU G for samples [begin, end) at once; for piecewise-linear φ `change` is ΔS, zero where V is up to date.
template <class A> void GramWalk<A>::add_changes(std::int64_t begin, std::int64_t end) {
  const std::int64_t width = network_.width, rows = (end - begin) * network_.patches;
  A* all = change_ + begin * size();
  const Numbers<A> scaled(network_.flips ? rows * width : 0);
  for (std::int64_t c = 0; c < directions_; ++c) {
    for (std::int64_t k = 0; network_.flips && k < rows; ++k) {
      multiply_row(scaled.data() + k * width, all + k * width, network_.head + c * width, width);
    }
    const A* changes = network_.flips ? scaled.data() : all;
    matmul<A>({changes, width, rows, network_.neurons, network_.gram, width, false, width, V(c, begin), width, true,
               network_.packed_gram},
              {});
  }
  for (std::int64_t k = 0; network_.flips && k < rows * width; ++k) all[k] = A(0);
}

// ‖g‖² and the bound of its rounding.
template <class A> void GramWalk<A>::measure(std::int64_t i) {
  const std::int64_t width = network_.width;
  const A* heads = network_.flips ? combine_heads(i) : nullptr;
  const A* now = V(0, i);
  largest_[i] = 1;
  if (directions_ > 1) {
    largest_[i] = 0;
    for (std::int64_t c = 0; c < directions_; ++c) {
      const double size = __builtin_fabs(static_cast<double>(cotangent_[c * lanes_.width() + i]));
      if (size > largest_[i]) largest_[i] = size;
    }
    combine(V_now_ + i * size(), V(0, i), chunk_.samples * size(), cotangent_ + i, lanes_.width(), directions_, size());
    now = V_now_ + i * size();
  }
  square_[i] = bound_[i] = 0;
  for (std::int64_t p = 0; p < network_.patches; ++p) {
    const Measures sums = measure_row(now + p * width, row(chunk_.slopes, i) + p * width, heads, network_.norms, width);
    square_[i] += sums.square;
    bound_[i] += sums.bound;
  }
  if (square_[i] < 0) square_[i] = 0;
}

// V afresh where it has cancelled.
template <class A> void GramWalk<A>::refresh(std::int64_t begin, std::int64_t end) {
  std::int64_t stale[kMaxWidth<A>], count = 0;
  for (std::int64_t i = begin; i < end; ++i) {
    if (drift_[i] * largest_[i] * largest_[i] > 16 * square_[i] && lanes_.valid[i] != 0) stale[count++] = i;
  }
  if (count == 0) return;
  const std::int64_t width = network_.width, rows = count * network_.patches, d = network_.dim;
  const Numbers<A> U(rows * width), g(rows * padded(d));
  for (std::int64_t c = 0; c < directions_; ++c) {
    for (std::int64_t k = 0; k < rows; ++k) {
      const A* S = row(chunk_.slopes, stale[k / network_.patches]) + k % network_.patches * width;
      if (network_.flips) multiply_row(U.data() + k * width, S, network_.head + c * width, width);
      else copy_row(U.data() + k * width, S, width);
    }
    matmul<A>({U.data(), width, rows, network_.neurons, network_.w, d, false, d, g.data(), padded(d)}, {});
    matmul<A>({g.data(), padded(d), rows, d, network_.w, d, true, network_.neurons, U.data(), width}, {});
    for (std::int64_t k = 0; k < count; ++k) copy_row(V(c, stale[k]), U.data() + k * size(), size());
  }
  for (std::int64_t k = 0; k < count; ++k) {
    drift_[stale[k]] = 0;
    measure(stale[k]);
  }
}

template class GramWalk<float>;
template class GramWalk<double>;

}  // namespace bk::cpu::BK_SIMD_LEVEL
