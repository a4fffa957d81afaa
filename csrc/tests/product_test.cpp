// The tiled product in its three roles, and the sums over parts, against plain loops.
#include "../cuda/product.cuh"

#include "../cuda/chunks.h"
#include "emulated.h"
#include "host_library.h"

namespace bk::test {
namespace {

using cuda::Arithmetic;
using cuda::Operand;
using cuda::Precision;
using cuda::Product;

// (networks, lines, terms), or (networks, terms, lines) when the lines are contiguous.
template <class E> struct Matrix {
  std::vector<E> values;
  std::int64_t lines, terms;
  bool terms_contiguous;
  std::int64_t offset;  // of the first number: with 1, pairs of terms are not aligned

  Matrix(Random& random, std::int64_t networks, std::int64_t l, std::int64_t t, bool contiguous, std::int64_t first = 0)
      : values(random_vector<E>(random, first + networks * l * t)),
        lines(l),
        terms(t),
        terms_contiguous(contiguous),
        offset(first) {}
  Operand<E> operand() const { return {values.data() + offset, lines * terms, terms_contiguous ? terms : lines}; }
  double at(std::int64_t network, std::int64_t line, std::int64_t term) const {
    return widen(
        values[offset + network * lines * terms + (terms_contiguous ? line * terms + term : term * lines + line)]);
  }
};

enum class Role { xw, uw, ux };

template <class A, class E>
int multiply(Role role, const Product<A, E>& product, std::vector<A>& parts, std::vector<A>& out) {
  if (role == Role::xw && product.arithmetic.library.multiply != nullptr) {
    return cuda::multiply_xw(product, parts.data(), nullptr);
  }
  if (role == Role::uw) return cuda::multiply_uw(product, parts.data(), nullptr);
  if (role == Role::ux) {
    if constexpr (std::is_same_v<A, E>) return cuda::multiply_ux(product, parts.data(), nullptr);
  }
  Product<A, E> split = product;
  split.out = parts.data();
  split.accumulate = false;
  const int splits = cuda::split_count(product.networks, product.rows, product.columns, product.terms);
  if (const int error = cuda::multiply_xw_parts(split, splits, nullptr)) return error;
  return cuda::sum_parts(cuda::PartSum<A>{parts.data(), splits, 1, static_cast<std::int64_t>(out.size()), out.data(), 0,
                                          product.accumulate, nullptr, 1},
                         nullptr);
}

template <class A, class E>
void check(Role role, std::int64_t networks, std::int64_t rows, std::int64_t columns, std::int64_t terms,
           std::int64_t offset = 0, const Arithmetic& arithmetic = {}) {
  Random random(static_cast<std::uint64_t>(rows + 100 * columns + 10'000 * terms));
  const Matrix<A> left(random, networks, rows, terms, role != Role::ux, offset);
  const Matrix<E> right(random, networks, columns, terms, role == Role::xw, offset);
  const std::string name = "product " + std::to_string(static_cast<int>(role)) + " of " + std::to_string(rows) + " × " +
                           std::to_string(columns) + " × " + std::to_string(terms);
  std::vector<double> want;
  for (std::int64_t network = 0; network < networks; ++network) {
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t column = 0; column < columns; ++column) {
        double sum = 1;  // what is accumulated to
        for (std::int64_t term = 0; term < terms; ++term) {
          sum += left.at(network, row, term) * right.at(network, column, term);
        }
        want.push_back(sum);
      }
    }
  }
  const auto produce = [&] {
    std::vector<A> out(want.size(), A(1));
    const std::int64_t needed = cuda::product_workspace(networks, rows, columns, terms);
    auto parts = unwritten<A>(std::max<std::int64_t>(needed, static_cast<std::int64_t>(out.size())));
    const Product<A, E> product{left.operand(), right.operand(), networks,       rows, columns,
                                terms,          out.data(),      rows * columns, true, arithmetic};
    expect_launched(multiply(role, product, parts, out), name);
    return out;
  };
  expect_close(name, under_all_orders(name, produce, same_bits<A>), want, sizeof(A) == 4 ? 1e-5 : 1e-13);
}

template <class A, class E> void check_shapes(Role role) {
  check<A, E>(role, 1, 1, 1, 1);
  check<A, E>(role, 2, 65, 3, 37);
  check<A, E>(role, 1, 5, 70, 16);
  check<A, E>(role, 2, 5, 70, 20, 1);
  check<A, E>(role, 3, 7, 2, 0);
  check<A, E>(role, 2, 9, 67, 530);  // split along the terms
}

// The same bits, whichever the tiles: of one large tile, of some that are cut off, and of parts.
template <class A, class E> void check_large_tiles(Role role, Precision precision) {
  const struct {
    std::int64_t networks, rows, columns, terms;
  } shapes[] = {{2, 65, 66, 37}, {1, 128, 128, 16}, {1, 300, 200, 18}, {1, 70, 128, 530}, {1, 100, 81, 0}};
  for (const auto& [networks, rows, columns, terms] : shapes) {
    Random random(5);
    const Matrix<A> left(random, networks, rows, terms, role != Role::ux);
    const Matrix<E> right(random, networks, columns, terms, role == Role::xw);
    const auto product = [&](const Arithmetic& arithmetic) {
      std::vector<A> out(networks * rows * columns, A(1));
      auto parts =
          unwritten<A>(std::max<std::int64_t>(out.size(), cuda::product_workspace(networks, rows, columns, terms)));
      const Product<A, E> p{left.operand(), right.operand(), networks,       rows, columns,
                            terms,          out.data(),      rows * columns, true, arithmetic};
      expect_launched(multiply(role, p, parts, out), "large tiles");
      return out;
    };
    const std::string name = "product " + std::to_string(static_cast<int>(role)) + " in large tiles";
    const auto large = [&] { return product({precision, {}, 1}); };
    expect(same_bits(under_all_orders(name, large, same_bits<A>), product({precision})), name);
  }
}

// Large tiles where they occupy the device, and are not half outside.
void check_sides() {
  const auto side = [](std::int64_t rows, std::int64_t columns, std::int64_t processors = 132) {
    return cuda::with_side<float>(
        {Precision::exact, {}, processors}, [&](int s) { return cuda::tiles_of(1, rows, columns, s); },
        [](auto s, std::int64_t) { return static_cast<int>(s.value); });
  };
  expect(side(1000, 2048) == 128 && side(4096, 16384) == 128, "many tiles");
  expect(side(1000, 784) == 64 && side(500, 500) == 64, "few tiles");
  expect(side(64 * 8, 64 * 66) == 128 && side(64 * 7, 64 * 75) == 64, "a second round of large tiles");
  expect(side(10, 200'000) == 64 && side(80, 200'000) == 128, "rows that are half of a large tile, or most of it");
  expect(side(4096, 16384, 0) == 64, "a device without tensor cores");
}

template <class A> void check_library(Role role) {
  const HostLibrary library;
  check<A, A>(role, 2, 65, 3, 37, 0, library.arithmetic());
  check<A, A>(role, 1, 5, 70, 18, 1, library.arithmetic());
  expect(library.calls == 4, "a library makes the products that are left to it");  // in two orders of the threads
}

// A scale of the right operand, which a library knows nothing of, in rows with others between the networks.
template <class A> void check_scaled(std::int64_t networks) {
  Random random(3);
  const std::int64_t rows = 70, columns = 65, terms = 6, stride = rows * columns + 5;
  const Matrix<A> left(random, networks, rows, terms, true);
  const Matrix<A> right(random, networks, columns, terms, true);
  const std::vector<A> scales = {A(0.25), A(1)};
  Operand<A> scaled = right.operand();
  scaled.scale = scales.data();
  const auto run = [&](const Arithmetic& arithmetic) {
    std::vector<A> out(networks * stride, 7);
    auto parts = unwritten<A>(cuda::product_workspace(networks, rows, columns, terms));
    const Product<A, A> product{left.operand(), scaled,     networks, rows,  columns,
                                terms,          out.data(), stride,   false, arithmetic};
    expect_launched(cuda::multiply_xw(product, parts.data(), nullptr), "a scaled product");
    return out;
  };
  const HostLibrary library;
  const std::vector<A> got = run(library.arithmetic());
  expect(library.calls == 1, "a library makes scaled products");
  expect_close("a scaled product by a library", got, widened(run({})), sizeof(A) == 4 ? 1e-5 : 1e-13);
}

// W Wᵀ: as good as any product, and the same bits on both sides of the diagonal.
template <class T>
void check_symmetric(std::int64_t networks, std::int64_t count, std::int64_t terms, const Arithmetic& arithmetic = {},
                     std::int64_t laid_out_for = 0) {
  using A = Compute<T>;
  Random random(static_cast<std::uint64_t>(count + 1000 * terms));
  const Matrix<T> lines(random, networks, count, terms, true);
  const std::vector<A> scales = {A(2), A(0.5), A(1)};
  const std::string name = "W Wᵀ of " + std::to_string(count) + " × " + std::to_string(terms);
  std::vector<double> want;
  for (std::int64_t network = 0; network < networks; ++network) {
    for (std::int64_t row = 0; row < count; ++row) {
      for (std::int64_t column = 0; column < count; ++column) {
        double sum = 0;
        for (std::int64_t term = 0; term < terms; ++term) {
          sum += lines.at(network, row, term) * lines.at(network, column, term);
        }
        want.push_back(sum * static_cast<double>(scales[network]) * static_cast<double>(scales[network]));
      }
    }
  }
  const auto produce = [&] {
    auto out = unwritten<A>(networks * count * count);
    auto parts = unwritten<A>(cuda::symmetric_workspace<T>(std::max(networks, laid_out_for), count, terms));
    Operand<T> operand = lines.operand();
    operand.scale = scales.data();
    const cuda::SymmetricProduct<T> product{operand, networks, count, terms, out.data(), arithmetic};
    expect_launched(cuda::multiply_ww(product, parts.data(), nullptr), name);
    return out;
  };
  const std::vector<A> got = under_all_orders(name, produce, same_bits<A>);
  const bool is_tf32 = arithmetic.precision == Precision::tf32;
  expect_close(name, got, want, is_tf32 ? 0x1p-15 : sizeof(A) == 4 ? 1e-5 : 1e-13);
  std::vector<A> turned;
  for (std::int64_t i = 0; i < networks * count * count; ++i) {
    const std::int64_t within = i % (count * count);
    turned.push_back(got[i - within + within % count * count + within / count]);
  }
  const bool ours = arithmetic.library.multiply == nullptr;
  expect(!ours || same_bits(got, turned), name + " is not symmetric");
}

template <class T> void check_symmetric_shapes() {
  check_symmetric<T>(1, 1, 1);
  check_symmetric<T>(3, 7, 0);
  check_symmetric<T>(2, 0, 5);
  check_symmetric<T>(2, 64, 17);
  check_symmetric<T>(2, 131, 37);  // an odd number of tiles along a side
  check_symmetric<T>(1, 211, 16);  // an even one
  check_symmetric<T>(2, 67, 530);  // split along the terms
  check_symmetric<T>(2, 131, 37, {Precision::tf32});
  for (const std::int64_t count : {65, 128, 230}) check_symmetric<T>(2, count, 37, {Precision::exact, {}, 1});
  check_symmetric<T>(1, 321, 17, {Precision::exact, {}, 1});  // a large tile with three tiles outside
}

// A panel of terms after another, and all at once.
template <class T> void check_symmetric_library() {
  for (const std::int64_t gated : {cuda::kChunkLimits.gated, std::int64_t{700}}) {
    cuda::chunk_limits.gated = gated;
    const HostLibrary library;
    check_symmetric<T>(3, 21, 37, library.arithmetic());
    expect(library.calls == (gated == 700 ? 8 : 2), "W Wᵀ is made by a library, in panels");
    check_symmetric<T>(1, 1, 700, library.arithmetic(), 3);  // a chunk of fewer networks than there is room for
    cuda::chunk_limits = cuda::kChunkLimits;
  }
}

// Float products are as good as float's own: one term to an ulp or two, and long sums far better than one after another.
// Measured: 2.1 with one term, 6.7 with 1000; without the products of order 2^-16 it would be 128. Where tf32 is allowed
// each product is within 2^-15 of its size: 2^-17 for what is left of either factor, 2^-16 for the product left out.
void check_accuracy(Precision precision) {
  const double of_product = precision == Precision::exact ? 0 : 0x1p-15;
  double worst = 0;
  for (const std::int64_t terms : {1, 1000}) {
    Random random(7);
    const Matrix<float> left(random, 1, 64, terms, true), right(random, 1, 64, terms, true);
    std::vector<float> out(64 * 64);
    const Product<float, float> product{left.operand(), right.operand(), 1,       64,    64,
                                        terms,          out.data(),      64 * 64, false, {precision}};
    expect_launched(cuda::multiply_xw_parts(product, 1, nullptr), "accuracy");
    for (std::int64_t i = 0; i < 64 * 64; ++i) {
      double want = 0, sizes = 0, squares = 0;
      for (std::int64_t term = 0; term < terms; ++term) {
        const double one = left.at(0, i / 64, term) * right.at(0, i % 64, term);
        want += one;
        sizes += std::fabs(one);
        squares += one * one;
      }
      const double error = std::fabs(static_cast<double>(out[i]) - want);
      expect(error <= of_product * sizes + 12 * 0x1p-24 * std::sqrt(squares),
             "accuracy with " + std::to_string(terms) + " terms");
      worst = std::fmax(worst, error / sizes);
    }
  }
  expect((worst > 0x1p-20) == (precision == Precision::tf32), "the precision asked for");
}

// out = offset + Σ parts, in groups that are not neighbours.
void check_sum_parts() {
  Random random(1);
  const std::vector<double> parts = random_vector<double>(random, 11 * 3 * 35), offset = {10, 20, 30, 40, 50, 60};
  std::vector<double> out(3 * 40, -1);
  expect_launched(
      cuda::sum_parts(cuda::PartSum<double>{parts.data(), 11, 3, 35, out.data(), 40, false, offset.data(), 2}, nullptr),
      "sum_parts");
  for (int group = 0; group < 3; ++group) {
    for (int i = 0; i < 40; ++i) {
      double want = i < 35 ? offset[group * 2 + i % 2] : -1;
      for (int part = 0; i < 35 && part < 11; ++part) want += parts[(part * 3 + group) * 35 + i];
      expect(std::fabs(out[group * 40 + i] - want) < 1e-12, "sum_parts");
    }
  }
}

}  // namespace
}  // namespace bk::test

