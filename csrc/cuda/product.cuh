// Products of matrices on the device, and sums over the parts that blocks leave behind.
#pragma once

#include "multiply.cuh"

namespace bk::cuda {

// out[o] = (accumulate ? out[o] : offset) + Σ_p parts[p][o], always in the same order.
// The sums come in `groups` of `group_size`; group g is written to out + g·out_stride.
template <class A> struct PartSum {
  const A* parts;  // (count, groups, group_size)
  int64_t count;
  int64_t groups;
  int64_t group_size;
  A* out;
  int64_t out_stride;
  bool accumulate;
  const A* offset;  // (groups, offset_period) or null: added to element i of a group is offset[i % offset_period]
  int64_t offset_period;
};

template <class A> int sum_parts(const PartSum<A>& sum, cudaStream_t stream);

// out (rows × columns, per network) = left (rows × terms) · right (terms × columns).
template <class L, class R> struct Product {
  using A = Compute<R>;
  Operand<L> left;
  Operand<R> right;
  int64_t networks, rows, columns, terms;
  A* out;  // rows contiguous: row r of a network is out + network·out_network_stride + r·columns
  int64_t out_network_stride;
  bool accumulate;  // add to out
  Arithmetic arithmetic = {};
};

// out (lines × lines, per network) = lines · linesᵀ; by our kernels the same bits on both sides of the diagonal.
template <class T> struct SymmetricProduct {
  Operand<T> lines;  // terms contiguous
  int64_t networks, count, terms;
  Compute<T>* out;  // (networks, count, count)
  Arithmetic arithmetic = {};
};

// How a product is cut along its terms so that even one tile occupies the device. Depends on the shape alone.
int split_count(int64_t networks, int64_t rows, int64_t columns, int64_t terms);
// Terms per split: a multiple of the panel's depth.
int64_t terms_per_split(int64_t terms, int splits);

// Numbers of workspace that suffice for this product and for every smaller one.
int64_t product_workspace(int64_t networks, int64_t rows, int64_t columns, int64_t terms);
template <class T> int64_t symmetric_workspace(int64_t networks, int64_t count, int64_t terms);

// The three roles, and W Wᵀ, of which only tiles on and below the diagonal are made. Terms are contiguous in memory on
// both sides (X Wᵀ), on the left (U W), on neither (Uᵀ X).
// multiply_xw_parts only leaves the (splits, networks, rows, columns) parts: hidden.cuh sums and gates them.
template <class L, class R> int multiply_xw(const Product<L, R>& product, Compute<R>* parts, cudaStream_t stream);
template <class L, class R> int multiply_xw_parts(const Product<L, R>& product, int splits, cudaStream_t stream);
template <class L, class R> int multiply_uw(const Product<L, R>& product, Compute<R>* parts, cudaStream_t stream);
template <class A> int multiply_ux(const Product<A, A>& product, A* parts, cudaStream_t stream);
template <class T> int multiply_ww(const SymmetricProduct<T>& product, Compute<T>* parts, cudaStream_t stream);

}  // namespace bk::cuda
