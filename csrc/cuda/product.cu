#include <algorithm>

#include "chunks.h"
#include "library_operands.cuh"
#include "product.cuh"

namespace bk::cuda {
namespace {

// ---- sums over parts ------------------------------------------------------------------------------------------------

constexpr int kSumOutputs = 32;                     // outputs per block: one warp wide, so that reads are contiguous
constexpr int kSumSlices = kThreads / kSumOutputs;  // threads that share an output's parts

template <class A> struct Slices {
  A v[kSumSlices][kSumOutputs];
};

template <class A> __device__ void write_sum(const PartSum<A>& sum, int64_t output, A total) {
  const int64_t group = sum.groups == 1 ? 0 : output / sum.group_size, within = output - group * sum.group_size;
  A& out = sum.out[group * sum.out_stride + within];
  const A offset = sum.offset ? sum.offset[group * sum.offset_period + within % sum.offset_period] : A(0);
  out = (sum.accumulate ? out : offset) + total;
}

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
  write_sum(sum, output, total);
}

// Of so few parts that slices would be empty: a thread for each output.
template <class A> __global__ void __launch_bounds__(kThreads) sum_few_parts_kernel(const PartSum<A> sum) {
  const int64_t outputs = sum.groups * sum.group_size;
  const int64_t output = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (output >= outputs) return;
  A total = A(0);
  for (int64_t part = 0; part < sum.count; ++part) total += sum.parts[part * outputs + output];
  write_sum(sum, output, total);
}

// ---- products -------------------------------------------------------------------------------------------------------

template <class L, class R, bool kLeftTerms, bool kRightTerms, Precision kPrecision, int kTileSide>
__global__ void __launch_bounds__(kThreads, kBlocksPerProcessor<Compute<R>, kTileSide>)
    product_kernel(const Product<L, R> product, const int64_t split_terms) {
  using A = Compute<R>;
  using Sums = TileSums<L, R, kPrecision, kTileSide>;
  using Memory = TileMemory<Sums, NoEpilogue>;
  constexpr int kSide = Sums::kSide;
  if (kSide != kTileSide) return;  // without tensor cores there are no large tiles, nor is one asked for
  BK_SHARED(Memory, memory);
  const Place at = place_of<kSide>(product.networks, product.rows, product.columns);
  const int64_t first = at.split * split_terms;
  const int64_t last = first + split_terms < product.terms ? first + split_terms : product.terms;

  Sums sums(product.rows - at.row());
  multiply(PanelLoader<A, L, kLeftTerms, kSide>(product.left, at.network, at.row(), product.rows),
           PanelLoader<A, R, kRightTerms, kSide>(product.right, at.network, at.column(), product.columns), first, last,
           memory.panels, sums);

  A* out = product.out + (at.split * product.networks + at.network) * product.out_network_stride;
  for_each_tile(sums, memory.after.staged, at, product.rows, product.columns, [&](const Place& place, Tile<A>& tile) {
    const int64_t row = place.row() + tile_row(), column = place.column() + tile_column();
    A* const mine = out + row * product.columns + column;
    const auto inside = [&](int i, int j) { return row + i < product.rows && column + j < product.columns; };
    if (product.accumulate) {  // all are read before one is written: they are waited for together
      Tile<A> before;
#pragma unroll
      for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
        for (int j = 0; j < kPerThread; ++j) before.v[i][j] = inside(i, j) ? mine[i * product.columns + j] : A(0);
      }
      add(tile, before);
    }
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
      for (int j = 0; j < kPerThread; ++j) {
        if (inside(i, j)) mine[i * product.columns + j] = tile.v[i][j];
      }
    }
  });
}

// ---- W Wᵀ -----------------------------------------------------------------------------------------------------------

// A tile on its way to both sides of the diagonal. One number more per row than needed: columns are read without two
// threads of a warp in one bank.
template <class A> struct MirroredTile {
  A v[kTile][kTile + 1];
};

BK_HD int64_t tiles_below(int64_t tiles) { return tiles * (tiles + 1) / 2; }
int64_t tiles_below(int64_t networks, int64_t count, int side) { return networks * tiles_below(ceil_div(count, side)); }

