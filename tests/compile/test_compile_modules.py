"""Modules under torch.compile: one graph per mode, no breaks, generators included.

Catches: a recompilation on every step; a generator that breaks the graph, or one that is frozen
into it, so that another module's draws come from it; an eager model and a compiled one that part
ways after the same seed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy
import pytest
import torch
import torch._dynamo
import torch._dynamo.compiled_autograd
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters
from torch.func import functional_call, vmap

import dropout_ext
from dropout_ext import functional as F


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def model(device: torch.device, p: float = 0.3) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(16, 32),
        dropout_ext.Dropout(p),
        torch.nn.GELU(),
        dropout_ext.Dropout(p, inplace=True),
        torch.nn.Linear(32, 8),
        dropout_ext.Dropout(p),
    ).to(device)


def steps(module: torch.nn.Module, count: int, device: torch.device) -> list[torch.Tensor]:
    """Losses and gradients of a few steps of training."""
    x = torch.randn(10, 16, generator=torch.Generator().manual_seed(3)).to(device)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    found: list[torch.Tensor] = []
    torch.manual_seed(5)
    for _ in range(count):
        optimizer.zero_grad()
        loss = module(x).square().mean()
        loss.backward()
        optimizer.step()
        found += [loss.detach(), *(p.grad.clone() for p in module.parameters())]  # type: ignore[union-attr]
    return found


INDUCTOR = pytest.param("inductor", marks=[pytest.mark.torch_kernels, pytest.mark.thorough])


@pytest.mark.parametrize("backend", ["aot_eager_decomp_partition", INDUCTOR])
def test_training_follows_eager(device: torch.device, backend: str, lowering: str) -> None:
    eager = model(device)
    compiled = torch.compile(copy.deepcopy(eager), fullgraph=True, backend=backend)
    for expected, found in zip(steps(eager, 3, device), steps(compiled, 3, device), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_one_graph_for_each_mode(device: torch.device) -> None:
    """Over steps, and over changes between train and eval and back."""
    counter = CompileCounterWithBackend("aot_eager")
    module = model(device)
    compiled = torch.compile(module, fullgraph=True, backend=counter)
    x = torch.randn(10, 16, device=device)
    for training in (True, False, True, False, True):
        module.train(training)
        for _ in range(3):
            compiled(x).sum().backward()
    assert counter.frame_count == 2


def test_one_graph_for_all_shapes(device: torch.device) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(
        lambda x: F.dropout(x, 0.4) + 0, fullgraph=True, backend=counter, dynamic=True
    )
    for rows in (3, 5, 40, 7, 100):
        x = torch.ones(rows, 9, device=device, requires_grad=True)
        torch.manual_seed(rows)
        found = compiled(x)
        found.sum().backward()
        torch.manual_seed(rows)
        assert torch.equal(found, F.dropout(x, 0.4))
        assert x.grad is not None
        assert torch.equal(x.grad, found.detach())
    assert counter.frame_count == 1


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "aot_eager_decomp_partition", INDUCTOR])
def test_generator(device: torch.device, backend: str) -> None:
    """A module's own generator is drawn from, and the default one is left alone."""
    x = torch.ones(300, device=device, requires_grad=True)
    generators = [torch.Generator(device).manual_seed(1) for _ in range(2)]
    eager, module = (dropout_ext.Dropout(0.5, generator=g) for g in generators)
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    before = torch.get_rng_state()
    for _ in range(3):
        y = compiled(x)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert torch.equal(y, eager(x))
        assert torch.equal(gradient, y.detach())
    assert torch.equal(generators[0].get_state(), generators[1].get_state())
    assert torch.equal(torch.get_rng_state(), before)


