// The operators of torch on tensors of a mock CUDA device: those of the CPU, on the same memory.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include <mutex>
#include <set>
#include <string>
#include <string_view>

#include "work.h"

namespace {

using at::Tensor;
using c10::IValue;
using torch::jit::Stack;
using Map = std::function<Tensor(const Tensor&)>;

// The value with `f` of the tensors in it.
IValue map_tensors(const IValue& value, const Map& f) {
  if (value.isTensor()) {
    return value.toTensor().defined() ? IValue(f(value.toTensor())) : value;
  }
  if (value.isTensorList()) {
    c10::List<Tensor> list;
    for (const Tensor& tensor : value.toTensorVector()) {
      list.push_back(f(tensor));
    }
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<Tensor>> list;
    for (const std::optional<Tensor>& tensor : value.toOptionalTensorVector()) {
      list.push_back(tensor && tensor->defined() ? std::optional(f(*tensor)) : tensor);
    }
    return list;
  }
  return value;
}

Tensor on_host(const Tensor& tensor) {
  if (!tensor.is_cuda()) {
    return tensor;
  }
  Tensor view = at::from_blob(
      tensor.data_ptr(), tensor.sizes(), tensor.strides(), tensor.options().device(at::kCPU));
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) {
    view.unsafeGetTensorImpl()->set_wrapped_number(true);
  }
  view._set_neg(tensor.is_neg());
  view._set_conj(tensor.is_conj());
  return view;
}

// The device of a call; that its tensors are all there, as a device asks.
c10::Device find_device(const c10::FunctionSchema& schema, const Stack& arguments) {
  std::optional<c10::Device> found;
  const std::string& name = schema.name();
  const bool may_mix = name == "aten::copy_" || name.find("index") != std::string::npos;
  const Map see = [&](const Tensor& tensor) {
    const c10::Device device = tensor.device();
    TORCH_CHECK(
        may_mix || !found || device == *found || (device.is_cpu() && tensor.dim() == 0),
        "Expected all tensors to be on the same device, but found ", device, " and ", *found,
        " in the arguments of ", name);
    if (device.is_cuda() && !found) {
      found = device;
    }
    return tensor;
  };
  for (int pass = 0; pass < 2; ++pass) {  // the second knows the device
    for (const IValue& argument : arguments) {
      map_tensors(argument, see);
      if (argument.isDevice() && !found) {
        found = argument.toDevice();
      }
    }
  }
  TORCH_CHECK(found && found->is_cuda(), name, " names no device");
  return found->has_index() ? *found : c10::Device(c10::kCUDA, c10::cuda::current_device());
}

// Draws from the device's generator. What it gives makes one of the CPU when the work runs.
std::function<at::Generator()> draw_generator(const IValue& argument, c10::Device device) {
  const auto given = argument.isNone() ? std::nullopt : std::optional(argument.toGenerator());
  auto* engine = at::get_generator_or_default<at::CUDAGeneratorImpl>(
      given, at::cuda::detail::getDefaultCUDAGenerator(device.index()));
  const std::lock_guard<std::mutex> lock(engine->mutex_);
  return [state = engine->philox_cuda_state(4)] {
    const uint64_t seed = state.captured_ ? *state.seed_.ptr : state.seed_.val;
    const uint64_t offset =
        state.captured_ ? *state.offset_.ptr + state.offset_intragraph_ : state.offset_.val;
    return at::make_generator<at::CPUGeneratorImpl>(seed * 0x9e3779b97f4a7c15 + offset);
  };
}

// A call of the CPU's operator, to be made at any time and from anywhere.
struct HostCall {
  c10::OperatorHandle op;
  Stack arguments;
  size_t generator_at = 0;
  std::function<at::Generator()> generator;

