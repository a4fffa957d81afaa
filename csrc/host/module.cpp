// benign_kernels._host: what is not a tensor. No torch header; nothing in the op path needs this module.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "build_info.h"
#include "plan/plan.h"

namespace py = pybind11;

namespace {

bk::plan::Plan make_plan(std::int64_t samples, std::int64_t dim, std::int64_t neurons, std::int64_t patches,
                         std::int64_t heads, std::int64_t steps, std::int64_t networks, bool piecewise_linear,
                         std::int64_t item_size, bool cuda, bool l2, bool box, bool trajectory, bool start, bool gram,
                         bool need_x, const std::string& algorithm) {
  const auto device = cuda ? bk::plan::Device::cuda : bk::plan::Device::cpu;
  return bk::plan::plan({samples, dim, neurons, patches, heads, steps, networks, piecewise_linear, item_size, device,
                         l2, box, trajectory, start, gram, need_x},
                        algorithm);
}

}  // namespace

PYBIND11_MODULE(_host, module) {
  module.doc() = "The planner and the facts of the build.";

  py::class_<bk::plan::Plan>(module, "Plan")
      .def_readonly("algorithm", &bk::plan::Plan::name)
      .def_property_readonly("flops", [](const bk::plan::Plan& plan) { return plan.cost.flops; })
      .def_property_readonly("bytes", [](const bk::plan::Plan& plan) { return plan.cost.bytes; })
      .def_readonly("reason", &bk::plan::Plan::reason);
  module.def("plan", &make_plan, py::kw_only(), py::arg("n"), py::arg("d"), py::arg("m"), py::arg("patches"),
             py::arg("heads"), py::arg("steps"), py::arg("networks"), py::arg("piecewise_linear"), py::arg("item_size"),
             py::arg("cuda"), py::arg("l2"), py::arg("box"), py::arg("trajectory"), py::arg("start"), py::arg("gram"),
             py::arg("need_x"), py::arg("algorithm"));
  module.def("available_algorithms", &bk::plan::available_algorithms);

  py::class_<bk::BuildInfo>(module, "BuildInfo")
      .def_readonly("torch_target", &bk::BuildInfo::torch_target)
      .def_readonly("torch_built", &bk::BuildInfo::torch_built)
      .def_readonly("nvcc", &bk::BuildInfo::nvcc)
      .def_readonly("architectures", &bk::BuildInfo::architectures)
      .def_readonly("simd_levels", &bk::BuildInfo::simd_levels)
      .def_readonly("compiler", &bk::BuildInfo::compiler)
      .def_readonly("revision", &bk::BuildInfo::revision);
  module.def("build_info", &bk::build_info);
}
