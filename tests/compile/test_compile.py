"""torch.compile: traced code computes what eager code does.

Catches: a graph break; a mask frozen into the graph; an activation saved although it can be
computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
import torch._functorch.config as functorch_config

import dropout_ext
from dropout_ext import functional as F
from tests.helpers.compare import state

Function = Callable[[torch.Tensor], torch.Tensor]
# What tracing and partitioning see, without the time a C++ compiler takes.
TRACED = "aot_eager_decomp_partition"


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(function: Any, backend: str = TRACED, **kwargs: Any) -> Any:
    return torch.compile(function, fullgraph=True, backend=backend, **kwargs)


def run(function: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """Output, gradient, and what the generator gives afterwards."""
    torch.manual_seed(99)
    leaf = x.clone().requires_grad_()
    y = function(leaf)
    y.backward(torch.ones_like(y))
    assert leaf.grad is not None
    return [y.detach(), leaf.grad, torch.rand(3, device=x.device)]


def part_in_place(x: torch.Tensor) -> torch.Tensor:
    F.dropout(x[1::2], 0.4, inplace=True)
    return x.cos()


FUNCTIONS: dict[str, Function] = {
    "explicit": lambda x: F.dropout(x, 0.4, rng_state=dropout_ext.rng_state(5, device=x.device)),
    "in place": lambda x: F.dropout(x * 2, 0.4, inplace=True),
    "transposed": lambda x: F.dropout(x.t(), 0.4) + 1,
    "view in place": lambda x: part_in_place(x * 2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiled_is_eager(device: torch.device, name: str) -> None:
    """Bit for bit, gradient included, and the same number of draws."""
    x = torch.randn(64, 33, generator=torch.Generator().manual_seed(1)).to(device)
    for eager, traced in zip(
        run(FUNCTIONS[name], x), run(compiled(FUNCTIONS[name]), x), strict=True
    ):
        assert torch.equal(eager, traced)


def test_eval_and_p_zero(device: torch.device) -> None:
    x = torch.randn(50, device=device)
    module = compiled(dropout_ext.Dropout(0.5).eval())
    assert torch.equal(module(x), x)
    assert torch.equal(compiled(lambda t: F.dropout(t, 0.0) + 0)(x), x)


def test_pure_op_may_be_recomputed() -> None:
    """At a small budget no mask and no output is saved: 16 bytes a layer and the input."""
    saved: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    def f(x: torch.Tensor) -> torch.Tensor:
        for _ in range(4):
            x = F.dropout(x, 0.5) * 3
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        compiled(f)(torch.ones(100, 100, requires_grad=True)).sum().backward()
    assert sum(tensor.nbytes for tensor in saved) == 4 * 16


@pytest.mark.torch_kernels
@pytest.mark.slow
def test_inductor_with_fused_neighbours(device: torch.device, lowering: str) -> None:
    """Between operations that it compiles, in place and not, at a budget that recomputes."""

    def f(x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(x.sin() + 1, 0.4) * 3
        return F.dropout(x * 2, 0.2, inplace=True).cos()

    x = torch.randn(64, 33, device=device)
    expected = run(f, x)
    for budget in (1.0, 0.2):
        torch._dynamo.reset()
        with functorch_config.patch(activation_memory_budget=budget):
            found = run(compiled(f, "inductor"), x)
        for eager, traced in zip(expected, found, strict=True):
            torch.testing.assert_close(traced, eager, rtol=1e-5, atol=1e-4)


def test_mask_in_compiled_code(device: torch.device) -> None:
    rng_tensor = state((1, 2), device)
    f = compiled(lambda s: F.dropout_mask((30, 40), 0.5, rng_state=s))
    assert torch.equal(f(rng_tensor), F.dropout_mask((30, 40), 0.5, rng_state=rng_tensor))
