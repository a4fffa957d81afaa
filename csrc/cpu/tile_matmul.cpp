#include "tile_matmul.h"

#if defined(BK_TILES)

#include "layer.h"
#include "tasks.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

// A stretch of depth at a time, the columns are packed; then blocks of rows, which stay in L2 while the columns stream
// by: 4 strips of 192 KiB.
constexpr std::int64_t kBlockStrips = 4;
constexpr std::int64_t kMostColumns = 2048;  // packed at a time, 12 MiB: of more, new memory would cost too much
constexpr std::int64_t kVectorLines = 64;    // rows or columns out of range that are multiplied together

BK_HD std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

BK_HD std::int64_t strips(std::int64_t lines) { return divide_up(lines, kStrip); }

// Lines out of range, `count` of them.
struct BadLines {
  std::int64_t line[kVectorLines], count = 0;

  // Those from `begin` on; moves it behind them.
  BK_HD BadLines(const std::int32_t* magnitudes, std::int64_t& begin, std::int64_t end) {
    for (; begin < end && count < kVectorLines; ++begin) {
      if (!in_tile_range(magnitudes[begin])) line[count++] = begin;
    }
  }
};

// The products with the columns that begin at `first`: all those of `packed`, which are packed already or to be packed.
class TileProduct {
 public:
  TileProduct(const TileMatmul& task, std::int64_t first, const PackedColumns& packed, PackedColumns* to_pack,
              const Parallel& run)
      : task_(task),
        first_(first),
        columns_(packed.columns()),
        packed_(packed),
        to_pack_(to_pack),
        run_(run),
        row_strips_(count_row_strips(task)),
        shares_(make_shares()),
        packed_rows_(shares_.rows * shares_.columns * block_words()),
        magnitudes_(row_strips_ * shares_.columns * kStrip) {
    for (std::int64_t i = 0; i < row_strips_ * shares_.columns * kStrip; ++i) magnitudes_.data()[i] = 0;
  }

  void run() {
    // What is out of range must be known before anything is added to what is there.
    if (task_.accumulate && packed_.stretches() > 1) each_stretch(false);
    each_stretch(true);
    std::int64_t strip = 0;
    for (std::int64_t p = 0; p < task_.count; ++p) {
      mend_rows(task_.products[p], row_magnitudes(strip, 0));
      mend_columns(task_.products[p], row_magnitudes(strip, 0));
      strip += strips(task_.products[p].rows);
    }
  }

 private:
  // Task (r, c) has row strips r, r + rows, r + 2 rows, …, which makes even shares of a triangle, and column strips
  // likewise.
  struct Shares {
    std::int64_t rows, columns;
  };
  struct RowStrip {
    const TileRows* product;
    std::int64_t row, rows;

    // Whether it is left out where columns begin at `column`.
    BK_HD bool above(std::int64_t column) const { return product->lower && column >= row + rows; }
    BK_HD float* c(std::int64_t column) const { return product->c + row * product->c_stride + column; }
  };

  const TileMatmul& task_;
  std::int64_t first_;
  const TileColumns& columns_;
  const PackedColumns& packed_;
  PackedColumns* to_pack_;
  const Parallel& run_;
  std::int64_t row_strips_;
  Shares shares_;
  Numbers<Word> packed_rows_;
  Numbers<std::int32_t> magnitudes_;  // the largest of each row, for each share of columns

  static std::int64_t count_row_strips(const TileMatmul& task) {
    std::int64_t count = 0;
    for (std::int64_t p = 0; p < task.count; ++p) count += strips(task.products[p].rows);
    return count;
  }
  Shares make_shares() const {
    const std::int64_t wanted = run_.threads > 1 ? 2 * run_.threads : 1, rows = least(wanted, row_strips_);
    return {rows, least(divide_up(wanted, rows), packed_.strips())};
  }
  std::int64_t block_words() const {
    return least(kBlockStrips, divide_up(row_strips_, shares_.rows)) * packed_.strip_words();
  }
  std::int32_t* row_magnitudes(std::int64_t strip, std::int64_t share) const {
    return magnitudes_.data() + (share * row_strips_ + strip) * kStrip;
  }
  RowStrip row_strip(std::int64_t strip) const {
    const TileRows* product = task_.products;
    for (; strip >= strips(product->rows); ++product) strip -= strips(product->rows);
    return {product, strip * kStrip, least(product->rows - strip * kStrip, kStrip)};
  }

