// float32 products on the tile registers of AMX, which multiply bfloat16 numbers, 16 × 32 × 16 at a time.
//
// A float32 number is the sum of three pieces of eight bits each, hi + mid + lo, exactly. A product is the sum of six of
// the nine products of pieces; the other three are below 2⁻²³ of it, and mostly far below. Sums run in float32:
// first those of the small products, then hi · hi is added, with one rounding per 32 terms.
//
// Tiles take numbers below 2⁻¹²⁶, and results, for zero, and know no infinity: see in_tile_range().
#pragma once

#include "simd.h"

#if defined(BK_HAS_TILES) && defined(__AVX512BW__)
#define BK_TILES 1

namespace bk::cpu::BK_SIMD_LEVEL {

constexpr std::int64_t kTileRows = 16, kTileDepth = 32;
constexpr int kPieces = 3;
// Rows and columns are packed in strips of two tiles: per step of kTileDepth, the tiles of hi, of mid and of lo.
constexpr std::int64_t kStripTiles = 2, kStrip = kStripTiles * kTileRows;
using Word = std::uint32_t;  // numbers k and k + 16 of a step
constexpr std::int64_t kTileWords = kTileRows * kTileDepth / 2, kPieceWords = kStripTiles * kTileWords;
constexpr std::int64_t kStepWords = kPieces * kPieceWords;

BK_HD std::int64_t tile_steps(std::int64_t depth) { return (depth + kTileDepth - 1) / kTileDepth; }

// Whether rows and columns with this largest magnitude, given by its bits, keep their accuracy on tiles.
BK_HD bool in_tile_range(std::int32_t magnitude) {
  constexpr std::int32_t kOne = 127, kMantissa = 23;
  return magnitude == 0 || (magnitude >= (kOne - 40) << kMantissa && magnitude <= (kOne + 40) << kMantissa);
}

// A strip from `count` ≤ kStrip rows of `depth` numbers, `stride` apart; zero beyond them. Raises `magnitudes`, one for
// each row, to the bits of its largest magnitude.
void pack_rows(const float* rows, std::int64_t stride, std::int64_t count, std::int64_t depth, Word* strip,
               std::int32_t* magnitudes);
// The same of columns that are given as rows.
void pack_transposed(const float* rows, std::int64_t stride, std::int64_t count, std::int64_t depth, Word* strip,
                     std::int32_t* magnitudes);
// The same of `count` columns of B (depth, columns), in as many strips as they need, `strip_words` apart.
void pack_columns(const float* B, std::int64_t stride, std::int64_t count, std::int64_t depth, Word* strips,
                  std::int64_t strip_words, std::int32_t* magnitudes);

// Tile registers are a thread's own while it lives.
class Tiles {
 public:
  Tiles();
  ~Tiles();
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  // sums (kStrip, kStrip) = rows · columns over `steps` steps. With `count` ≤ kTileRows, its rows beyond are not written.
  void multiply(const Word* rows, std::int64_t count, const Word* columns, std::int64_t steps, float* sums) const;
};

}  // namespace bk::cpu::BK_SIMD_LEVEL
#endif
