#include "tiles.h"

#if defined(BK_TILES)

#include "transpose.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

using V = Vec<float>;
using Bits = V::Bits;
using Unsigned = V::Unsigned;
static_assert(V::kLanes == kTileRows);

// Eight bits of `rest`, rounded, which are taken off it.
BK_HD Bits take_piece(V& rest) {
  const Bits piece = (rest.bits() + 0x8000) & ~0xFFFF;
  rest = rest - V::of_bits(piece);
  return piece;
}

BK_HD void write_pair(Bits low, Bits high, Word* to) {
  const Bits shifted = reinterpret_cast<Bits>(reinterpret_cast<Unsigned>(low) >> 16);
  V::of_bits(shifted | high).store(reinterpret_cast<float*>(to));
}

// The pieces of numbers k and k + 16 of a step, into a row of the tile of each piece.
BK_HD void write_pieces(V first, V second, Word* to) {
#pragma GCC unroll 2
  for (int piece = 0; piece + 1 < kPieces; ++piece) {
    const Bits low = take_piece(first), high = take_piece(second);
    write_pair(low, high, to + piece * kPieceWords);
  }
  write_pair(first.bits(), second.bits(), to + (kPieces - 1) * kPieceWords);  // eight bits are left
}

BK_HD Bits magnitudes_of(V a, V b) {
  const Bits first = a.bits() & 0x7FFFFFFF, second = b.bits() & 0x7FFFFFFF;
  return first > second ? first : second;
}

constexpr std::int64_t kAhead = 128;  // numbers of a row that are fetched before their use

// A tile of each piece from a square of 16 × 32 numbers.
BK_HD void pack_square(const float* rows, std::int64_t stride, Word* to, Bits* largest) {
#pragma GCC unroll 4
  for (std::int64_t i = 0; i < kTileRows; ++i, rows += stride) {
    __builtin_prefetch(rows + kAhead);
    __builtin_prefetch(rows + kAhead + V::kLanes);
    const V first = V::load(rows), second = V::load(rows + V::kLanes);
    const Bits sizes = magnitudes_of(first, second);
    largest[i] = sizes > largest[i] ? sizes : largest[i];
    write_pieces(first, second, to + i * V::kLanes);
  }
}

// The same from `count` rows of `depth` numbers, and zeros.
BK_HD void pack_part(const float* rows, std::int64_t stride, std::int64_t count, std::int64_t depth, Word* to,
                     Bits* largest) {
  if (count >= kTileRows && depth >= kTileDepth) return pack_square(rows, stride, to, largest);
  float square[kTileRows * kTileDepth] = {};
  for (std::int64_t i = 0; i < kTileRows && i < count; ++i) {
    for (std::int64_t k = 0; k < kTileDepth && k < depth; ++k) square[i * kTileDepth + k] = rows[i * stride + k];
  }
  pack_square(square, kTileDepth, to, largest);
}

BK_HD void transpose_tile(Word* tile) {
  V square[V::kLanes];
  float* numbers = reinterpret_cast<float*>(tile);
#pragma GCC unroll 16
  for (int i = 0; i < V::kLanes; ++i) square[i] = V::load(numbers + i * V::kLanes);
  transpose(square);
#pragma GCC unroll 16
  for (int i = 0; i < V::kLanes; ++i) square[i].store(numbers + i * V::kLanes);
}

template <bool kTransposed>
void pack_strip(const float* rows, std::int64_t stride, std::int64_t count, std::int64_t depth, Word* strip,
                std::int32_t* magnitudes) {
  Bits largest[kStrip] = {};
  for (std::int64_t k = 0; k < depth; k += kTileDepth, strip += kStepWords) {
    for (std::int64_t row = 0; row < kStrip; row += kTileRows) {
      Word* to = strip + row / kTileRows * kTileWords;
      pack_part(rows + row * stride + k, stride, count - row, depth - k, to, largest + row);
      for (int piece = 0; kTransposed && piece < kPieces; ++piece) transpose_tile(to + piece * kPieceWords);
    }
  }
  for (std::int64_t i = 0; i < count; ++i) {
    for (int lane = 0; lane < V::kLanes; ++lane) {
      if (largest[i][lane] > magnitudes[i]) magnitudes[i] = largest[i][lane];
    }
  }
}

// `count` numbers, and zeros.
BK_HD V load_part(const float* from, std::int64_t count) {
  if (count >= V::kLanes) return V::load(from);
  float part[V::kLanes] = {};
  for (std::int64_t i = 0; i < count; ++i) part[i] = from[i];
  return V::load(part);
}

}  // namespace

void pack_rows(const float* rows, std::int64_t stride, std::int64_t count, std::int64_t depth, Word* strip,
               std::int32_t* magnitudes) {
  pack_strip<false>(rows, stride, count, depth, strip, magnitudes);
}

void pack_transposed(const float* rows, std::int64_t stride, std::int64_t count, std::int64_t depth, Word* strip,
                     std::int32_t* magnitudes) {
  pack_strip<true>(rows, stride, count, depth, strip, magnitudes);
}

