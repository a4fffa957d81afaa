// Products of whole matrices on tiles: the roles of matmul.h, for float32.
#pragma once

#include "matmul.h"
#include "tiles.h"

#if defined(BK_TILES)
namespace bk::cpu::BK_SIMD_LEVEL {

// Else packing costs more than tiles save: of what is packed for one product, of so many rows, or for several.
BK_HD bool worth_tiles(std::int64_t depth, std::int64_t columns) { return depth >= 64 && columns >= 128; }
BK_HD bool worth_tiles(std::int64_t rows, std::int64_t depth, std::int64_t columns) {
  return rows >= 256 && worth_tiles(depth, columns);
}

// C = or += a · B. `lower`: only what is on and below the diagonal is needed.
struct TileRows {
  const float* a;
  std::int64_t a_stride, rows;
  float* c;
  std::int64_t c_stride;
  bool lower = false;
};

// Several products with the same B. Rows of a and columns of B out of in_tile_range() are multiplied as
// vector_matmul() does: an element's bits depend on no other row or column.
struct TileMatmul {
  TileColumns columns;
  const TileRows* products;
  std::int64_t count;
  bool accumulate = false;
  const PackedColumns* packed = nullptr;  // all of `columns`, where it is packed already
};
void tile_matmul(const TileMatmul& task, const Parallel& run);

}  // namespace bk::cpu::BK_SIMD_LEVEL
#endif
