"""A schedule of p under torch.compile: a graph for the first value, one for all others.

Catches: a graph for each step of a schedule, up to the limit and eager code after it; a mask, scale
or gradient that is not eager's because p went through a float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn
from torch._dynamo.utils import counters

import dropout_ext
from dropout_ext import functional as F

# Off the binary grid, so that a float32 on the way changes the scale of float64; all or nothing.
SCHEDULE = [0.05 * step + 1 / 21 for step in range(1, 9)] + [0.5, 1.0]
X = torch.randn(6, 8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7))

MODULES: dict[str, Callable[[], nn.Module]] = {
    "Dropout": lambda: dropout_ext.Dropout(),
    "classic, shared": lambda: dropout_ext.Dropout(mode="downscale_in_infer", broadcast_dims=0),
    "Dropout1d": lambda: dropout_ext.Dropout1d(),
    "DropPath": lambda: dropout_ext.DropPath(0.5),
    "DropPath, unscaled": lambda: dropout_ext.DropPath(0.5, scale_by_keep=False),
    "StochasticDepth": lambda: dropout_ext.StochasticDepth(0.5, "row"),
    "converted": lambda: dropout_ext.convert_dropout(nn.Dropout()),
}


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def outcome(call: Callable[[Tensor], Tensor]) -> list[Tensor]:
    torch.manual_seed(3)
    x = X.clone().requires_grad_()
    y = call(x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    return [y.detach(), gradient, torch.rand(2)]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("name", MODULES)
def test_attribute_of_a_module(name: str) -> None:
    module = MODULES[name]()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for p in SCHEDULE:
        module.p = p  # type: ignore[assignment]
        assert_same(outcome(compiled), outcome(module))
    assert graphs() <= 2


def test_argument_of_a_function() -> None:
    compiled = torch.compile(F.dropout, backend="aot_eager", fullgraph=True)
    for p in SCHEDULE:
        assert_same(outcome(lambda x, p=p: compiled(x, p)), outcome(lambda x, p=p: F.dropout(x, p)))
    assert graphs() <= 2


def test_schedule_that_begins_at_zero() -> None:
    """A constant 0 drops nothing and draws nothing, and the graph says so."""
    module = dropout_ext.Dropout(0.0)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    for p in (0.0, 0.0, *SCHEDULE):
        module.p = p
        assert_same(outcome(compiled), outcome(module))
    assert graphs() <= 3


def test_constant_p_stays_a_constant() -> None:
    """The pure operator, which Inductor can know, with p as a number."""
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    torch.compile(dropout_ext.Dropout(0.3), backend=backend, fullgraph=True)(X)
    assert "dropout_ext.dropout" in seen and "dropout_ext.dropout_p" not in seen


def test_schedule_for_a_state_and_in_place() -> None:
    state = dropout_ext.rng_state(5)

    def call(x: Tensor, p: float) -> Tensor:
        return F.dropout(x * 1, p, inplace=True, rng_state=state)

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    for p in SCHEDULE:
        assert_same(outcome(lambda x, p=p: compiled(x, p)), outcome(lambda x, p=p: call(x, p)))
    assert graphs() <= 2


def test_schedule_under_vmap() -> None:
    def call(x: Tensor, p: float) -> Tensor:
        return torch.func.vmap(lambda t: F.dropout(t, p), randomness="different")(x)

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    for p in SCHEDULE:
        assert_same(outcome(lambda x, p=p: compiled(x, p)), outcome(lambda x, p=p: call(x, p)))
    assert graphs() <= 2


@pytest.mark.thorough
def test_schedule_with_inductor() -> None:
    module = dropout_ext.Dropout()
    compiled = torch.compile(module, fullgraph=True)
    for p in SCHEDULE:
        module.p = p
        assert_same(outcome(compiled), outcome(module))
    assert graphs() <= 2


def test_error_of_a_symbol() -> None:
    """As in eager code: a value out of range is refused, and another one works afterwards."""
    compiled = torch.compile(F.dropout, backend="aot_eager")
    for p in (0.3, 0.4):
        compiled(X, p)
    with pytest.raises(Exception, match="has to be between 0 and 1"):
        compiled(X, 1.5)
    assert_same(outcome(lambda x: compiled(x, 0.2)), outcome(lambda x: F.dropout(x, 0.2)))


TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]] = {
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (x,))[1],
    "jacfwd": lambda f, x: torch.func.jacfwd(f)(x[0, 0]),
    "jacrev": lambda f, x: torch.func.jacrev(f)(x[0, 0]),
    "grad": lambda f, x: torch.func.grad(lambda x: f(x).square().sum())(x),
    "grad of vmap": lambda f, x: torch.func.grad(lambda x: torch.func.vmap(f)(x).sum())(x),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name: str) -> None:
    """The operator whose p is a tensor has no rule for them: it would give zeros, or an error."""
    state = dropout_ext.rng_state(3)

    def transformed(x: Tensor, p: float) -> Tensor:
        return TRANSFORMS[name](lambda x: F.dropout(x, p, rng_state=state), x)

    compiled = torch.compile(transformed, backend="aot_eager", fullgraph=True)
    for p in (0.3, 0.4, 0.6):
        torch.testing.assert_close(compiled(X, p), transformed(X, p))


def test_cuda_graphs_leave_it_out() -> None:
    """A replay would go on with the p that was read at the capture."""
    assert torch.Tag.cudagraph_unsafe in torch.ops.dropout_ext.dropout_p.default.tags
