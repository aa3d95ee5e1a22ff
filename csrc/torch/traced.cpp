#include "torch/traced.h"

#include <mutex>
#include <vector>

#include "torch/ops.h"

namespace dropout::traced {
namespace {

// Graphs that name a generator may live as long as the process, and so do these.
struct Registry {
  std::mutex mutex;
  std::vector<at::Generator> generators;
};

Registry& registry() {
  static auto* const instance = new Registry();
  return *instance;
}

at::Generator registered(int64_t number) {
  const std::lock_guard<std::mutex> lock(registry().mutex);
  const auto& generators = registry().generators;
  TORCH_CHECK(
      number >= 0 && number < static_cast<int64_t>(generators.size()),
      "dropout: this graph was traced with a torch.Generator, of which it holds the number ",
      number,
      " only; a graph that is loaded in another process can draw from the default "
      "generator alone. Trace it without generator=, or give it an rng_state as input");
  return generators[static_cast<size_t>(number)];
}

}  // namespace

int64_t register_generator(const at::Generator& generator) {
  const std::lock_guard<std::mutex> lock(registry().mutex);
  auto& generators = registry().generators;
  for (size_t number = 0; number < generators.size(); ++number) {
    if (generators[number] == generator) {
      return static_cast<int64_t>(number);
    }
  }
  generators.push_back(generator);
  return static_cast<int64_t>(generators.size()) - 1;
}

Tensor draw(
    const Tensor& input,
    at::OptionalSymIntArrayRef batch,
    std::optional<int64_t> generator,
    const std::optional<Tensor>& /*after*/) {
  return ops::draw(
      input, batch.value_or(c10::SymIntArrayRef()),
      generator.has_value() ? Generator(registered(*generator)) : Generator());
}

}  // namespace dropout::traced
