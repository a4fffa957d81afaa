// Products on AMX tiles against float64, and against the products without tiles that they give way to.
#include "../cpu/tile_matmul.h"
#include "engine_cpu.h"

#if defined(BK_TILES)
namespace bk::test {
namespace {

namespace v4 = cpu::v4;

struct Sizes {
  std::int64_t rows, depth, columns;
  bool transposed = false, accumulate = false;

  std::string name() const {
    return std::to_string(rows) + " × " + std::to_string(depth) + " × " + std::to_string(columns) +
           (transposed ? ", Bᵀ" : "") + (accumulate ? ", accumulated" : "");
  }
};

// Rows of all three matrices lie further apart than they are long; C begins as ones.
struct Problem {
  Sizes sizes;
  std::int64_t a_stride, b_stride, c_stride;
  std::vector<float> a, b;

  explicit Problem(const Sizes& sizes, std::uint64_t seed = 1)
      : sizes(sizes),
        a_stride(sizes.depth + 3),
        b_stride((sizes.transposed ? sizes.depth : sizes.columns) + 5),
        c_stride(v4::padded(sizes.columns) + 16) {
    Random random(seed);
    a = random_vector<float>(random, sizes.rows * a_stride);
    b = random_vector<float>(random, (sizes.transposed ? sizes.columns : sizes.depth) * b_stride);
  }
  float& a_at(std::int64_t i, std::int64_t k) { return a[i * a_stride + k]; }
  float& b_at(std::int64_t k, std::int64_t j) { return sizes.transposed ? b[j * b_stride + k] : b[k * b_stride + j]; }