  Stack operator()() const {
    const c10::impl::ForceDispatchKeyGuard nothing_around(
        c10::DispatchKeySet(c10::DispatchKey::BackendSelect),
        c10::autograd_dispatch_keyset | c10::autocast_dispatch_keyset |
            c10::DispatchKeySet(c10::DispatchKey::ADInplaceOrView));
    Stack stack = arguments;
    if (generator) {
      stack[generator_at] = generator();
    }
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack);
    return stack;
  }
};

void check(cudaError_t error) {
  C10_CUDA_CHECK(error);
}

bool written(const c10::Argument& argument) {
  return argument.alias_info() != nullptr && argument.alias_info()->isWrite();
}

bool synchronizes(const c10::OperatorHandle& op) {
  return op.hasTag(at::Tag::data_dependent_output) || op.hasTag(at::Tag::dynamic_output_shape);
}

// Tensors like those of a result, on the device.
IValue allocate(const IValue& result, c10::Device device) {
  return map_tensors(result, [&](const Tensor& tensor) {
    const auto options = tensor.options().device(device);
    return tensor.is_non_overlapping_and_dense()
               ? at::empty_strided(tensor.sizes(), tensor.strides(), options)
               : at::empty(tensor.sizes(), options);
  });
}

void copy_tensors(const IValue& from, const IValue& to) {
  std::vector<Tensor> sources;
  map_tensors(from, [&](const Tensor& tensor) { return sources.emplace_back(tensor); });
  size_t next = 0;
  map_tensors(to, [&](const Tensor& tensor) { return tensor.copy_(sources[next++]); });
}

IValue to_host(const IValue& value) {
  return value.isDevice() ? IValue(c10::Device(c10::kCPU)) : map_tensors(value, on_host);
}

// Into or from memory of the host. That of a source may change as soon as the call is over.
void copy_across(const Stack& given, HostCall& call, cudaStream_t stream) {
  const Tensor& to = given[0].toTensor();
  const Tensor& from = given[1].toTensor();
  const bool waits = !given[2].toBool();
  if (from.is_cpu() && !waits && !from.is_pinned()) {
    call.arguments[1] = from.clone();
  }
  check(mock_runtime::submit(stream, call));
  if (waits) {
    c10::cuda::stream_synchronize(stream);
  } else if (to.is_cpu() && !to.is_pinned()) {
    check(cudaStreamSynchronize(stream));
  }
}