// Place of a tile on or below the diagonal. Rows are counted from the last: row tiles − 1 − q, whose tiles are
// tiles − q, shares a run of tiles | 1 blocks with a row from the start that fills it up.
template <int kSide> __device__ Place place_below(int64_t networks, int64_t count) {
  constexpr int kTiles = kSide / kTile;
  const int tiles = static_cast<int>(ceil_div(count, kSide)), run = tiles | 1, block = static_cast<int>(blockIdx.x);
  const int below = static_cast<int>(tiles_below(tiles)), batch = static_cast<int>(networks);
  const int matrix = block / below, within = block % below, q = within / run, rest = within % run - (tiles - q);
  return {matrix / batch, matrix % batch, kTiles * (rest < 0 ? tiles - 1 - q : q - tiles % 2),
          kTiles * (rest < 0 ? rest + tiles - q : rest)};
}

// What is above the diagonal is a copy. It is not made there, not even in the tiles that the diagonal crosses: x y and
// y x are the same pieces in another order.
template <class T, Precision kPrecision, int kTileSide>
__global__ void __launch_bounds__(kThreads, kBlocksPerProcessor<Compute<T>, kTileSide>)
    symmetric_kernel(const SymmetricProduct<T> product, const int64_t split_terms) {
  using A = Compute<T>;
  using Sums = TileSums<T, T, kPrecision, kTileSide>;
  using Memory = TileMemory<Sums, MirroredTile<A>>;
  constexpr int kSide = Sums::kSide;
  if (kSide != kTileSide) return;  // without tensor cores there are no large tiles, nor is one asked for
  using Loader = PanelLoader<A, T, true, kSide>;
  BK_SHARED(Memory, memory);
  const int64_t count = product.count;
  const Place at = place_below<kSide>(product.networks, count);
  const int64_t first = at.split * split_terms;
  const int64_t last = first + split_terms < product.terms ? first + split_terms : product.terms;

  Sums sums(count - at.row());
  multiply(Loader(product.lines, at.network, at.row(), count), Loader(product.lines, at.network, at.column(), count),
           first, last, memory.panels, sums);

  A* out = product.out + (at.split * product.networks + at.network) * count * count;
  MirroredTile<A>& mirrored = memory.after.epilogue;
  for_each_tile(sums, memory.after.staged, at, count, count, [&](const Place& place, const Tile<A>& tile) {
    if (place.column() > place.row()) return;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
      for (int j = 0; j < kPerThread; ++j) mirrored.v[tile_row() + i][tile_column() + j] = tile.v[i][j];
    }
    __syncthreads();
    const int along = static_cast<int>(threadIdx.x) % kTile;
    for (int across = static_cast<int>(threadIdx.x) / kTile; across < kTile; across += kThreads / kTile) {
      const int64_t row = place.row() + across, column = place.column() + along;
      if (row < count && column <= row) out[row * count + column] = mirrored.v[across][along];
      const int64_t mirrored_row = place.column() + across, mirrored_column = place.row() + along;
      if (mirrored_column < count && mirrored_row < mirrored_column) {
        out[mirrored_row * count + mirrored_column] = mirrored.v[along][across];
      }
    }
  });
}

// ---- splits ---------------------------------------------------------------------------------------------------------

// 256 tiles keep the 84 to 148 multiprocessors of current devices busy. A split is worth its second pass only when it
// has 256 terms or more.
constexpr int64_t kWantedTiles = 256, kLeastTerms = 256;

int splits_of(int64_t tiles, int64_t terms) {
  if (tiles == 0 || tiles >= kWantedTiles) return 1;
  return static_cast<int>(std::max<int64_t>(1, std::min(ceil_div(kWantedTiles, tiles), terms / kLeastTerms)));
}

// Numbers in the parts of a split product of so many elements, which occupies at most `most_tiles` tiles.
int64_t parts_of(int64_t elements, int64_t terms, int64_t most_tiles) {
  const int64_t most = most_tiles * kTile * kTile, splits = std::min(kWantedTiles, terms / kLeastTerms);
  if (splits < 2 || elements == 0) return 0;
  return elements > most / splits ? most : elements * splits;
}

