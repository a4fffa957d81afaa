// The columns of a product as tiles read them. On machines and builds without tiles there is only the empty one.
#pragma once

#include "tasks.h"

namespace bk::cpu::BK_SIMD_LEVEL {

// B (depth, columns), its rows `stride` apart; or, transposed, Bᵀ.
struct TileColumns {
  const float* b;
  std::int64_t stride;
  bool transposed;
  std::int64_t depth, columns;
};

class PackedColumns {
 public:
  PackedColumns() = default;  // none
  // Room for a stretch of depth; nothing is packed yet.
  explicit PackedColumns(const TileColumns& columns) : PackedColumns(columns, 1) {}
  // All stretches, packed.
  PackedColumns(const TileColumns& columns, const Parallel& run);

  bool any() const { return strips_ > 0; }
  const TileColumns& columns() const { return columns_; }
  std::int64_t stretches() const;
  std::int64_t strips() const { return strips_; }
  std::int64_t strip_words() const { return strip_words_; }

  // From row begin(s) of B on, `depth(s)` of them.
  std::int64_t begin(std::int64_t stretch) const { return stretch * stretch_; }
  std::int64_t depth(std::int64_t stretch) const;
  void pack(std::int64_t stretch, const Parallel& run);

  // Where a stretch that has been packed lies, if no later one has taken its room.
  std::uint32_t* strip(std::int64_t strip, std::int64_t stretch) const {
    return words_.data() + (stretch % slots_ * strips_ + strip) * strip_words_;
  }
  // The bits of the largest magnitude of each column, over what has been packed; of whole strips.
  std::int32_t* magnitudes() const { return magnitudes_.data(); }

 private:
  TileColumns columns_{};
  std::int64_t stretch_ = 0, strips_ = 0, strip_words_ = 0, slots_ = 1;
  Numbers<std::uint32_t> words_{0};
  Numbers<std::int32_t> magnitudes_{0};

  PackedColumns(const TileColumns& columns, std::int64_t slots);
  void pack_some(std::int64_t strip, std::int64_t stretch) const;
};

}  // namespace bk::cpu::BK_SIMD_LEVEL