void run(const c10::OperatorHandle& op, Stack* stack) {
  const c10::FunctionSchema& schema = op.schema();
  const Stack given = torch::jit::pop(*stack, schema.arguments().size());
  const c10::Device device = find_device(schema, given);
  const c10::cuda::CUDAGuard guard(device);
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const bool captured = mock_runtime::is_captured(stream);

  HostCall call{op};
  bool fresh = false;  // whether anything comes back that was not given
  std::vector<size_t> resized;
  for (size_t k = 0; k < given.size(); ++k) {
    const c10::Argument& argument = schema.arguments()[k];
    call.arguments.push_back(to_host(given[k]));
    if (argument.type()->str().find("Generator") != std::string::npos) {
      call.generator_at = k;
      call.generator = draw_generator(given[k], device);
    } else if (argument.is_out() && given[k].isTensor() && given[k].toTensor().numel() == 0) {
      resized.push_back(k);
      call.arguments[k] = at::empty({0}, given[k].toTensor().options().device(at::kCPU));
    }
  }
  Stack results(schema.returns().size());
  for (size_t r = 0; r < results.size(); ++r) {
    const c10::Argument& result = schema.returns()[r];
    fresh = fresh || !written(result);
    for (size_t k = 0; written(result) && k < given.size(); ++k) {
      if (written(schema.arguments()[k]) &&
          *schema.arguments()[k].alias_info() == *result.alias_info()) {
        results[r] = given[k];
      }
    }
  }
  if (schema.name() == "aten::copy_") {
    const Tensor& to = given[0].toTensor();
    const Tensor& from = given[1].toTensor();
    if (to.is_cpu() || from.is_cpu()) {
      copy_across(given, call, stream);
      stack->insert(stack->end(), results.begin(), results.end());
      return;
    }
    if (to.device() != from.device()) {
      check(cudaStreamSynchronize(c10::cuda::getCurrentCUDAStream(to.device().index())));
      check(cudaStreamSynchronize(c10::cuda::getCurrentCUDAStream(from.device().index())));
    }
  }
  if (synchronizes(op)) {
    c10::cuda::stream_synchronize(stream);
  }
  if (!fresh && resized.empty()) {
    check(mock_runtime::submit(stream, call));
  } else {
    TORCH_CHECK(resized.empty() || !captured, schema.name(), " resizes while it is captured");
    HostCall first = call;
    if (captured) {  // what comes back is found from zeros, for nothing has been computed yet
      for (IValue& argument : first.arguments) {
        argument = map_tensors(argument, [](const Tensor& t) { return at::zeros_like(t); });
      }
    } else {
      check(cudaStreamSynchronize(stream));
    }
    const Stack found = first();
    std::vector<std::pair<size_t, IValue>> into;
    for (size_t r = 0; r < results.size(); ++r) {
      if (!written(schema.returns()[r])) {
        results[r] = allocate(found[r], device);
        into.emplace_back(r, to_host(results[r]));
      }
    }
    for (const size_t k : resized) {
      const Tensor& from = call.arguments[k].toTensor();
      given[k].toTensor().resize_(from.sizes());
      copy_tensors(from, on_host(given[k].toTensor()));
    }
    const auto give = [into](const Stack& from) {
      for (const auto& [r, to] : into) {
        copy_tensors(from[r], to);
      }
    };
    if (captured) {
      check(mock_runtime::submit(stream, [call, give] { give(call()); }));
    } else {
      give(found);
    }
  }
  stack->insert(stack->end(), results.begin(), results.end());
}

// Those that touch a tensor's memory. Views and changes of shape work as they are.
bool computes(const c10::OperatorHandle& op) {
  static const std::set<std::string> kComposite = {
      "aten::copy_", "aten::convolution", "aten::convolution_backward"};
  static const std::set<std::string> kShapes = {"aten::empty",     "aten::empty_strided",
                                                "aten::resize_",   "aten::set_",
                                                "aten::is_set_to", "aten::record_stream"};
  const std::string& name = op.schema().name();
  if (kComposite.count(name) != 0) {
    return op.schema().overload_name().empty();
  }
  bool is_view = false;
  for (const c10::Argument& result : op.schema().returns()) {
    is_view = is_view || (result.alias_info() != nullptr && !result.alias_info()->isWrite());
  }
  return !is_view && kShapes.count(name) == 0 &&
         op.hasKernelForDispatchKey(c10::DispatchKey::CUDA) &&
         op.hasComputedKernelForDispatchKey(c10::DispatchKey::CPU);
}

struct Quiet : c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

torch::Library* register_all() {
  // Attention of the operators below, not of kernels that are not there.
  at::globalContext().setSDPUseFlash(false);
  at::globalContext().setSDPUseMemEfficient(false);
  at::globalContext().setSDPUseCuDNN(false);
  Quiet quiet;  // that kernels are replaced
  const c10::WarningUtils::WarningHandlerGuard guard(&quiet);
  auto* library = new torch::Library(
      torch::Library::IMPL, "aten", c10::DispatchKey::CUDA, __FILE__, __LINE__);
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    const auto op = dispatcher.findOp(name);
    if (name.getNamespace() != "aten" || !op || !op->hasSchema()) {
      continue;
    }
    const std::string full = c10::toString(name);
    if (computes(*op)) {
      library->impl(full.c_str(), torch::CppFunction::makeFromBoxedFunction<&run>());
    }
  }
  return library;
}

const auto* const kLibrary = register_all();

}  // namespace
