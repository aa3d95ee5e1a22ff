// What Python calls past the dispatcher, and the facts about this build.
#include <torch/csrc/utils/pybind.h>

#include <string>
#include <tuple>
#include <vector>

#include "core/coefficients.h"
#include "kernels/cpu/kernel.h"
#include "torch/ops.h"

#if defined(DROPOUT_EXT_CUDA)
#include <cuda_runtime_api.h>
#endif

namespace dropout {

namespace attention {

void bind(pybind11::module_& m);  // see attention_ops.cpp

}  // namespace attention

namespace {

namespace py = pybind11;

Tensor dropout_from_python(
    const Tensor& input,
    double p,
    bool inplace,
    const Generator& generator,
    const std::optional<Tensor>& rng_state,
    const std::optional<std::vector<int64_t>>& mask_strides,
    int64_t mask_base,
    Factor scale,
    double shift,
    double fill) {
  const py::gil_scoped_release no_gil;
  const SymStrides strides = mask_strides.has_value()
                                 ? SymStrides(c10::fromIntArrayRefSlow(*mask_strides))
                                 : SymStrides();
  return dropout_eager(
      input, inplace, generator, rng_state, {p, strides, mask_base, scale, shift, fill});
}

// The same with all defaults: converting arguments takes longer than handling them.
Tensor plain_dropout_from_python(const Tensor& input, double p, bool inplace) {
  const py::gil_scoped_release no_gil;
  return dropout_eager(input, inplace, std::nullopt, std::nullopt, {p});
}

// (scale, shift, fill) of alpha dropout.
std::tuple<double, double, double> alpha_coefficients_from_python(double p) {
  const Coefficients c = alpha_coefficients(Threshold::from_probability(p));
  return {c.scale, c.shift, c.fill};
}

std::vector<std::string> cpu_paths() {
  std::vector<std::string> names;
  for (int path = 0; path < cpu::kPaths; ++path) {
    if (cpu::path_supported(static_cast<cpu::Path>(path))) {
      names.emplace_back(cpu::path_name(static_cast<cpu::Path>(path)));
    }
  }
  return names;
}

void set_cpu_path(const std::string& name) {
  for (int path = 0; path < cpu::kPaths; ++path) {
    if (name == cpu::path_name(static_cast<cpu::Path>(path)) &&
        cpu::set_active_path(static_cast<cpu::Path>(path))) {
      return;
    }
  }
  throw py::value_error("no such instruction set on this machine: '" + name + "'");
}

py::dict build_facts() {
  py::dict facts;
#if defined(DROPOUT_EXT_CUDA)
  facts["cuda"] =
      std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
  facts["cuda_archs"] = DROPOUT_EXT_CUDA_ARCHS;
#else
  facts["cuda"] = py::none();
  facts["cuda_archs"] = py::none();
#endif
  return facts;
}

void set_repeat_from_python(py::function function) {
  // Kept for good: the interpreter may be gone before this library is.
  set_repeat([repeat = new py::function(std::move(function))](
                 const at::Generator& generator, const std::function<Tensor()>& draw) {
    const py::gil_scoped_acquire gil;
    const py::cpp_function callback(draw, py::call_guard<py::gil_scoped_release>());
    return (*repeat)(generator, callback).cast<std::optional<Tensor>>();
  });
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  cpu::active_path();  // a wrong DROPOUT_EXT_CPU is an error at import
  m.def(
      "plain_dropout", plain_dropout_from_python, py::arg("input"), py::arg("p"),
      py::arg("inplace"));
  m.def(
      "dropout", dropout_from_python, py::arg("input"), py::arg("p"), py::arg("inplace"),
      py::arg("generator") = py::none(), py::arg("rng_state") = py::none(),
      py::arg("mask_strides") = py::none(), py::arg("mask_base") = 0,
      py::arg("scale") = py::none(), py::arg("shift") = 0.0, py::arg("fill") = 0.0);
  attention::bind(m);
  m.def("alpha_coefficients", alpha_coefficients_from_python, py::arg("p"));
  m.def("register_generator", register_generator, py::arg("generator"));
  m.def("set_repeat", set_repeat_from_python, py::arg("function"));
  m.def("cpu_path", [] { return cpu::path_name(cpu::active_path()); });
  m.def("cpu_paths", cpu_paths);
  m.def("set_cpu_path", set_cpu_path, py::arg("name"));
  m.def("build_facts", build_facts);
}

}  // namespace
}  // namespace dropout
