// Products of panels by multiply-adds, 4 × 4 numbers per thread: double everywhere, float before sm_80.
#pragma once

#include "tile.cuh"

namespace bk::cuda {

template <class A> struct alignas(16) Quad {
  A v[kPerThread];
};

// One quad more per line than needed: without it all terms of a line would meet in the same bank.
template <class A> struct PlainPanel {
  Quad<A> quad[kDepth][kLanes + 1];

  __device__ void put(int line, int term, A value, A of_next_term) {
    quad[term][line / kPerThread].v[line % kPerThread] = value;
    quad[term + 1][line / kPerThread].v[line % kPerThread] = of_next_term;
  }
};

template <class A> class PlainPanels {
 public:
  __device__ PlainPanel<A>& left() { return left_; }
  __device__ PlainPanel<A>& right() { return right_; }

 private:
  PlainPanel<A> left_, right_;
};

template <class A> class PlainSums {
 public:
  using Panels = PlainPanels<A>;

  __device__ PlainSums() {
    clear(outer_);
    clear(inner_);
  }
  __device__ void add_product(Panels& panels) {
#pragma unroll
    for (int term = 0; term < kDepth; ++term) {
      const Quad<A> left = panels.left().quad[term][threadIdx.x / kLanes];
      const Quad<A> right = panels.right().quad[term][threadIdx.x % kLanes];
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
  __device__ void write(Panels&, Tile<A>& tile) const { tile = outer_; }

 private:
  Tile<A> outer_, inner_;
};

}  // namespace bk::cuda
