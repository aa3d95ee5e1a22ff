"""Compiled code draws what eager code draws: as often, in that order, never again for the backward.

Catches: two equal draws that a compiler merges (torch itself knows of its own random operators
only); a draw moved before another one; one that is dropped because nobody uses its mask; one that
the partitioner repeats when it is short of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch._dynamo
import torch._functorch.config as functorch_config
import torch._inductor.config as inductor_config
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

import dropout_ext
from dropout_ext import functional as F

Function = Callable[[torch.Tensor], torch.Tensor]


AOT_EAGER = pytest.param("aot_eager", marks=pytest.mark.thorough)
OTHER_BUDGETS = [pytest.param(each, marks=pytest.mark.thorough) for each in (0.9, 0.5, 0.05, 1e-3)]


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    # A graph from the cache is not traced, and so not tested.
    with (
        functorch_config.patch(enable_autograd_cache=False),
        inductor_config.patch(fx_graph_cache=False),
    ):
        yield
    torch._dynamo.reset()


def two_of_one_tensor(x: torch.Tensor) -> torch.Tensor:
    return F.dropout(x, 0.5).sin() * F.dropout(x, 0.5).cos()


def used_in_another_order(x: torch.Tensor) -> torch.Tensor:
    first = F.dropout(x, 0.5)
    second = F.dropout(x * 3, 0.4).sin().sum(0)
    return first.cos() + second


def unused_before(x: torch.Tensor) -> torch.Tensor:
    F.dropout(x, 0.5)
    return F.dropout(x.sin(), 0.5) * 2


def unused_at_the_end(x: torch.Tensor) -> torch.Tensor:
    y = F.dropout(x.sin(), 0.5) * 2
    F.dropout(x, 0.5)
    return y


def nothing_used(x: torch.Tensor) -> torch.Tensor:
    F.dropout(x, 0.5)
    return x * 2


def chain(x: torch.Tensor) -> torch.Tensor:
    for p in (0.5, 0.4, 0.3):
        x = F.dropout(x, p).cos()
    return x.exp()


def checkpointed(x: torch.Tensor) -> torch.Tensor:
    def block(t: torch.Tensor) -> torch.Tensor:
        return F.dropout(F.dropout(t.sin(), 0.5).cos(), 0.4).exp()

    inner = checkpoint(block, F.dropout(x, 0.3), use_reentrant=False)
    return F.dropout(inner, 0.3).sin()


STREAMS = [
    two_of_one_tensor,
    used_in_another_order,
    unused_before,
    unused_at_the_end,
    nothing_used,
    chain,
    checkpointed,
]


OTHER_STREAMS = [
    pytest.param(each, marks=pytest.mark.thorough) for each in (two_of_one_tensor, checkpointed)
]


def run(function: Function, x: torch.Tensor) -> list[torch.Tensor]:
    """Output and gradient in training, output without gradient; after each, the generator."""
    torch.manual_seed(99)
    leaf = x.clone().requires_grad_()
    y = function(leaf)
    (gradient,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
    found = [y.detach(), gradient, torch.rand(3)]
    with torch.no_grad():
        return [*found, function(x), torch.rand(3)]


def assert_streams_agree(
    function: Function, device: torch.device, backend: str, budget: float = 1.0
) -> None:
    x = torch.randn(40, 30, generator=torch.Generator().manual_seed(1)).to(device)
    expected = run(function, x)
    with functorch_config.patch(activation_memory_budget=budget):
        found = run(torch.compile(function, fullgraph=True, backend=backend), x)
    for eager, traced in zip(expected, found, strict=True):
        torch.testing.assert_close(traced, eager, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("function", STREAMS)
@pytest.mark.parametrize("backend", [AOT_EAGER, "aot_eager_decomp_partition"])
@pytest.mark.thorough
def test_stream(device: torch.device, function: Function, backend: str, lowering: str) -> None:
    assert_streams_agree(function, device, backend)


def for_inductor(x: torch.Tensor) -> torch.Tensor:
    """Nothing for which it would have to compile C++."""
    first = F.dropout(x, 0.5)
    second = F.dropout(x.t(), 0.4)
    F.dropout(x, 0.3)
    third, again = F.dropout(x, 0.2), F.dropout(x, 0.2)
    return torch.mm(torch.mm(again, second), torch.mm(third, second) @ first)


@pytest.mark.thorough
@pytest.mark.torch_kernels
def test_stream_of_inductor(device: torch.device, lowering: str) -> None:
    """Its scheduler too moves what does not depend on each other, and drops what nobody reads."""
    assert_streams_agree(for_inductor, device, "inductor")


@pytest.mark.parametrize("function", [chain, *OTHER_STREAMS])
@pytest.mark.parametrize("budget", [0.2, 0.0, *OTHER_BUDGETS])
@pytest.mark.thorough
def test_stream_at_memory_budgets(
    device: torch.device, function: Function, budget: float, lowering: str
) -> None:
    """At exactly 0 torch repeats each of its own random operators with another draw
    (pytorch#190717); ours keeps 16 bytes even there."""
    assert_streams_agree(function, device, "aot_eager_decomp_partition", budget)


def test_annotated_budget_of_zero_is_refused() -> None:
    """What cannot be mended is said: a budget given by annotation must be above 0."""
    region = getattr(torch.autograd.graph, "region_activation_memory_budget", None)
    if region is None:
        pytest.skip(f"torch {torch.__version__} has no region_activation_memory_budget")

    def f(x: torch.Tensor) -> torch.Tensor:
        with region(0.0):
            return F.dropout(x.sin(), 0.5).cos()

    compiled = torch.compile(f, fullgraph=True, backend="aot_eager_decomp_partition")
    with pytest.raises(Exception, match="would draw another mask for the backward"):
        compiled(torch.ones(30, 30, requires_grad=True))


def test_checkpoint_saves_a_draw_and_nothing_else(device: torch.device, lowering: str) -> None:
    """Inside a checkpointed region the 16 bytes are kept, not the generator's kilobytes."""
    saved: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    def f(x: torch.Tensor) -> torch.Tensor:
        return checkpoint(lambda t: F.dropout(t.sin(), 0.5).exp(), x, use_reentrant=False)

    x = torch.ones(100, 100, device=device, requires_grad=True)
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager_decomp_partition")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        compiled(x).sum().backward()
    assert sum(t.nbytes for t in saved if t.data_ptr() != x.data_ptr()) == 16


@pytest.mark.filterwarnings("ignore:dropout. torch.utils.checkpoint does not restore")
def test_checkpoint_with_a_generator(device: torch.device, lowering: str) -> None:
    """torch saves the state of the default generator alone: this draw must not be repeated."""
    generator = torch.Generator(device).manual_seed(1)
    module = dropout_ext.Dropout(0.5, generator=generator)

    def f(x: torch.Tensor) -> torch.Tensor:
        return checkpoint(lambda t: module(t.sin()).exp(), x, use_reentrant=False)

    x = torch.randn(50, 50, device=device, requires_grad=True)
    found = []
    for function in (f, torch.compile(f, fullgraph=True, backend="aot_eager_decomp_partition")):
        generator.manual_seed(1)
        y = function(x)
        # Eager checkpointing draws again, from wherever the generator stands.
        if function is f:
            generator.manual_seed(1)
        found.append([y, *torch.autograd.grad(y, x, torch.ones_like(y))])
    for eager, traced in zip(*found, strict=True):
        torch.testing.assert_close(traced, eager)


NOISE: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "of a constant": lambda x, g: g + F.dropout(torch.ones_like(x), 0.5),
    "of what forward saved": lambda x, g: g + F.dropout(x, 0.5),
    "unused": lambda x, g: (F.dropout(x, 0.5), g)[1],
    "by a state": lambda x, g: F.dropout(g, 0.5, rng_state=dropout_ext.draw_rng_state()),
}


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # Dynamo does
@pytest.mark.parametrize("backend", [AOT_EAGER, "aot_eager_decomp_partition"])
@pytest.mark.parametrize("name", NOISE)
def test_draws_of_the_backward_pass_stay_there(name: str, backend: str) -> None:
    """Else the partitioner takes those that do not need the gradient for the forward pass."""

    class Noisy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[no-untyped-def]
            ctx.save_for_backward(x)
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):  # type: ignore[no-untyped-def]
            return NOISE[name](*ctx.saved_tensors, gradient)

    def step(x: torch.Tensor) -> torch.Tensor:
        return Noisy.apply(F.dropout(x, 0.5)) * 2  # type: ignore[no-untyped-call]

    found = []
    for function in (step, torch.compile(step, backend=backend, fullgraph=True)):
        torch.manual_seed(3)
        x = torch.rand(50, requires_grad=True)
        y = function(x)
        between = F.dropout(torch.ones(20), 0.5)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        found.append((y, between, gradient, torch.rand(1)))
    for eager, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, eager)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint_around_a_graph_with_a_generator(reentrant: bool) -> None:
    """The graph's draws are repeated, from the first run on, which compiles it; nothing is drawn
    for the recomputation."""
    generator = torch.Generator().manual_seed(1)
    module = dropout_ext.Dropout(0.5, generator=generator)
    compiled = torch.compile(module, backend="aot_eager")
    for _ in range(2):
        before = generator.clone_state()
        x = torch.ones(1000, requires_grad=True)
        y = checkpoint(lambda x: compiled(x * 1.0).sin(), x, use_reentrant=reentrant)
        y.sum().backward()
        assert x.grad is not None and torch.equal(y != 0, x.grad != 0)
        expected = F.dropout(torch.ones(1000), 0.5, generator=before)
        assert torch.equal(y != 0, expected != 0)
        assert torch.equal(generator.get_state(), before.get_state())


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint_around_a_graph_of_the_default_generator(reentrant: bool) -> None:
    """torch restores it, so the graph has to draw again: what follows finds it moved on."""
    compiled = torch.compile(
        dropout_ext.Dropout(0.5, generator=torch.default_generator), backend="aot_eager"
    )
    x = torch.ones(1000, requires_grad=True)
    y = checkpoint(lambda x: F.dropout(compiled(x).sin(), 0.5), x, use_reentrant=reentrant)
    y.sum().backward()
    assert x.grad is not None and torch.equal(y != 0, x.grad != 0)


def test_symbolic_shapes_in_place(device: torch.device) -> None:
    """Traced outside Dynamo: what is in place has sizes, but neither numbers nor memory."""
    x = torch.randn(40, 30, device=device)
    traced = make_fx(lambda t: F.dropout(t.t() * 1, 0.5, inplace=True), tracing_mode="symbolic")(x)
    torch.manual_seed(1)
    expected = F.dropout(x.t(), 0.5)
    torch.manual_seed(1)
    assert torch.equal(traced(x), expected)


def test_aot_function_of_eager_code(device: torch.device) -> None:
    """Graphs that are not Dynamo's obey the same rules."""
    from functorch.compile import aot_function, min_cut_rematerialization_partition, nop

    def f(x: torch.Tensor) -> torch.Tensor:
        return two_of_one_tensor(x)

    x = torch.randn(40, 30, device=device)
    traced = aot_function(
        f,
        fw_compiler=nop,
        partition_fn=min_cut_rematerialization_partition,
    )
    for eager, found in zip(run(f, x), run(traced, x), strict=True):
        torch.testing.assert_close(found, eager)
