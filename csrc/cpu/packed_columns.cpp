#include "packed_columns.h"

#include "layer.h"
#include "tiles.h"

#if defined(BK_TILES)
namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

constexpr std::int64_t kStretch = 1024;    // of depth: within it sums run in tiles; those of stretches, in memory
constexpr std::int64_t kStripsAtOnce = 8;  // so that rows of B are read in stretches of 1 KiB

BK_HD std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

}  // namespace

PackedColumns::PackedColumns(const TileColumns& columns, std::int64_t slots)
    : columns_(columns),
      stretch_(least(columns.depth, kStretch)),
      strips_(divide_up(columns.columns, kStrip)),
      strip_words_(tile_steps(stretch_) * kStepWords),
      slots_(slots),
      words_(slots_ * strips_ * strip_words_),
      magnitudes_(strips_ * kStrip) {
  for (std::int64_t i = 0; i < strips_ * kStrip; ++i) magnitudes_.data()[i] = 0;
}

PackedColumns::PackedColumns(const TileColumns& columns, const Parallel& run)
    : PackedColumns(columns, divide_up(columns.depth, kStretch)) {
  for (std::int64_t stretch = 0; stretch < stretches(); ++stretch) pack(stretch, run);
}

std::int64_t PackedColumns::stretches() const { return divide_up(columns_.depth, kStretch); }

std::int64_t PackedColumns::depth(std::int64_t stretch) const {
  return least(columns_.depth - begin(stretch), stretch_);
}

void PackedColumns::pack(std::int64_t stretch, const Parallel& run) {
  for_each_task(run, divide_up(strips_, kStripsAtOnce),
                [&](std::int64_t task) { pack_some(task * kStripsAtOnce, stretch); });
}

void PackedColumns::pack_some(std::int64_t strip, std::int64_t stretch) const {
  const std::int64_t k = begin(stretch), depth = this->depth(stretch), column = strip * kStrip;
  const std::int64_t end = least(columns_.columns, column + kStripsAtOnce * kStrip);
  const float* b = columns_.b;
  if (!columns_.transposed) {
    return pack_columns(b + k * columns_.stride + column, columns_.stride, end - column, depth,
                        this->strip(strip, stretch), strip_words_, magnitudes() + column);
  }
  for (std::int64_t begin = column; begin < end; begin += kStrip, ++strip) {
    pack_transposed(b + begin * columns_.stride + k, columns_.stride, least(end - begin, kStrip), depth,
                    this->strip(strip, stretch), magnitudes() + begin);
  }
}

}  // namespace bk::cpu::BK_SIMD_LEVEL
#endif
