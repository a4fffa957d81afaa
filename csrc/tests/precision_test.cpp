// What allowing tf32 changes in the emulated engine: every product of float, by less than tf32 would; nothing of double.
#include "everything.h"

namespace bk::test {
namespace {

constexpr double kTf32 = 0x1p-10;  // two factors, each rounded to 11 bits

template <class T> void check(const Shape& s) {
  const std::vector<Output> exact = everything<T>(s);
  engine::arithmetic.precision = cuda::Precision::tf32;
  const std::vector<Output> allowed = everything<T>(s);
  engine::arithmetic.precision = cuda::Precision::exact;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const std::string name = std::string(type_name<T>()) + " " + s.text() + " " + exact[i].name;
    expect_close(name, allowed[i].numbers, exact[i].numbers, kTf32);
    const bool is_double = sizeof(T) == sizeof(double);
    expect(same_bits(allowed[i].numbers, exact[i].numbers) == is_double,
           name + (is_double ? " changes" : " does not change"));
  }
}

template <class T> void check_shapes() {
  check<T>({2, 9, 33, 70});
  check<T>({1, 5, 601, 7, 2, 3});  // split along d
}

}  // namespace
}  // namespace bk::test

int main() {
  using namespace bk;
  test::check_shapes<float>();
  test::check_shapes<BFloat16>();
  test::check_shapes<double>();
  return test::finish("precision");
}
