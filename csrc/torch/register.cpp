// The one place where operators are registered and bound to Python.
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>
#include <torch/version.h>

#include <string>
#include <tuple>
#include <vector>

#include "core/coefficients.h"
#include "kernels/cpu/kernel.h"
#include "torch/autograd.h"
#include "torch/checks.h"
#include "torch/ops.h"
#include "torch/traced.h"

#if defined(DROPOUT_EXT_CUDA)
#include <cuda_runtime_api.h>
#endif

namespace dropout {

namespace attention {

void bind(pybind11::module_& m);  // see attention_register.cpp

}  // namespace attention

namespace {

namespace py = pybind11;

TORCH_LIBRARY(dropout_ext, m) {
  // generator -> rng_state, int64 of shape [*batch, 2] on the device of the input: for each of
  // the batch the (seed, offset) of one call.
  m.def(
      "draw(Tensor input, *, SymInt[] batch=[], Generator? generator=None) -> Tensor",
      {at::Tag::nondeterministic_seeded, at::Tag::pt2_compliant_tag});
  // draw as it stands in graphs, which cannot hold a generator: the number it was registered
  // under takes its place. `after` is the result of the draw before it and is not looked at; it
  // keeps compilers from merging the two or changing their order. See dropout_ext/_tracing.py.
  // The batch is optional because AOTInductor cannot pass an empty list.
  m.def(
      "draw_traced(Tensor input, *, SymInt[]? batch=None, int? generator=None, "
      "Tensor? after=None) -> Tensor",
      {at::Tag::nondeterministic_seeded, at::Tag::pt2_compliant_tag});
  // The rest is pure. The mask is a function of rng_state, of shape [2], and of the index
  //   mask_base + sum over d of coordinate_d * mask_strides_d,
  // with the strides of the row-major shape by default. Kept elements become
  // input * scale + shift, where scale is by default one over the probability to be kept; dropped
  // ones become fill. An rng_state of shape [*batch, 2] has a state for each of the samples that
  // the leading dimensions of the input count; mask strides there are ignored, and the default
  // ones are those of a sample.
  m.def(
      "dropout(Tensor input, float p, Tensor rng_state, *, SymInt[]? mask_strides=None, "
      "SymInt mask_base=0, float? scale=None, float shift=0., float fill=0.) -> Tensor",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "dropout_(Tensor(a!) input, float p, Tensor rng_state, *, SymInt[]? mask_strides=None, "
      "SymInt mask_base=0, float? scale=None, float shift=0., float fill=0.) -> Tensor(a!)",
      {at::Tag::pt2_compliant_tag});
  // The mask alone, True = kept.
  m.def(
      "dropout_mask(SymInt[] size, float p, Tensor rng_state, *, SymInt[]? mask_strides=None, "
      "SymInt mask_base=0) -> Tensor",
      {at::Tag::pt2_compliant_tag});

  for (const auto device : {c10::DispatchKey::CPU, c10::DispatchKey::CUDA}) {
    m.impl("draw", torch::dispatch(device, kernels::draw));
    m.impl("dropout", torch::dispatch(device, kernels::dropout));
    m.impl("dropout_", torch::dispatch(device, kernels::dropout_));
    m.impl("dropout_mask", torch::dispatch(device, kernels::dropout_mask));
  }
  // Other layouts come to the same functions, whose checks refuse them by name.
  for (const auto layout :
       {c10::DispatchKey::SparseCPU, c10::DispatchKey::SparseCUDA, c10::DispatchKey::SparseCsrCPU,
        c10::DispatchKey::SparseCsrCUDA, c10::DispatchKey::MkldnnCPU}) {
    m.impl("draw", torch::dispatch(layout, kernels::draw));
    m.impl("dropout", torch::dispatch(layout, kernels::dropout));
    m.impl("dropout_", torch::dispatch(layout, kernels::dropout_));
  }
  m.impl("draw", torch::dispatch(c10::DispatchKey::Meta, meta::draw));
  m.impl("dropout", torch::dispatch(c10::DispatchKey::Meta, meta::dropout));
  m.impl("dropout_", torch::dispatch(c10::DispatchKey::Meta, meta::dropout_));
  m.impl("dropout_mask", torch::dispatch(c10::DispatchKey::Meta, meta::dropout_mask));

  m.impl(
      "draw_traced", torch::dispatch(c10::DispatchKey::CompositeExplicitAutograd, traced::draw));

  const auto autograd = c10::DispatchKey::Autograd;
  m.impl("draw", torch::dispatch(autograd, torch::CppFunction::makeFallthrough()));
  m.impl("draw_traced", torch::dispatch(autograd, torch::CppFunction::makeFallthrough()));
  m.impl("dropout", torch::dispatch(autograd, autograd::dropout));
  m.impl("dropout_", torch::dispatch(autograd, autograd::dropout_));
  m.impl("dropout_mask", torch::dispatch(autograd, torch::CppFunction::makeFallthrough()));
  m.impl(
      "dropout_",
      torch::dispatch(c10::DispatchKey::ADInplaceOrView, autograd::bump_version_of_dropout_));
  m.impl("dropout_", torch::dispatch(c10::DispatchKey::Functionalize, functionalize::dropout_));
}

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
  const Strides strides = mask_strides.has_value() ? Strides(*mask_strides) : Strides();
  return dropout_eager(
      input, {p, inplace, strides, mask_base, scale, shift, fill}, generator, rng_state);
}

// The same with all defaults: converting arguments takes longer than handling them.
Tensor plain_dropout_from_python(const Tensor& input, double p, bool inplace) {
  const py::gil_scoped_release no_gil;
  return dropout_eager(
      input, {p, inplace, Strides(), 0, Factor(), 0.0, 0.0}, std::nullopt, std::nullopt);
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
  m.def("register_generator", traced::register_generator, py::arg("generator"));
  m.def("cpu_path", [] { return cpu::path_name(cpu::active_path()); });
  m.def("cpu_paths", cpu_paths);
  m.def("set_cpu_path", set_cpu_path, py::arg("name"));
  m.def("build_facts", build_facts);
}

}  // namespace
}  // namespace dropout
