#include <algorithm>

#include "product.cuh"

namespace bk::cuda {
namespace {

// ---- sums over parts ------------------------------------------------------------------------------------------------

constexpr int kSumOutputs = 32;                     // outputs per block: one warp wide, so that reads are contiguous
constexpr int kSumSlices = kThreads / kSumOutputs;  // threads that share an output's parts

template <class A> struct Slices {
  A v[kSumSlices][kSumOutputs];
};

template <class A> __global__ void __launch_bounds__(kThreads) sum_parts_kernel(const PartSum<A> sum) {
  BK_SHARED(Slices<A>, slices);
  const int lane = static_cast<int>(threadIdx.x) % kSumOutputs, slice = static_cast<int>(threadIdx.x) / kSumOutputs;
  const int64_t outputs = sum.groups * sum.group_size;
  const int64_t output = static_cast<int64_t>(blockIdx.x) * kSumOutputs + lane;

  A mine = A(0);
  if (output < outputs) {
    for (int64_t part = slice; part < sum.count; part += kSumSlices) mine += sum.parts[part * outputs + output];
  }
  slices.v[slice][lane] = mine;
  __syncthreads();

  if (slice != 0 || output >= outputs) return;
  A total = slices.v[0][lane];
#pragma unroll
  for (int other = 1; other < kSumSlices; ++other) total += slices.v[other][lane];
  const int64_t group = output / sum.group_size, within = output % sum.group_size;
  A& out = sum.out[group * sum.out_stride + within];
  const A offset = sum.offset ? sum.offset[group * sum.offset_period + within % sum.offset_period] : A(0);
  out = (sum.accumulate ? out : offset) + total;
}

// ---- products -------------------------------------------------------------------------------------------------------

template <class L, class R, bool kLeftTerms, bool kRightTerms>
__global__ void __launch_bounds__(kThreads, kBlocksPerProcessor<Compute<R>>)
    product_kernel(const Product<L, R> product, const int64_t split_terms) {
  using A = Compute<R>;
  BK_SHARED(Panels<R>, panels);
  const Place at =
      place_of(blockIdx.x, product.networks, ceil_div(product.rows, kTile), ceil_div(product.columns, kTile));
  const int64_t first = at.split * split_terms;
  const int64_t last = first + split_terms < product.terms ? first + split_terms : product.terms;

  Tile<A> tile;
  multiply<R>(PanelLoader<A, L, kLeftTerms>(product.left, at.network, at.row, product.rows),
              PanelLoader<A, R, kRightTerms>(product.right, at.network, at.column, product.columns), first, last,
              panels, tile);

  A* out = product.out + (at.split * product.networks + at.network) * product.out_network_stride;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) {
      const int64_t row = at.row + tile_row() + i, column = at.column + tile_column() + j;
      if (row >= product.rows || column >= product.columns) continue;
      A& element = out[row * product.columns + column];
      element = product.accumulate ? element + tile.v[i][j] : tile.v[i][j];
    }
  }
}

// 256 tiles keep the 84 to 148 multiprocessors of current devices busy. A split is worth its second pass only when it
// has 256 terms or more.
constexpr int64_t kWantedTiles = 256, kLeastTerms = 256;

template <bool kLeftTerms, bool kRightTerms, class L, class R>
int launch_product(const Product<L, R>& product, int splits, cudaStream_t stream) {
  const int64_t blocks = splits * product.networks * ceil_div(product.rows, kTile) * ceil_div(product.columns, kTile);
  return launch(product_kernel<L, R, kLeftTerms, kRightTerms>, blocks, stream, product,
                terms_per_split(product.terms, splits));
}

template <bool kLeftTerms, bool kRightTerms, class L, class R>
int multiply_split(const Product<L, R>& product, Compute<R>* parts, cudaStream_t stream) {
  const int splits = split_count(product.networks, product.rows, product.columns, product.terms);
  if (splits == 1) return launch_product<kLeftTerms, kRightTerms>(product, 1, stream);

  Product<L, R> split = product;
  split.out = parts;
  split.out_network_stride = product.rows * product.columns;
  split.accumulate = false;
  BK_TRY((launch_product<kLeftTerms, kRightTerms>(split, splits, stream)));
  return sum_parts(PartSum<Compute<R>>{parts, splits, product.networks, product.rows * product.columns, product.out,
                                       product.out_network_stride, product.accumulate, nullptr, 1},
                   stream);
}

}  // namespace

template <class A> int sum_parts(const PartSum<A>& sum, cudaStream_t stream) {
  return launch(sum_parts_kernel<A>, ceil_div(sum.groups * sum.group_size, kSumOutputs), stream, sum);
}

int split_count(int64_t networks, int64_t rows, int64_t columns, int64_t terms) {
  const int64_t tiles = networks * ceil_div(rows, kTile) * ceil_div(columns, kTile);
  if (tiles == 0 || tiles >= kWantedTiles) return 1;
  return static_cast<int>(std::max<int64_t>(1, std::min(ceil_div(kWantedTiles, tiles), terms / kLeastTerms)));
}

int64_t terms_per_split(int64_t terms, int splits) { return ceil_div(ceil_div(terms, splits), kDepth) * kDepth; }

// Split products have fewer than kWantedTiles tiles, and fewer than that again are added by rounding up.
int64_t product_workspace(int64_t networks, int64_t rows, int64_t columns, int64_t terms) {
  constexpr int64_t kMost = 2 * kWantedTiles * kTile * kTile;
  const int64_t splits = std::min(kWantedTiles, terms / kLeastTerms), elements = networks * rows * columns;
  if (splits < 2 || elements == 0) return 0;
  return elements > kMost / splits ? kMost : elements * splits;
}

template <class L, class R> int multiply_xw(const Product<L, R>& product, Compute<R>* parts, cudaStream_t stream) {
  return multiply_split<true, true>(product, parts, stream);
}
template <class L, class R> int multiply_xw_parts(const Product<L, R>& product, int splits, cudaStream_t stream) {
  return launch_product<true, true>(product, splits, stream);
}
template <class L, class R> int multiply_uw(const Product<L, R>& product, Compute<R>* parts, cudaStream_t stream) {
  return multiply_split<true, false>(product, parts, stream);
}
template <class A> int multiply_ux(const Product<A, A>& product, A* parts, cudaStream_t stream) {
  return multiply_split<false, false>(product, parts, stream);
}

template int sum_parts(const PartSum<float>&, cudaStream_t);
template int sum_parts(const PartSum<double>&, cudaStream_t);
template int multiply_xw(const Product<float, float>&, float*, cudaStream_t);
template int multiply_xw(const Product<double, double>&, double*, cudaStream_t);
template int multiply_xw(const Product<float, BFloat16>&, float*, cudaStream_t);
template int multiply_xw(const Product<BFloat16, BFloat16>&, float*, cudaStream_t);
template int multiply_xw_parts(const Product<float, float>&, int, cudaStream_t);
template int multiply_xw_parts(const Product<double, double>&, int, cudaStream_t);
template int multiply_xw_parts(const Product<float, BFloat16>&, int, cudaStream_t);
template int multiply_uw(const Product<float, float>&, float*, cudaStream_t);
template int multiply_uw(const Product<double, double>&, double*, cudaStream_t);
template int multiply_uw(const Product<float, BFloat16>&, float*, cudaStream_t);
template int multiply_ux(const Product<float, float>&, float*, cudaStream_t);
template int multiply_ux(const Product<double, double>&, double*, cudaStream_t);

}  // namespace bk::cuda