// The quickest first, so that what is wrong is soon seen.
int main() {
  using namespace bk;
  using bk::test::Role;
  test::check_sum_parts();
  test::check_sides();
  test::check_scaled<float>(2);
  test::check_scaled<double>(2);
  test::check_symmetric_library<float>();
  test::check_symmetric_library<double>();
  for (const Role role : {Role::xw, Role::uw, Role::ux}) {
    test::check_library<float>(role);
    test::check_library<double>(role);
  }
  test::check_accuracy(test::Precision::exact);
  test::check_accuracy(test::Precision::tf32);
  test::check_shapes<float, float>(Role::ux);
  test::check_shapes<double, double>(Role::ux);
  for (const Role role : {Role::xw, Role::uw}) {
    test::check_shapes<float, float>(role);
    test::check_shapes<double, double>(role);
    test::check_shapes<float, BFloat16>(role);
    for (const auto precision : {test::Precision::exact, test::Precision::tf32}) {
      test::check_large_tiles<float, float>(role, precision);
      test::check_large_tiles<float, BFloat16>(role, precision);
    }
  }
  test::check_large_tiles<float, float>(Role::ux, test::Precision::exact);
  test::check_symmetric_shapes<float>();
  test::check_symmetric_shapes<double>();
  test::check_symmetric_shapes<BFloat16>();
  return test::finish("product");
}
