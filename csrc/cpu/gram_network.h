// A network as the gram walk sees it: W and the head near 1 in size, rows padded, and G = W Wᵀ.
#pragma once

#include "matmul.h"
#include "tasks.h"

namespace bk::cpu::BK_SIMD_LEVEL {

// W = weight_unit · w and a = head_unit · head, both units powers of two: so products of four factors stay in range
// at |W| = 1e20 and at 1e-25.
template <class A> struct GramNetwork {
  std::int64_t neurons, dim, patches, heads;
  std::int64_t width;  // padded(neurons): the stride of everything below, zero beyond the neurons
  Activation activation;
  bool flips;  // directions change by gates that flip: φ is piecewise linear
  double weight_unit = 1, head_unit = 1;
  const A* w;                        // (neurons, dim): W itself where it is in range and of this type
  const A* gram;                     // (neurons, width)
  const PackedColumns* packed_gram;  // where V changes by products with G
  const A* head;                     // (heads, width)
  const A* bias;                     // (width)
  const A* norms;                    // (width): ‖w_j‖
  // (width): what a change of 1 in S_j, for smooth φ in U_j, changes g by: ‖w_j‖ ‖head_·j‖, or ‖w_j‖
  const A* influence;

  // All patches of one sample, one behind the other.
  BK_HD std::int64_t size() const { return patches * width; }
};

// The power of two near `size` > 0 that is a normal number, as is its inverse.
template <class A> double power_near(double size) {
  constexpr int kMost = sizeof(A) == sizeof(float) ? 120 : 1000;
  const int exponent = __builtin_ilogb(size);
  return __builtin_ldexp(1, exponent > kMost ? kMost : exponent < -kMost ? -kMost : exponent);
}

// The power of two near the largest number, where that is far from 1; else 1. What is not finite spoils its own rows
// later on, and is not looked at here.
template <class T> double unit_of(const T* numbers, std::int64_t count);

// A GramNetwork with all it points to.
template <class T> class PreparedNetwork {
 public:
  using A = Compute<T>;
  // `gram`: (neurons, neurons) W Wᵀ where it is known, or null.
  PreparedNetwork(const Network<T>& source, std::int64_t index, const A* gram);

  // Before anything but the shape is read: all the rest for a walk of so many steps, and H (rows, width) = points wᵀ.
  void prepare(const A* points, std::int64_t rows, A* H, std::int64_t steps, const Parallel& run);

  GramNetwork<A> network;

 private:
  const Network<T>& source_;
  std::int64_t index_;
  const A* known_gram_;
  Numbers<A> weights_, gram_, rows_;
  PackedColumns packed_gram_;

  void set_weights(const T* weight);
  void multiply(const A* points, std::int64_t rows, A* H, const A* known, const Parallel& run);
  bool in_range() const;
  void set_rows();
};

}  // namespace bk::cpu::BK_SIMD_LEVEL
