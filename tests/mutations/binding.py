"""Mistakes where torch and the kernels meet: csrc/torch."""

from tests.mutations.mutation import Mutation

_TORCH = "csrc/torch"

MUTATIONS = (
    Mutation(
        "float16 tensors said to be bfloat16",
        _TORCH,
        "return ScalarType::kFloat16;",
        "return ScalarType::kBFloat16;",
        ("tests/contract/test_output_bitwise.py::test_sizes",),
    ),
    Mutation(
        "seed of 32 bits",
        _TORCH,
        "engine->random64()",
        "engine->random()",
        ("tests/contract/test_rng_state.py",),
    ),
    Mutation(
        "generator without its mutex",  # and a moment in which to notice that
        _TORCH,
        "  const std::lock_guard<std::mutex> lock(engine->mutex_);\n  for (",
        "  const auto before = engine->engine();\n  sched_yield();\n"
        "  engine->set_engine(before);\n  for (",
        ("tests/contract/test_threads.py::test_threads_share_a_generator",),
    ),
    Mutation(
        "a call that drops everything draws nothing",
        _TORCH,
        "  backend_of(input).reserve(generator, input.device());\n",
        "",
        ("tests/contract/test_rng_state.py::test_one_draw_per_call",),
    ),
    Mutation(
        "another state saved than the one drawn",
        _TORCH,
        "write(state, tensor.mutable_data_ptr<int64_t>());",
        "write({state.seed ^ 1, state.offset}, tensor.mutable_data_ptr<int64_t>());",
        ("tests/autograd/test_autograd.py::test_backward_has_the_mask_of_forward",),
    ),
    Mutation(
        "saved state that does not notice a change",
        _TORCH,
        "SavedVariable(rng_state, /*is_output=*/false)",
        "SavedVariable(rng_state.clone(), /*is_output=*/false)",
        ("tests/autograd/test_saved.py",),
    ),
    Mutation(
        "version counter left alone",
        _TORCH,
        "torch::autograd::impl::bump_version(result);",
        "",
        ("tests/autograd/test_inplace.py",),
    ),
    Mutation(
        "in-place checks after the draw",
        _TORCH,
        "if (!input.key_set().has_any(kTransformed)) {",
        "if (false && !input.key_set().has_any(kTransformed)) {",
        ("tests/contract/test_errors.py::test_a_refused_call_draws_nothing",),
    ),
    Mutation(
        "overlapping memory written in place",
        _TORCH,
        "!overlaps_itself(tensor),",
        "true || !overlaps_itself(tensor),",
        ("tests/contract/test_layouts.py::test_inplace_on_shared_memory_is_an_error",),
    ),
    Mutation(
        "tangent that is not dropped from",
        _TORCH,
        "Linear(args)(tangent, rng_state), /*level=*/0",
        "tangent, /*level=*/0",
        ("tests/autograd/test_autograd.py", "tests/autograd/test_gradcheck.py"),
    ),
    Mutation(
        "compiled backward without the scale of alpha dropout",
        _TORCH,
        "const auto rng_state = packed.unpack<Tensor>();",
        "const auto rng_state = packed.unpack<Tensor>();\n  linear.scale = std::nullopt;",
        ("tests/compile/test_compile_modules.py::test_compiled_autograd",),
    ),
    Mutation(
        "every sample with the first sample's state",
        _TORCH,
        "run(plan, task, sample, state_of(sample), ",
        "run(plan, task, sample, state_of(0), ",
        ("tests/contract/test_batched_states.py",),
    ),
    Mutation(
        "CUDA: a call reserves half of what it uses",
        _TORCH,
        "constexpr uint64_t kReserved = 8;",
        "constexpr uint64_t kReserved = 4;",
        ("tests/cuda/test_cuda.py",),
        mock=True,
    ),
    Mutation(
        "CUDA: launched on the default stream",
        _TORCH,
        "launch(task, source, c10::cuda::getCurrentCUDAStream(out.get_device()))",
        "launch(task, source, c10::cuda::getDefaultCUDAStream(out.get_device()))",
        ("tests/cuda/test_cuda.py::test_current_stream",),
        mock=True,
    ),
)