  void each_stretch(bool multiply);
  void work(std::int64_t row_share, std::int64_t column_share, std::int64_t stretch, bool multiply) const;
  void write(const float* sums, const RowStrip& rows, const std::int32_t* magnitudes, std::int64_t strip,
             bool accumulate) const;
  void mend_rows(const TileRows& product, const std::int32_t* magnitudes) const;
  void mend_columns(const TileRows& product, const std::int32_t* magnitudes) const;
};

void TileProduct::each_stretch(bool multiply) {
  for (std::int64_t stretch = 0; stretch < packed_.stretches(); ++stretch) {
    if (to_pack_) to_pack_->pack(stretch, run_);
    for_each_task(run_, shares_.rows * shares_.columns, [&](std::int64_t share) {
      work(share / shares_.columns, share % shares_.columns, stretch, multiply);
    });
  }
}

void TileProduct::work(std::int64_t row_share, std::int64_t column_share, std::int64_t stretch, bool multiply) const {
  const Tiles tiles;
  const std::int64_t step = shares_.rows, k = packed_.begin(stretch), depth = packed_.depth(stretch);
  const std::int64_t words = packed_.strip_words();
  Word* packed = packed_rows_.data() + (row_share * shares_.columns + column_share) * block_words();
  alignas(64) float sums[kStrip * kStrip];
  for (std::int64_t first = row_share; first < row_strips_; first += kBlockStrips * step) {
    const std::int64_t count = least(kBlockStrips, divide_up(row_strips_ - first, step));
    for (std::int64_t i = 0; i < count; ++i) {
      const RowStrip rows = row_strip(first + i * step);
      if (rows.above(first_)) continue;
      const float* a = rows.product->a + rows.row * rows.product->a_stride + k;
      pack_rows(a, rows.product->a_stride, rows.rows, depth, packed + i * words,
                row_magnitudes(first + i * step, column_share));
    }
    for (std::int64_t strip = column_share; strip < packed_.strips() && multiply; strip += shares_.columns) {
      for (std::int64_t i = 0; i < count; ++i) {
        const RowStrip rows = row_strip(first + i * step);
        if (rows.above(first_ + strip * kStrip)) continue;
        tiles.multiply(packed + i * words, rows.rows, packed_.strip(strip, stretch), tile_steps(depth), sums);
        write(sums, rows, row_magnitudes(first + i * step, column_share), strip, task_.accumulate || stretch > 0);
      }
    }
  }
}

// Into C, but for what is out of range.
void TileProduct::write(const float* sums, const RowStrip& rows, const std::int32_t* magnitudes, std::int64_t strip,
                        bool accumulate) const {
  using V = Vec<float>;
  const std::int64_t stride = rows.product->c_stride, end = padded(columns_.columns);
  const std::int32_t* sizes = packed_.magnitudes() + strip * kStrip;
  for (std::int64_t j = 0; j < kStrip && strip * kStrip + j < end; j += V::kLanes) {
    float* C = rows.c(first_ + strip * kStrip + j);
    std::uint32_t good = 0;
    for (int lane = 0; lane < V::kLanes; ++lane) good |= std::uint32_t(in_tile_range(sizes[j + lane])) << lane;
    for (std::int64_t i = 0; i < rows.rows; ++i) {
      if (!in_tile_range(magnitudes[i])) continue;
      V sum = V::load(sums + i * kStrip + j);
      float* to = C + i * stride;
      if (accumulate) sum += V::load(to);
      if (good != 0xFFFF) sum = select(mask_of<float>(good), sum, V::load(to));
      sum.store(to);
    }
  }
}

