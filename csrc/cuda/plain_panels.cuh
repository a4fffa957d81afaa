// Products of panels by multiply-adds, 4 × 4 numbers per thread: double everywhere, float before sm_80.
#pragma once

#include "tile.cuh"

namespace bk::cuda {

// One quad of lines more per term than needed: without it all terms of a line would meet in the same bank.
template <class A> struct PlainPanel {
  Quad<A> quad[kDepth][kLanes + 1];

  __device__ void put(int line, int quad_of_terms, const Quad<A>& value) {
#pragma unroll
    for (int term = 0; term < kQuad; ++term) {
      quad[kQuad * quad_of_terms + term][line / kPerThread].v[line % kPerThread] = value.v[term];
    }
  }
};

template <class A> class PlainSums {
 public:
  using Number = A;
  static constexpr int kSide = kTile;

  struct Panels {
    PlainPanel<A> left, right;
  };
  struct Staged {};

  __device__ explicit PlainSums(int64_t) {
    clear(outer_);
    clear(inner_);
  }
  __device__ void add_product(const Panels& panels) {
#pragma unroll
    for (int term = 0; term < kDepth; ++term) {
      const Quad<A> left = panels.left.quad[term][threadIdx.x / kLanes];
      const Quad<A> right = panels.right.quad[term][threadIdx.x % kLanes];
#pragma unroll
      for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
        for (int j = 0; j < kPerThread; ++j) inner_.v[i][j] += left.v[i] * right.v[j];
      }
    }
  }
  __device__ void close_sum() {
    add(outer_, inner_);
    clear(inner_);
  }
  __device__ void write(int, int, Staged&, Tile<A>& tile) const { tile = outer_; }

 private:
  Tile<A> outer_, inner_;
};

}  // namespace bk::cuda