template <bool kLeftTerms, bool kRightTerms, class L, class R>
int launch_product(const Product<L, R>& product, int splits, cudaStream_t stream) {
  const int64_t terms = terms_per_split(product.terms, splits);
  const auto tiles_of_side = [&](int side) { return tiles_of(product.networks, product.rows, product.columns, side); };
  return with_precision<L>(product.arithmetic.precision, [&](auto precision) {
    return with_side<Compute<R>>(product.arithmetic, tiles_of_side, [&](auto side, int64_t tiles) {
      return launch(product_kernel<L, R, kLeftTerms, kRightTerms, precision.value, side.value>, splits * tiles, stream,
                    product, terms);
    });
  });
}

template <class T>
constexpr LibraryNumbers kLibraryNumbers =
    sizeof(T) == sizeof(float) ? LibraryNumbers::float32 : LibraryNumbers::float64;

template <class A> int scale_result(const Product<A, A>& product, cudaStream_t stream) {
  if (product.right.scale == nullptr) return cudaSuccess;
  return scale_networks(product.out, product.networks, product.rows * product.columns, product.out_network_stride,
                        product.right.scale, stream);
}

// Of operands without their scales.
template <bool kLeftTerms, bool kRightTerms, class E> int multiply_by_library(const Product<E, E>& product) {
  const Operand<E>&left = product.left, &right = product.right;
  const Library& library = product.arithmetic.library;
  const LibraryProduct asked{
      kLibraryNumbers<E>,
      product.networks,
      product.rows,
      product.columns,
      product.terms,
      {left.data, left.network_stride, kLeftTerms ? left.stride : 1, kLeftTerms ? 1 : left.stride},
      {right.data, right.network_stride, kRightTerms ? 1 : right.stride, kRightTerms ? right.stride : 1},
      product.out,
      product.out_network_stride,
      product.accumulate,
  };
  return library.multiply(library.context, asked);
}

// The left operand has no scale, nor has the right one of a product that is added to what is there.
template <bool kLeftTerms, bool kRightTerms, class L, class R>
int leave_to_library(const Product<L, R>& product, cudaStream_t stream) {
  BK_TRY((multiply_by_library<kLeftTerms, kRightTerms>(product)));
  return scale_result(product, stream);
}

template <bool kLeftTerms, bool kRightTerms, class L, class R>
int multiply_split(const Product<L, R>& product, Compute<R>* parts, cudaStream_t stream) {
  if constexpr (!std::is_same_v<R, BFloat16>) {
    if (product.arithmetic.template wants_library<R>(product.networks, product.rows, product.columns, product.terms)) {
      return leave_to_library<kLeftTerms, kRightTerms>(product, stream);
    }
  }
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

// Terms of W Wᵀ that the library is given at once: as many as there is room for, scaled.
int64_t terms_at_once(int64_t networks, int64_t count, int64_t terms) {
  return std::min(terms, whole_tiles_below(chunk_limits.gated / at_least_one(networks * count)));
}

// For fewer networks too: their panels, longer ones, may fill what is left.
int64_t square_workspace(int64_t networks, int64_t count, int64_t terms) {
  return std::min(networks * count * terms, std::max(chunk_limits.gated, networks * count));
}

template <class T> int square_by_library(const SymmetricProduct<T>& product, T* scaled, cudaStream_t stream) {
  const int64_t count = product.count, most = terms_at_once(product.networks, count, product.terms);
  for (int64_t first = 0; first < product.terms; first += most) {
    const int64_t terms = std::min(most, product.terms - first);
    BK_TRY(copy_scaled(product.lines, product.networks, count, first, terms, scaled, stream));
    const Operand<T> lines{scaled, count * terms, terms};
    const Product<T, T> panel{lines, lines,       product.networks, count,     count,
                              terms, product.out, count * count,    first > 0, product.arithmetic};
    BK_TRY((multiply_by_library<true, true>(panel)));
  }
  return cudaSuccess;
}

}  // namespace