def test_another_generator_is_another_graph(device: torch.device) -> None:
    """The graph knows which generator it draws from; it is never taken for another one."""
    counter = CompileCounterWithBackend("aot_eager")
    x = torch.ones(300, device=device)

    def f(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return F.dropout(x, 0.5, generator=generator)

    compiled = torch.compile(f, fullgraph=True, backend=counter)
    for seed in (1, 2, 1):
        mine, theirs = (torch.Generator(device).manual_seed(seed) for _ in range(2))
        assert torch.equal(compiled(x, mine), f(x, theirs))
        assert torch.equal(compiled(x, mine), f(x, theirs))
    assert counter.frame_count == 3


def test_layers_share_a_generator(device: torch.device) -> None:
    def make() -> torch.nn.Module:
        generator = torch.Generator(device).manual_seed(4)
        return torch.nn.Sequential(
            *(dropout_ext.Dropout(0.3, generator=generator) for _ in range(3))
        )

    x = torch.ones(500, device=device)
    eager = make()
    compiled = torch.compile(make(), fullgraph=True, backend="aot_eager")
    for _ in range(2):
        assert torch.equal(compiled(x), eager(x))


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_compiled_vmap(device: torch.device, randomness: str) -> None:
    """The states of the batch are those that eager vmap draws."""
    x = torch.ones(4, 100, device=device)

    def f(x: torch.Tensor) -> torch.Tensor:
        return vmap(lambda t: F.dropout(t, 0.5), randomness=randomness)(x)

    torch.manual_seed(1)
    expected = f(x)
    torch.manual_seed(1)
    assert torch.equal(torch.compile(f, fullgraph=True, backend="aot_eager")(x), expected)
    assert expected.eq(0).any()


def test_functional_call(device: torch.device) -> None:
    module = model(device)
    parameters = {name: p * 2 for name, p in module.named_parameters()}
    x = torch.randn(10, 16, device=device)
    torch.manual_seed(1)
    expected = functional_call(module, parameters, (x,))
    torch.manual_seed(1)
    compiled = torch.compile(
        lambda q: functional_call(module, q, (x,)), fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(parameters), expected)


AUTOGRAD: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "elementwise": lambda x: F.dropout(x, 0.5),
    "in place": lambda x: F.dropout(x * 1.5, 0.5, inplace=True),
    "twice": lambda x: F.dropout(F.dropout(x, 0.5).sin(), 0.1),
    "shared": lambda x: F.dropout(x, 0.5, broadcast_dims=1),
    "piece": lambda x: F.dropout(x, 0.5, shard=((80, 80), (7, 9))),
    "alpha": lambda x: F.alpha_dropout(x, 0.3, training=True),
}


@pytest.mark.parametrize(
    "name",
    ["piece", *(pytest.param(n, marks=pytest.mark.thorough) for n in AUTOGRAD if n != "piece")],
)
def test_compiled_autograd(device: torch.device, name: str, lowering: str) -> None:
    """The same gradients from one graph for all steps: a state that became a constant of the
    graph would repeat the first step's mask, a size that did would fail on the last."""

    def gradients(backward: Callable[[torch.Tensor], None]) -> list[torch.Tensor]:
        torch.manual_seed(3)
        results = []
        for rows in (40, 40, 41, 43):
            x = torch.linspace(1, 2, rows * 30, device=device).view(rows, 30).requires_grad_()
            backward(AUTOGRAD[name](x).square().sum())
            assert x.grad is not None
            results.append(x.grad)
        return results

    def compiled(loss: torch.Tensor) -> None:
        backend = "inductor" if lowering == "fused" else "aot_eager"
        with torch._dynamo.compiled_autograd._enable(torch.compile(backend=backend)):
            loss.backward()

    torch._dynamo.reset()
    counters.clear()
    for expected, computed in zip(
        gradients(torch.Tensor.backward), gradients(compiled), strict=True
    ):
        # Inductor's cosine is not eager's in the last bit.
        rounding = 1e-5 if lowering == "fused" else 0.0
        torch.testing.assert_close(computed, expected, rtol=rounding, atol=rounding)
    assert counters["compiled_autograd"]["captures"] <= 2, "once static, once for any size"


def test_probability_of_numpy(device: torch.device) -> None:
    """As models make the rates of a drop path; no operator of a graph takes such a number."""
    x = torch.randn(9, 7, device=device)
    for rate in numpy.linspace(0, 0.3, 3):
        module = dropout_ext.DropPath(rate)
        assert type(module.p) is float
        state = dropout_ext.rng_state(3, device=device)
        expected = F.drop_path(x, rate, training=True, rng_state=state)
        traced = torch.compile(module, fullgraph=True, backend="aot_eager")
        assert torch.equal(traced(x, rng_state=state), expected)
        torch._dynamo.reset()


def test_symbolic_probability(device: torch.device) -> None:
    """dynamic=True makes symbols of a module's numbers; alpha dropout computes with p."""
    module = dropout_ext.AlphaDropout(0.3)
    traced = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for module.p in (0.3, 0.6):
        for rows in (4, 5):
            x = torch.randn(rows, 70, device=device)
            torch.manual_seed(1)
            expected = module(x)
            torch.manual_seed(1)
            assert torch.equal(traced(x), expected)
