#include "matmul.h"

#include "layer.h"
#include "panel.h"
#include "product.h"
#include "tasks.h"
#include "tile_matmul.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

// B is packed in panels that a register tile reads row by row, a stretch of depth at a time: up to 512 KiB in float,
// half of the smaller L2s. Sums run in the nearest cache over all of it: rows of C lie far apart, often by a power of
// two, and evict each other. Few rows are not worth that.
constexpr std::int64_t kColumns = 64;
constexpr std::int64_t kFewRows = 128;
constexpr std::int64_t kLongStretch = 8 * kBlockDims;
constexpr std::int64_t kTileRows = 48;
constexpr std::int64_t kLeastRows = 96;  // of a task: packing a panel costs as much as multiplying a row or two

// Columns of B and C. The last one may be narrower.
template <class A> struct Panel {
  std::int64_t column, width;

  BK_HD Panel(std::int64_t index, std::int64_t columns) : column(index * kColumns) {
    const std::int64_t left = padded(columns) - column;
    width = left < kColumns ? left : kColumns;
  }
  BK_HD std::int64_t vectors() const { return width / Vec<A>::kLanes; }
};

// Rows [k, k + depth) of a panel of B, zero beyond the columns.
template <class A> void pack(const Matmul<A>& task, const Panel<A>& panel, std::int64_t k, std::int64_t depth, A* to) {
  const std::int64_t left = task.columns - panel.column, count = left < panel.width ? left : panel.width;
  if (task.transposed) {
    load_panel(task.b + panel.column * task.b_stride + k, task.b_stride, count, depth, panel.vectors(), to);
  } else {
    for (std::int64_t row = 0; row < depth; ++row) {
      const A* from = task.b + (k + row) * task.b_stride + panel.column;
      for (std::int64_t i = 0; i < count; ++i) to[row * panel.width + i] = from[i];
    }
  }
  for (std::int64_t row = 0; row < depth && count < panel.width; ++row) {
    for (std::int64_t i = count; i < panel.width; ++i) to[row * panel.width + i] = A(0);
  }
}

template <class A>
BK_HD void copy_rows(A* to, std::int64_t to_stride, const A* from, std::int64_t from_stride, std::int64_t rows,
                     std::int64_t width) {
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t k = 0; k < width; ++k) to[i * to_stride + k] = from[i * from_stride + k];
  }
}

// One panel of a tile of rows: C = or += a · packed, block of depth by block, whatever the stretch.
template <class A>
void multiply_tile(const Matmul<A>& task, const Panel<A>& panel, std::int64_t row, std::int64_t rows, std::int64_t k,
                   std::int64_t depth, const A* packed, A* sums) {
  const bool accumulate = task.accumulate || k > 0;
  A* C = task.c + row * task.c_stride + panel.column;
  if (accumulate) copy_rows(sums, panel.width, C, task.c_stride, rows, panel.width);
  std::int64_t at = 0;
  do {
    const std::int64_t block = depth - at < kBlockDims ? depth - at : kBlockDims;
    product(task.a + row * task.a_stride + k + at, task.a_stride, rows, block, packed + at * panel.width, sums,
            panel.vectors(), accumulate || at > 0);
    at += block;
  } while (at < depth);
  copy_rows(C, task.c_stride, sums, panel.width, rows, panel.width);
}

// Rows [begin, end) of a panel of C.
template <class A> void multiply(const Matmul<A>& task, const Panel<A>& panel, std::int64_t begin, std::int64_t end) {
  const bool few = end - begin < kFewRows;
  const std::int64_t most = few ? kBlockDims : kLongStretch, longest = task.depth < most ? task.depth : most;
  const Numbers<A> packed(longest * panel.width), sums(kTileRows * panel.width);
  std::int64_t k = 0;
  do {
    const std::int64_t depth = task.depth - k < longest ? task.depth - k : longest;
    pack(task, panel, k, depth, packed.data());
    if (few) {
      strided_product<A>(task.a + begin * task.a_stride + k, task.a_stride, end - begin, depth, packed.data(),
                         panel.width, task.c + begin * task.c_stride + panel.column, task.c_stride, panel.vectors(),
                         task.accumulate || k > 0);
    }
    for (std::int64_t row = begin; row < end && !few; row += kTileRows) {
      const std::int64_t rows = end - row < kTileRows ? end - row : kTileRows;
      multiply_tile(task, panel, row, rows, k, depth, packed.data(), sums.data());
    }
    k += depth;
  } while (k < task.depth);
}

// How many groups the rows of each panel are cut into, so that all threads have work to the end.
BK_HD std::int64_t row_groups(std::int64_t panels, std::int64_t rows, std::int64_t threads) {
  const std::int64_t wanted = threads > 1 && panels > 0 ? divide_up(8 * threads, panels) : 1;
  const std::int64_t most = rows < kLeastRows ? 1 : rows / kLeastRows;
  return wanted < most ? wanted : most;
}