template <class A> int sum_parts(const PartSum<A>& sum, cudaStream_t stream) {
  const int64_t outputs = sum.groups * sum.group_size;
  if (sum.count < kSumSlices) return launch(sum_few_parts_kernel<A>, ceil_div(outputs, kThreads), stream, sum);
  return launch(sum_parts_kernel<A>, ceil_div(outputs, kSumOutputs), stream, sum);
}

int split_count(int64_t networks, int64_t rows, int64_t columns, int64_t terms) {
  return splits_of(tiles_of(networks, rows, columns), terms);
}

int64_t terms_per_split(int64_t terms, int splits) { return ceil_div(ceil_div(terms, splits), kDepth) * kDepth; }

// Split products have fewer than kWantedTiles tiles, and fewer than that again are added by rounding up.
int64_t product_workspace(int64_t networks, int64_t rows, int64_t columns, int64_t terms) {
  return parts_of(networks * rows * columns, terms, 2 * kWantedTiles);
}
// As many are made here, and as many again are copies.
template <class T> int64_t symmetric_workspace(int64_t networks, int64_t count, int64_t terms) {
  const int64_t parts = parts_of(networks * count * count, terms, 4 * kWantedTiles);
  return std::is_same_v<T, BFloat16> ? parts : std::max(parts, square_workspace(networks, count, terms));
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

template <class T> int multiply_ww(const SymmetricProduct<T>& product, Compute<T>* parts, cudaStream_t stream) {
  if constexpr (!std::is_same_v<T, BFloat16>) {
    if (product.arithmetic.template wants_library<T>(product.networks, product.count, product.count, product.terms)) {
      return square_by_library(product, parts, stream);
    }
  }
  const auto tiles_of_side = [&](int side) { return tiles_below(product.networks, product.count, side); };
  const int splits = splits_of(tiles_of_side(kTile), product.terms);
  SymmetricProduct<T> split = product;
  if (splits > 1) split.out = parts;
  BK_TRY(with_precision<T>(product.arithmetic.precision, [&](auto precision) {
    return with_side<Compute<T>>(product.arithmetic, tiles_of_side, [&](auto side, int64_t tiles) {
      return launch(symmetric_kernel<T, precision.value, side.value>, splits * tiles, stream, split,
                    terms_per_split(product.terms, splits));
    });
  }));
  if (splits == 1) return cudaSuccess;
  const int64_t size = product.count * product.count;
  return sum_parts(PartSum<Compute<T>>{parts, splits, product.networks, size, product.out, size, false, nullptr, 1},
                   stream);
}

template int64_t symmetric_workspace<float>(int64_t, int64_t, int64_t);
template int64_t symmetric_workspace<double>(int64_t, int64_t, int64_t);
template int64_t symmetric_workspace<BFloat16>(int64_t, int64_t, int64_t);
template int sum_parts(const PartSum<float>&, cudaStream_t);
template int sum_parts(const PartSum<double>&, cudaStream_t);
template int multiply_xw(const Product<float, float>&, float*, cudaStream_t);
template int multiply_xw(const Product<double, double>&, double*, cudaStream_t);
template int multiply_xw(const Product<float, BFloat16>&, float*, cudaStream_t);
template int multiply_xw_parts(const Product<float, float>&, int, cudaStream_t);
template int multiply_xw_parts(const Product<double, double>&, int, cudaStream_t);
template int multiply_xw_parts(const Product<float, BFloat16>&, int, cudaStream_t);
template int multiply_uw(const Product<float, float>&, float*, cudaStream_t);
template int multiply_uw(const Product<double, double>&, double*, cudaStream_t);
template int multiply_uw(const Product<float, BFloat16>&, float*, cudaStream_t);
template int multiply_ux(const Product<float, float>&, float*, cudaStream_t);
template int multiply_ux(const Product<double, double>&, double*, cudaStream_t);
template int multiply_ww(const SymmetricProduct<float>&, float*, cudaStream_t);
template int multiply_ww(const SymmetricProduct<double>&, double*, cudaStream_t);
template int multiply_ww(const SymmetricProduct<BFloat16>&, float*, cudaStream_t);

}  // namespace bk::cuda