void pack_columns(const float* B, std::int64_t stride, std::int64_t count, std::int64_t depth, Word* strips,
                  std::int64_t strip_words, std::int32_t* magnitudes) {
  const std::int64_t half = kTileRows * stride, width = (count + kStrip - 1) / kStrip * kStrip;
  for (std::int64_t k = 0; k < depth; k += kTileDepth) {
    for (std::int64_t column = 0; column < width; column += kTileRows) {
      Word* to = strips + column / kStrip * strip_words + k / kTileDepth * kStepWords + column % kStrip * kTileRows;
      float* sizes = reinterpret_cast<float*>(magnitudes + column);
      Bits largest = V::load(sizes).bits();
      for (std::int64_t i = k; i < k + kTileRows; ++i, to += V::kLanes) {
        const float* from = B + i * stride + column;
        __builtin_prefetch(from + 2 * half);  // of the next step
        __builtin_prefetch(from + 3 * half);
        const V first = load_part(from, i < depth ? count - column : 0);
        const V second = load_part(from + half, i + kTileRows < depth ? count - column : 0);
        const Bits now = magnitudes_of(first, second);
        largest = now > largest ? now : largest;
        write_pieces(first, second, to);
      }
      V::of_bits(largest).store(sizes);
    }
  }
}

// ---- the tile registers ---------------------------------------------------------------------------------------------

#define BK_TILE_TARGET __attribute__((target("amx-tile,amx-bf16")))

namespace {

// The memory operand of ldtilecfg: palette 1, eight tiles of 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);
constexpr TileConfig kConfig;  // in memory for good: g++ 12 believes that ldtilecfg reads the first bytes alone

BK_TILE_TARGET void configure() { _tile_loadconfig(&kConfig); }
BK_TILE_TARGET void release() { _tile_release(); }

// Sums are tiles 0 to 3, rows 4 and 5, columns 6 and 7. A tile is loaded as late as it can be: the products before hide
// the wait.
#define BK_LOAD(tile, from) _tile_loadd(tile, from, kRowBytes)

#define BK_NEW_ROWS(piece)                              \
  BK_LOAD(4, a + (piece) * kPieceWords);                \
  _tile_dpbf16ps(0, 4, 6);                              \
  _tile_dpbf16ps(1, 4, 7);                              \
  if constexpr (kTwo) {                                 \
    BK_LOAD(5, a + (piece) * kPieceWords + kTileWords); \
    _tile_dpbf16ps(2, 5, 6);                            \
    _tile_dpbf16ps(3, 5, 7);                            \
  }

#define BK_NEW_COLUMNS(piece)                         \
  BK_LOAD(6, b + (piece) * kPieceWords);              \
  _tile_dpbf16ps(0, 4, 6);                            \
  if constexpr (kTwo) {                               \
    _tile_dpbf16ps(2, 5, 6);                          \
  }                                                   \
  BK_LOAD(7, b + (piece) * kPieceWords + kTileWords); \
  _tile_dpbf16ps(1, 4, 7);                            \
  if constexpr (kTwo) {                               \
    _tile_dpbf16ps(3, 5, 7);                          \
  }

template <bool kTwo>
BK_TILE_TARGET void multiply_strips(const Word* rows, const Word* columns, std::int64_t steps, float* sums) {
  constexpr int kRowBytes = 64, kHi = 0, kMid = 1, kLo = 2;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (std::int64_t step = 0; step < steps; ++step) {
    const Word *a = rows + step * kStepWords, *b = columns + step * kStepWords;
    BK_LOAD(6, b + kHi * kPieceWords);
    BK_LOAD(7, b + kHi * kPieceWords + kTileWords);
    BK_NEW_ROWS(kLo)
    BK_NEW_ROWS(kMid)
    BK_NEW_COLUMNS(kMid)
    BK_NEW_ROWS(kHi)
    BK_NEW_COLUMNS(kLo)
  }
  for (std::int64_t step = 0; step < steps; ++step) {
    const Word *a = rows + step * kStepWords, *b = columns + step * kStepWords;
    BK_LOAD(6, b + kHi * kPieceWords);
    BK_LOAD(7, b + kHi * kPieceWords + kTileWords);
    BK_NEW_ROWS(kHi)
  }
  constexpr int kSumBytes = kStrip * sizeof(float);
  _tile_stored(0, sums, kSumBytes);
  _tile_stored(1, sums + kTileRows, kSumBytes);
  if constexpr (kTwo) {
    _tile_stored(2, sums + kTileRows * kStrip, kSumBytes);
    _tile_stored(3, sums + kTileRows * kStrip + kTileRows, kSumBytes);
  }
}

}  // namespace

Tiles::Tiles() { configure(); }
Tiles::~Tiles() { release(); }

void Tiles::multiply(const Word* rows, std::int64_t count, const Word* columns, std::int64_t steps, float* sums) const {
  if (count > kTileRows) multiply_strips<true>(rows, columns, steps, sums);
  else multiply_strips<false>(rows, columns, steps, sums);
}

}  // namespace bk::cpu::BK_SIMD_LEVEL
#endif
