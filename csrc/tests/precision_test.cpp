// What allowing tf32 changes in the emulated engine: every product of float, by less than tf32 would; nothing of double.
#include "attack_case.h"

namespace bk::test {
namespace {

constexpr double kTf32 = 0x1p-10;  // two factors, each rounded to 11 bits

struct Output {
  std::string name;
  std::vector<double> numbers;
};

template <class A> Output named(const std::string& name, const std::vector<A>& numbers) {
  return {name, widened(numbers)};
}

template <class T> std::vector<Output> everything(const Shape& s) {
  using A = Compute<T>;
  const Problem<T> problem(s, ActivationKind::gelu);
  const Network<T> net = problem.network();
  const Samples<A> samples = problem.samples();
  const A* cotangent = problem.cotangent.data();
  auto alone = unwritten<A>(s.rows() * s.heads), f = alone, gx = unwritten<A>(s.rows() * s.row_size());
  auto gw = unwritten<A>(s.networks * s.neurons * s.dim), ga = unwritten<A>(s.networks * s.heads * s.neurons);
  auto gb = unwritten<A>(s.networks * s.neurons);
  engine::two_layer(net, samples, alone.data());
  engine::two_layer_value_and_grad(net, samples, cotangent, f.data(), gx.data());
  engine::two_layer_parameter_grad(net, samples, cotangent, gw.data(), ga.data(), gb.data());
  std::vector<Output> outputs = {named("f alone", alone), named("f", f),   named("gx", gx),
                                 named("gw", gw),         named("ga", ga), named("gb", gb)};

  constexpr std::pair<Algorithm, const char*> kAlgorithms[] = {
      {Algorithm::dense, "dense"}, {Algorithm::gram, "gram"}, {Algorithm::half_sparse, "half-sparse"}};
  for (const auto& [algorithm, name] : kAlgorithms) {
    if (algorithm == Algorithm::half_sparse && s.heads > 1) continue;
    AttackCase<T> attack(s, ActivationKind::relu, Norm::l2, Loss::margin);
    attack.algorithm = algorithm;
    attack.trajectory = false;
    const Attacked<A> found = attack.run();
    outputs.push_back(named(name + std::string(" x"), found.x));
    outputs.push_back(named(name + std::string(" margin"), found.margin));
  }
  return outputs;
}

template <class T> void check(const Shape& s) {
  const std::vector<Output> exact = everything<T>(s);
  engine::precision = cuda::Precision::tf32;
  const std::vector<Output> allowed = everything<T>(s);
  engine::precision = cuda::Precision::exact;
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
