#include "gram_network.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

constexpr double kNear = 0x1p16;  // sizes between 1/kNear and kNear need no unit

}  // namespace

template <class T> double unit_of(const T* numbers, std::int64_t count) {
  double largest = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double size = __builtin_fabs(static_cast<double>(widen(numbers[i])));
    if (size > largest && size - size == 0) largest = size;
  }
  if (largest == 0 || (largest < kNear && largest > 1 / kNear)) return 1;
  return power_near<Compute<T>>(largest);
}

template <class T>
PreparedNetwork<T>::PreparedNetwork(const Network<T>& source, std::int64_t index, const A* gram)
    : network{},
      source_(source),
      index_(index),
      known_gram_(gram),
      weights_(0),
      gram_(0),
      rows_((source.heads + 3) * padded(source.neurons)) {
  network.neurons = source.neurons;
  network.dim = source.dim;
  network.patches = source.patches;
  network.heads = source.heads;
  network.width = padded(source.neurons);
  network.activation = source.activation;
  network.flips = piecewise_linear(source.activation);
}

template <class T>
void PreparedNetwork<T>::prepare(const A* points, std::int64_t rows, A* H, std::int64_t steps, const Parallel& run) {
  const std::int64_t size = network.neurons * network.dim;
  const T* weight = source_.weight + index_ * size;
  set_weights(weight);
  multiply(points, rows, H, known_gram_, run);
  if (!in_range()) {
    network.weight_unit = unit_of(weight, size);
    if (network.weight_unit != 1) {
      set_weights(weight);
      multiply(points, rows, H, nullptr, run);
    }
  }
  set_rows();
  if (!network.flips && steps > 1) {
    packed_gram_ = pack_once(network.gram, network.width, network.neurons, network.width, run);
  }
  network.packed_gram = &packed_gram_;
}

template <class T> void PreparedNetwork<T>::set_weights(const T* weight) {
  if constexpr (sizeof(T) == sizeof(A)) {
    network.w = weight;
    if (network.weight_unit == 1) return;
  }
  const std::int64_t size = network.neurons * network.dim;
  weights_ = Numbers<A>(size);
  const A factor = static_cast<A>(1 / network.weight_unit);
  for (std::int64_t i = 0; i < size; ++i) weights_.data()[i] = widen(weight[i]) * factor;
  network.w = weights_.data();
}

// H, and G unless it is known.
template <class T>
void PreparedNetwork<T>::multiply(const A* points, std::int64_t rows, A* H, const A* known, const Parallel& run) {
  const std::int64_t m = network.neurons, d = network.dim, width = network.width;
  const Matmul<A> hidden{points, d, rows, d, network.w, d, true, m, H, width};
  network.gram = known;
  if (known) matmul(hidden, run);
  if (known && width == m) return;
  gram_ = Numbers<A>(m * width);
  network.gram = gram_.data();
  if (!known) return matmul_and_gram(hidden, gram_.data(), run);
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < width; ++j) gram_.data()[i * width + j] = j < m ? known[i * m + j] : A(0);
  }
}

// By the diagonal of G, which costs no pass over W.
template <class T> bool PreparedNetwork<T>::in_range() const {
  double largest = 0;
  for (std::int64_t j = 0; j < network.neurons; ++j) {
    const double square = static_cast<double>(network.gram[j * network.width + j]);
    if (!(square <= largest)) largest = square;
  }
  return largest < kNear * kNear && largest > 1 / (kNear * kNear);
}

template <class T> void PreparedNetwork<T>::set_rows() {
  const std::int64_t m = network.neurons, width = network.width, heads = network.heads;
  A* head = rows_.data();
  A* bias = head + heads * width;
  A* norms = bias + width;
  A* influence = norms + width;
  for (std::int64_t i = 0; i < (heads + 3) * width; ++i) head[i] = A(0);
  const A* a = source_.head + index_ * heads * m;
  network.head_unit = unit_of(a, heads * m);
  for (std::int64_t c = 0; c < heads; ++c) {
    for (std::int64_t j = 0; j < m; ++j) {
      head[c * width + j] = a[c * m + j] * static_cast<A>(1 / network.head_unit);
      influence[j] += head[c * width + j] * head[c * width + j];
    }
  }
  for (std::int64_t j = 0; j < m; ++j) {
    const A square = network.gram[j * width + j];
    if (source_.bias) bias[j] = source_.bias[index_ * m + j];
    norms[j] = static_cast<A>(__builtin_sqrt(static_cast<double>(square)));
    influence[j] =
        network.flips ? static_cast<A>(__builtin_sqrt(static_cast<double>(influence[j] * square))) : norms[j];
  }
  network.head = head;
  network.bias = bias;
  network.norms = norms;
  network.influence = influence;
}

template double unit_of<float>(const float*, std::int64_t);
template double unit_of<double>(const double*, std::int64_t);
template double unit_of<BFloat16>(const BFloat16*, std::int64_t);
template class PreparedNetwork<float>;
template class PreparedNetwork<double>;
template class PreparedNetwork<BFloat16>;

}  // namespace bk::cpu::BK_SIMD_LEVEL