// Rows from `row` on, as many as a panel has columns, of the upper triangle from the lower one: transposed squares.
template <class A> void mirror(A* G, std::int64_t size, std::int64_t row) {
  const std::int64_t stride = padded(size), rows = size - row < kColumns ? size - row : kColumns;
  for (std::int64_t i = row; i < row + rows; ++i) {
    for (std::int64_t j = i + 1; j < row + rows; ++j) G[i * stride + j] = G[j * stride + i];
  }
  A square[kColumns * kColumns];
  for (std::int64_t column = row + kColumns; column < size; column += kColumns) {
    const std::int64_t columns = size - column < kColumns ? size - column : kColumns;
    load_panel(G + column * stride + row, stride, columns, rows, kColumns / Vec<A>::kLanes, square);
    copy_rows(G + row * stride + column, stride, square, kColumns, rows, columns);
  }
  for (std::int64_t i = row; i < row + rows; ++i) {
    for (std::int64_t j = size; j < stride; ++j) G[i * stride + j] = A(0);
  }
}

}  // namespace

template <class A> void vector_matmul(const Matmul<A>& task, const Parallel& run) {
  if (task.rows < 1) return;
  const std::int64_t panels = divide_up(task.columns, kColumns), groups = row_groups(panels, task.rows, run.threads);
  for_each_task(run, panels * groups, [&](std::int64_t index) {
    // Lower panels near the end are short, and a thread takes neighbours: first, last, second, last but one, …
    const std::int64_t turn = index / groups, group = index % groups;
    const Panel<A> panel(!task.lower ? turn : turn % 2 == 0 ? turn / 2 : panels - 1 - turn / 2, task.columns);
    const std::int64_t first = task.lower ? panel.column : 0, rows = task.rows - first;
    multiply(task, panel, first + rows * group / groups, first + rows * (group + 1) / groups);
  });
}

template <class A> void mirror_lower(A* G, std::int64_t size, const Parallel& run) {
  for_each_task(run, divide_up(size, kColumns), [&](std::int64_t panel) { mirror(G, size, panel * kColumns); });
}

template <class A> void matmul(const Matmul<A>& task, const Parallel& run) {
#if defined(BK_TILES)
  if constexpr (sizeof(A) == sizeof(float)) {
    const bool packed = task.packed && task.packed->any();
    if (tiles_in_use() && (packed || worth_tiles(task.rows, task.depth, task.columns))) {
      const TileRows product{task.a, task.a_stride, task.rows, task.c, task.c_stride, task.lower};
      const TileColumns columns{task.b, task.b_stride, task.transposed, task.depth, task.columns};
      return tile_matmul({columns, &product, 1, task.accumulate, packed ? task.packed : nullptr}, run);
    }
  }
#endif
  vector_matmul(task, run);
}

template <class A>
PackedColumns pack_once([[maybe_unused]] const A* b, [[maybe_unused]] std::int64_t stride,
                        [[maybe_unused]] std::int64_t depth, [[maybe_unused]] std::int64_t columns,
                        [[maybe_unused]] const Parallel& run) {
#if defined(BK_TILES)
  if constexpr (sizeof(A) == sizeof(float)) {
    constexpr std::int64_t kMost = 1 << 24;  // numbers: 96 MiB
    if (tiles_in_use() && worth_tiles(depth, columns) && depth <= kMost / columns) {
      return PackedColumns({b, stride, false, depth, columns}, run);
    }
  }
#endif
  return {};
}

// The product, and G on and below the diagonal.
template <class A> void matmul_and_lower_gram(const Matmul<A>& task, A* G, const Parallel& run) {
#if defined(BK_TILES)
  if constexpr (sizeof(A) == sizeof(float)) {
    if (tiles_in_use() && worth_tiles(task.depth, task.columns)) {
      const TileRows products[] = {{task.a, task.a_stride, task.rows, task.c, task.c_stride},
                                   {task.b, task.b_stride, task.columns, G, padded(task.columns), true}};
      return tile_matmul({{task.b, task.b_stride, true, task.depth, task.columns}, products, 2}, run);
    }
  }
#endif
  vector_matmul(task, run);
  Matmul<A> gram{task.b,        task.b_stride, task.columns, task.depth, task.b,
                 task.b_stride, true,          task.columns, G,          padded(task.columns)};
  gram.lower = true;
  vector_matmul(gram, run);
}

template <class A> void matmul_and_gram(const Matmul<A>& task, A* G, const Parallel& run) {
  matmul_and_lower_gram(task, G, run);
  mirror_lower(G, task.columns, run);
}

template <class A>
void gram_matrix(const A* w, std::int64_t stride, std::int64_t rows, std::int64_t depth, A* G, const Parallel& run) {
  matmul_and_gram<A>({nullptr, 0, 0, depth, w, stride, true, rows, nullptr, 0}, G, run);
}

#define BK_INSTANTIATE(A)                                                                                   \
  template void matmul<A>(const Matmul<A>&, const Parallel&);                                               \
  template void vector_matmul<A>(const Matmul<A>&, const Parallel&);                                        \
  template PackedColumns pack_once<A>(const A*, std::int64_t, std::int64_t, std::int64_t, const Parallel&); \
  template void mirror_lower<A>(A*, std::int64_t, const Parallel&);                                         \
  template void gram_matrix<A>(const A*, std::int64_t, std::int64_t, std::int64_t, A*, const Parallel&);    \
  template void matmul_and_gram<A>(const Matmul<A>&, A*, const Parallel&);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)

}  // namespace bk::cpu::BK_SIMD_LEVEL
