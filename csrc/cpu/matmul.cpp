#include "matmul.h"

#include "layer.h"
#include "panel.h"
#include "product.h"
#include "tasks.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

constexpr std::int64_t kColumns = 64;    // of a panel of B: with kBlockDims rows it stays in L2 while a streams by
constexpr std::int64_t kLeastRows = 48;  // of a task: packing a panel costs as much as multiplying a row or two

// Part of B as a panel (depth, width), zero beyond the columns.
template <class A> struct Panel {
  std::int64_t column, width;
  BK_HD std::int64_t vectors() const { return width / Vec<A>::kLanes; }
};

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

// Rows [begin, end) of a panel of C.
template <class A> void multiply(const Matmul<A>& task, const Panel<A>& panel, std::int64_t begin, std::int64_t end) {
  const Numbers<A> packed(kBlockDims * kColumns);
  const Blocks blocks(task.depth);
  for (std::int64_t b = 0; b < blocks.count; ++b) {
    const std::int64_t k = blocks.begin(b), depth = blocks.end(b) - k;
    pack(task, panel, k, depth, packed.data());
    strided_product<A>(task.a + begin * task.a_stride + k, task.a_stride, end - begin, depth, packed.data(),
                       panel.width, task.c + begin * task.c_stride + panel.column, task.c_stride, panel.vectors(),
                       task.accumulate || b > 0);
  }
}

template <class A> BK_HD Panel<A> panel_at(std::int64_t index, std::int64_t columns) {
  const std::int64_t column = index * kColumns, left = padded(columns) - column;
  return {column, left < kColumns ? left : kColumns};
}

// Into how many groups the rows of each panel are cut, so that all threads have work to the end.
BK_HD std::int64_t row_groups(std::int64_t panels, std::int64_t rows, std::int64_t threads) {
  const std::int64_t wanted = threads > 1 ? divide_up(8 * threads, panels) : 1;
  const std::int64_t most = rows < kLeastRows ? 1 : rows / kLeastRows;
  return wanted < most ? wanted : most;
}

// The upper triangle from the lower one, for the rows of one panel.
template <class A> void mirror(A* G, std::int64_t size, std::int64_t row) {
  const std::int64_t stride = padded(size), rows = size - row < kColumns ? size - row : kColumns;
  const Numbers<A> square(kColumns * kColumns);
  for (std::int64_t column = row + kColumns; column < size; column += kColumns) {
    const std::int64_t columns = size - column < kColumns ? size - column : kColumns;
    load_panel(G + column * stride + row, stride, columns, rows, kColumns / Vec<A>::kLanes, square.data());
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) G[(row + i) * stride + column + j] = square.data()[i * kColumns + j];
    }
  }
}

}  // namespace

template <class A> void matmul(const Matmul<A>& task, const Parallel& run) {
  if (task.rows < 1) return;
  const std::int64_t panels = divide_up(task.columns, kColumns);
  const std::int64_t groups = panels < 1 ? 0 : row_groups(panels, task.rows, run.threads);
  for_each_task(run, panels * groups, [&](std::int64_t index) {
    const std::int64_t group = index % groups;
    multiply(task, panel_at<A>(index / groups, task.columns), task.rows * group / groups,
             task.rows * (group + 1) / groups);
  });
}

template <class A>
void gram_matrix(const A* w, std::int64_t stride, std::int64_t rows, std::int64_t depth, A* G, const Parallel& run) {
  const Matmul<A> task{w, stride, rows, depth, w, stride, true, rows, G, padded(rows)};
  const std::int64_t panels = divide_up(rows, kColumns);
  const std::int64_t groups = panels < 1 ? 0 : row_groups(panels, rows, run.threads);
  for_each_task(run, panels * groups, [&](std::int64_t index) {
    // First, last, second, last but one, …: panels near the end are short, and a thread takes neighbours.
    const std::int64_t turn = index / groups, group = index % groups;
    const Panel<A> panel = panel_at<A>(turn % 2 == 0 ? turn / 2 : panels - 1 - turn / 2, rows);
    const std::int64_t height = rows - panel.column;
    multiply(task, panel, panel.column + height * group / groups, panel.column + height * (group + 1) / groups);
  });
  for_each_task(run, panels, [&](std::int64_t panel) { mirror(G, rows, panel * kColumns); });
  // Beyond the last row's own columns nothing was computed above the diagonal.
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = rows; j < padded(rows); ++j) G[i * padded(rows) + j] = A(0);
  }
}

#define BK_INSTANTIATE(A)                                     \
  template void matmul<A>(const Matmul<A>&, const Parallel&); \
  template void gram_matrix<A>(const A*, std::int64_t, std::int64_t, std::int64_t, A*, const Parallel&);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)

}  // namespace bk::cpu::BK_SIMD_LEVEL