  v4::Matmul<float> task(float* c) const {
    return {a.data(),         a_stride,      sizes.rows, sizes.depth, b.data(),        b_stride,
            sizes.transposed, sizes.columns, c,          c_stride,    sizes.accumulate};
  }
  std::vector<float> on_tiles() const {
    std::vector<float> c(sizes.rows * c_stride, 1);
    const v4::TileRows product{a.data(), a_stride, sizes.rows, c.data(), c_stride};
    const v4::TileColumns columns{b.data(), b_stride, sizes.transposed, sizes.depth, sizes.columns};
    v4::tile_matmul({columns, &product, 1, sizes.accumulate}, pool);
    return c;
  }
  std::vector<float> without() const {
    std::vector<float> c(sizes.rows * c_stride, 1);
    v4::vector_matmul(task(c.data()), pool);
    return c;
  }
};

// As near to float64 as multiply-adds are, which may themselves be lucky: 1.5 times their largest error, relative to
// Σ |a b|, and a rounding.
void check_errors(Problem problem) {
  const Sizes& sizes = problem.sizes;
  const auto tiles = under_all_orders(sizes.name(), [&] { return problem.on_tiles(); }, same_bits<float>);
  const auto vectors = problem.without();
  double error = 0, vector_error = 0;
  for (std::int64_t i = 0; i < sizes.rows; ++i) {
    for (std::int64_t j = 0; j < problem.c_stride; ++j) {
      const std::int64_t at = i * problem.c_stride + j;
      if (j >= sizes.columns) {
        const float want = j >= v4::padded(sizes.columns) || sizes.accumulate ? 1 : 0;
        expect(tiles[at] == want, sizes.name() + ": what lies behind the columns");
        continue;
      }
      double sum = sizes.accumulate, size = sum;
      for (std::int64_t k = 0; k < sizes.depth; ++k) {
        const double term = static_cast<double>(problem.a_at(i, k)) * problem.b_at(k, j);
        sum += term;
        size += std::fabs(term);
      }
      error = std::fmax(error, std::fabs(tiles[at] - sum) / size);
      vector_error = std::fmax(vector_error, std::fabs(vectors[at] - sum) / size);
    }
  }
  expect(error <= 1.5 * vector_error + 0x1p-24, sizes.name() + ": error " + std::to_string(error * 0x1p24) +
                                                    " · 2⁻²⁴, without tiles " + std::to_string(vector_error * 0x1p24));
}

void check_shapes() {
  for (const bool transposed : {false, true}) {
    for (const bool accumulate : {false, true}) {
      for (const Sizes& sizes : {Sizes{1, 1, 1},
                                 {2, 31, 17},
                                 {16, 32, 16},
                                 {17, 33, 32},
                                 {31, 64, 33},
                                 {65, 100, 130},
                                 {3, 1024, 35},
                                 {40, 1025, 67},
                                 {33, 2100, 40},
                                 {150, 70, 2100}}) {
        check_errors(Problem({sizes.rows, sizes.depth, sizes.columns, transposed, accumulate}));
      }
    }
  }
  for (const Sizes& empty : {Sizes{0, 5, 6}, {5, 6, 0}})
    expect(Problem(empty).on_tiles().size() < 200, "nothing to do");
}

// Numbers of many sizes in a row: pieces that are lost would be seen.
void check_graded() {
  for (const std::int64_t depth : {100, 3000}) {
    Problem problem({20, depth, 40, true, false});
    Random random(7);
    for (float& x : problem.a) x *= static_cast<float>(std::pow(10, 16 * random.uniform() - 8));
    for (float& x : problem.b) x *= static_cast<float>(std::pow(10, 16 * random.uniform() - 8));
    check_errors(problem);
  }
}

// One row and one column out of range give what they give without tiles; all else is not touched by them.
void check_range() {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float value : {1e-40f, 1e-30f, 1e-13f, 1e13f, 1e30f, 3e38f, kInfinity, -kInfinity, std::nanf("")}) {
    for (const bool transposed : {false, true}) {
      for (const bool accumulate : {false, true}) {
        Problem problem({70, 1100, 80, transposed, accumulate});
        const auto before = problem.on_tiles();
        const std::int64_t row = 37, column = 66;
        for (std::int64_t k = 0; k < problem.sizes.depth; ++k) {
          if (!(std::fabs(value) < 1) && k != 1050) continue;  // one large number is enough
          problem.a_at(row, k) = value;
          problem.b_at(k, column) = value;
        }
        const auto without = problem.without();
        const auto after = under_all_orders("out of range", [&] { return problem.on_tiles(); }, same_bits<float>);
        for (std::int64_t i = 0; i < problem.sizes.rows; ++i) {
          for (std::int64_t j = 0; j < problem.c_stride; ++j) {
            const std::int64_t at = i * problem.c_stride + j;
            const float want = i == row || j == column ? without[at] : before[at];
            expect(std::memcmp(&after[at], &want, sizeof want) == 0 || (want != want && after[at] != after[at]),
                   "with " + std::to_string(value) + ": " + std::to_string(i) + ", " + std::to_string(j));
          }
        }
      }
    }
  }
}

// What is on and below the diagonal is that of the whole product, with tiles and without.
void check_lower() {
  for (const bool accumulate : {false, true}) {
    const Problem problem({300, 200, 300, false, accumulate});
    const auto product = [&](bool tiles, bool lower) {
      cpu::set_simd_level(tiles ? "amx" : "v4");
      std::vector<float> c(problem.sizes.rows * problem.c_stride, 1);
      v4::Matmul<float> task = problem.task(c.data());
      task.lower = lower;
      v4::matmul(task, pool);
      return c;
    };
    for (const bool tiles : {false, true}) {
      const auto whole = product(tiles, false);
      const auto lower = under_all_orders("lower", [&] { return product(tiles, true); }, same_bits<float>);
      for (std::int64_t i = 0; i < problem.sizes.rows; ++i) {
        const std::int64_t row = i * problem.c_stride;
        expect(std::memcmp(&lower[row], &whole[row], (i + 1) * sizeof(float)) == 0, "row " + std::to_string(i));
        if (i == 0) expect(lower[row + 299] == 1, "what is above the diagonal is left out");
      }
    }
  }
}

// An element is the same whatever rows and columns are around it.
void check_neighbours() {
  const Problem all({90, 1500, 300, true, false});
  const auto want = all.on_tiles();
  for (const std::int64_t first : {1, 32, 77}) {
    Problem some = all;
    some.sizes.rows = 5;
    some.sizes.columns = 41;
    some.c_stride = 48;
    some.a.erase(some.a.begin(), some.a.begin() + first * some.a_stride);
    some.b.erase(some.b.begin(), some.b.begin() + first * some.b_stride);
    const auto got = some.on_tiles();
    for (std::int64_t i = 0; i < some.sizes.rows; ++i) {
      expect(std::memcmp(&got[i * some.c_stride], &want[(first + i) * all.c_stride + first], 41 * sizeof(float)) == 0,
             "rows and columns from " + std::to_string(first));
    }
  }
}

// G is that of the product, and symmetric; with a row out of range, too.
void check_gram() {
  for (const std::int64_t rows : {128, 131, 300, 2200}) {
    const std::int64_t depth = rows < 1000 ? 1100 : 128, width = v4::padded(rows);
    Problem problem({rows, depth, rows, true, false});
    problem.a = problem.b;
    for (std::int64_t k = 0; k < depth; ++k) problem.b[100 * problem.b_stride + k] *= 1e-20f;
    const auto gram = [&](bool tiles) {
      cpu::set_simd_level(tiles ? "amx" : "v4");
      auto G = unwritten<float>(rows * width);
      v4::gram_matrix(problem.b.data(), problem.b_stride, rows, depth, G.data(), pool);
      return G;
    };
    const auto G = under_all_orders("gram", [&] { return gram(true); }, same_bits<float>);
    const auto without = gram(false);
    expect(!same_bits(G, without), "the gram matrix of " + std::to_string(rows) + " rows on tiles");
    expect_close("gram", G, widened(without), 1e-6);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < i; ++j) {
        expect(G[i * width + j] == G[j * width + i], "symmetry");
        if (i == 100 || j == 100) expect(G[i * width + j] == without[i * width + j], "a row out of range");
      }
    }
  }
}

}  // namespace
}  // namespace bk::test
#endif

int main() {
#if defined(BK_TILES)
  using namespace bk;
  if (cpu::set_simd_level("amx")) {
    test::check_shapes();
    test::check_graded();
    test::check_range();
    test::check_lower();
    cpu::set_simd_level("amx");
    test::check_neighbours();
    test::check_gram();
    return test::finish("tiles");
  }
#endif
  std::printf("tiles: SKIPPED, this machine or compiler has none\n");
}