// ---- what is out of range -------------------------------------------------------------------------------------------

void TileProduct::mend_rows(const TileRows& product, const std::int32_t* magnitudes) const {
  const std::int64_t depth = columns_.depth, width = padded(columns_.columns);
  for (std::int64_t next = 0; next < product.rows;) {
    const BadLines bad(magnitudes, next, product.rows);
    if (bad.count == 0) return;
    const Numbers<float> a(bad.count * depth), c(bad.count * width);
    for (std::int64_t i = 0; i < bad.count; ++i) {
      const float* row = product.a + bad.line[i] * product.a_stride;
      const float* old = product.c + bad.line[i] * product.c_stride + first_;
      for (std::int64_t k = 0; k < depth; ++k) a.data()[i * depth + k] = row[k];
      for (std::int64_t j = 0; j < width && task_.accumulate; ++j) c.data()[i * width + j] = old[j];
    }
    vector_matmul<float>({a.data(), depth, bad.count, depth, columns_.b, columns_.stride, columns_.transposed,
                          columns_.columns, c.data(), width, task_.accumulate},
                         run_);
    for (std::int64_t i = 0; i < bad.count; ++i) {
      float* to = product.c + bad.line[i] * product.c_stride + first_;
      for (std::int64_t j = 0; j < width; ++j) to[j] = c.data()[i * width + j];
    }
  }
}

// Of rows that are in range.
void TileProduct::mend_columns(const TileRows& product, const std::int32_t* magnitudes) const {
  const std::int64_t depth = columns_.depth, stride = product.c_stride;
  const std::int64_t down = columns_.transposed ? 1 : columns_.stride,
                     across = columns_.transposed ? columns_.stride : 1;
  for (std::int64_t next = 0; next < columns_.columns;) {
    const BadLines bad(packed_.magnitudes(), next, columns_.columns);
    if (bad.count == 0) return;
    const std::int64_t width = padded(bad.count);
    const Numbers<float> b(bad.count * depth), c(product.rows * width);
    for (std::int64_t j = 0; j < bad.count; ++j) {
      const float* column = columns_.b + bad.line[j] * across;
      for (std::int64_t k = 0; k < depth; ++k) b.data()[j * depth + k] = column[k * down];
      for (std::int64_t i = 0; i < product.rows && task_.accumulate; ++i) {
        c.data()[i * width + j] = product.c[i * stride + first_ + bad.line[j]];
      }
    }
    vector_matmul<float>({product.a, product.a_stride, product.rows, depth, b.data(), depth, true, bad.count, c.data(),
                          width, task_.accumulate},
                         run_);
    for (std::int64_t i = 0; i < product.rows; ++i) {
      if (!in_tile_range(magnitudes[i])) continue;
      for (std::int64_t j = 0; j < bad.count; ++j)
        product.c[i * stride + first_ + bad.line[j]] = c.data()[i * width + j];
    }
  }
}

}  // namespace

void tile_matmul(const TileMatmul& task, const Parallel& run) {
  const TileColumns& all = task.columns;
  std::int64_t rows = 0;
  for (std::int64_t p = 0; p < task.count; ++p) rows += task.products[p].rows;
  if (rows < 1) return;
  if (task.packed) return TileProduct(task, 0, *task.packed, nullptr, run).run();
  for (std::int64_t first = 0; first < all.columns; first += kMostColumns) {
    PackedColumns some({all.b + first * (all.transposed ? all.stride : 1), all.stride, all.transposed, all.depth,
                        least(all.columns - first, kMostColumns)});
    TileProduct(task, first, some, &some, run).run();
  }
}

}  // namespace bk::cpu::BK_SIMD_LEVEL
#endif
