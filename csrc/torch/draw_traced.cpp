// Key CompositeExplicitAutograd: `draw` in compiled graphs.
#include <ATen/Context.h>

#include <mutex>
#include <random>
#include <utility>
#include <vector>

#include "torch/ops.h"

namespace dropout {
namespace {

// Graphs that name a generator may live as long as the process, and so do these. Their numbers
// begin at one that other processes do not use, so that a graph from elsewhere finds none.
struct Registry {
  std::mutex mutex;
  const int64_t first = int64_t{std::random_device()()} << 24;
  std::vector<at::Generator> generators;
};

Registry& registry() {
  static auto* const instance = new Registry();
  return *instance;
}

at::Generator registered(int64_t number) {
  const std::lock_guard<std::mutex> lock(registry().mutex);
  const auto& generators = registry().generators;
  const int64_t position = number - registry().first;
  TORCH_CHECK(
      position >= 0 && position < static_cast<int64_t>(generators.size()),
      "dropout: this graph was traced with a torch.Generator, of which it holds the number ",
      number,
      " only; a graph that is loaded in another process can draw from the default "
      "generator alone. Trace it without generator=, or give it an rng_state as input");
  return generators[static_cast<size_t>(position)];
}

Repeat& repeat() {
  static auto* const instance = new Repeat();
  return *instance;
}

// By torch.utils.checkpoint itself, which must find it where the forward pass left it.
bool is_restored(const at::Generator& generator) {
  return at::globalContext().defaultGenerator(generator.device()) == generator;
}

// Graphs are traced with tensors that have no memory, subclasses of Python.
bool is_run(const Tensor& input) {
  return !input.is_meta() && !input.key_set().has(c10::DispatchKey::Python);
}

}  // namespace

void set_repeat(Repeat function) {
  repeat() = std::move(function);
}

int64_t register_generator(const at::Generator& generator) {
  const std::lock_guard<std::mutex> lock(registry().mutex);
  auto& generators = registry().generators;
  size_t position = 0;
  while (position < generators.size() && generators[position] != generator) {
    ++position;
  }
  if (position == generators.size()) {
    generators.push_back(generator);
  }
  return registry().first + static_cast<int64_t>(position);
}

Tensor draw_traced(
    const Tensor& input,
    at::OptionalSymIntArrayRef batch,
    std::optional<int64_t> generator,
    const std::optional<Tensor>& /*after*/) {
  const auto source = generator.has_value() ? Generator(registered(*generator)) : Generator();
  const auto draw = [&] {
    return ops::draw(input, batch.value_or(c10::SymIntArrayRef()), source);
  };
  if (source.has_value() && repeat() && is_run(input) && !is_restored(*source)) {
    if (auto state = repeat()(*source, draw)) {
      return *std::move(state);
    }
  }
  return draw();
}

}  // namespace dropout
