// Panels: a few SIMD registers of samples, stored with the sample axis last, (size, width) with width = vectors ·
// lanes.
#pragma once

#include <cstdint>

#include "simd.h"

namespace bk::cpu::BK_SIMD_LEVEL {

constexpr std::int64_t kPanelVectors = 4;

// How n samples are cut into panels of nearly equal width. Where the cuts are does not change a bit of the results.
struct Panels {
  std::int64_t samples;
  std::int64_t lanes;
  std::int64_t vectors;  // in all
  std::int64_t count;

  BK_HD std::int64_t first_vector(std::int64_t panel) const { return vectors * panel / count; }
  BK_HD std::int64_t vectors_of(std::int64_t panel) const { return first_vector(panel + 1) - first_vector(panel); }
  BK_HD std::int64_t first_sample(std::int64_t panel) const { return first_vector(panel) * lanes; }
  BK_HD std::int64_t samples_of(std::int64_t panel) const {
    const std::int64_t end = first_vector(panel + 1) * lanes;
    return (end < samples ? end : samples) - first_sample(panel);
  }
};

// As few panels as possible, but for a few panels a multiple of the threads that share them.
template <class A> BK_HD Panels make_panels(std::int64_t samples, std::int64_t sharers) {
  constexpr std::int64_t kLanes = Vec<A>::kLanes;
  const std::int64_t vectors = (samples + kLanes - 1) / kLanes;
  std::int64_t count = (vectors + kPanelVectors - 1) / kPanelVectors;
  if (sharers > 1 && count < 8 * sharers) count = (count + sharers - 1) / sharers * sharers;
  return {samples, kLanes, vectors, count < vectors ? count : vectors};
}

// panel (size, width) from `count` ≥ 1 rows of `size` numbers, `stride` apart. The lanes left over repeat the last row.
template <class A>
void load_panel(const A* rows, std::int64_t stride, std::int64_t count, std::int64_t size, std::int64_t vectors,
                A* panel);

// The rows back from the panel.
template <class A>
void store_panel(const A* panel, std::int64_t vectors, std::int64_t size, std::int64_t count, A* rows,
                 std::int64_t stride);

}  // namespace bk::cpu::BK_SIMD_LEVEL
