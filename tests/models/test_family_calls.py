"""Every function of the family in the same situations: sources of randomness, compile, vmap, grad.

Catches: a function that draws from elsewhere than the others; a traced path that computes something
else; a derivative or a batch that only plain dropout gets right.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable

import pytest
import torch
import torch._dynamo
from torch import Tensor

import dropout_ext
from dropout_ext import functional as F
from tests.helpers.compare import state

CALLS: dict[str, Callable[..., Tensor]] = {
    "dropout1d": lambda x, **kw: F.dropout1d(x[:, :, 0], 0.4, **kw),
    "dropout1d, no batch": lambda x, **kw: F.dropout1d(x[0, :, 0], 0.4, **kw),
    "dropout2d": lambda x, **kw: F.dropout2d(x, 0.4, **kw),
    "dropout3d, no batch": lambda x, **kw: F.dropout3d(x, 0.4, **kw),
    "alpha": lambda x, **kw: F.alpha_dropout(x, 0.4, True, **kw),
    "feature alpha": lambda x, **kw: F.feature_alpha_dropout(x, 0.4, True, **kw),
    "drop path": lambda x, **kw: F.drop_path(x, 0.4, True, **kw),
    "depth": lambda x, **kw: F.stochastic_depth(x, 0.4, "row", **kw),
    "node-wise": lambda x, **kw: F.dropout(x, 0.4, broadcast_dims=(0,), **kw),
    "classic": lambda x, **kw: F.dropout(x, 0.4, mode="downscale_in_infer", **kw),
}
INPUT = torch.randn(9, 8, 3, 4, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", CALLS)
def test_sources_of_randomness(name: str) -> None:
    """Seed, generator and state mean what they mean for dropout."""
    call = CALLS[name]
    first = call(INPUT, generator=torch.Generator().manual_seed(3))
    assert torch.equal(call(INPUT, generator=torch.Generator().manual_seed(3)), first)
    assert not torch.equal(call(INPUT, generator=torch.Generator().manual_seed(4)), first)
    torch.manual_seed(3)
    assert torch.equal(call(INPUT), first)
    explicit = call(INPUT, rng_state=state((5, 6)))
    assert torch.equal(call(INPUT, rng_state=state((5, 6))), explicit)
    with pytest.raises(ValueError, match="both"):
        call(INPUT, rng_state=state((5, 6)), generator=torch.Generator())


@pytest.mark.thorough
@pytest.mark.parametrize("name", CALLS)
def test_compiled_is_eager(name: str) -> None:
    """One graph, bit for bit, gradient included."""
    torch._dynamo.reset()
    call = CALLS[name]
    found = []
    for function in (call, torch.compile(call, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(7)
        leaf = INPUT.clone().requires_grad_()
        y = function(leaf)
        y.square().sum().backward()
        assert leaf.grad is not None
        found.append((y.detach(), leaf.grad, torch.rand(2)))
    for eager, traced in zip(*found, strict=True):
        assert torch.equal(eager, traced)
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["alpha", "feature alpha", "dropout2d", "drop path"])
def test_gradcheck(name: str) -> None:
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)

    def fixed(t: Tensor) -> Tensor:
        return CALLS[name](t, rng_state=state((5, 6)))

    assert torch.autograd.gradcheck(fixed, x)
    assert torch.autograd.gradgradcheck(fixed, x)


@pytest.mark.parametrize("name", CALLS)
def test_vmap_is_a_loop(name: str) -> None:
    x = torch.randn(3, *INPUT.shape)
    states = torch.tensor([[1, 2], [3, 4], [5, 6]])
    found = torch.func.vmap(lambda t, s: CALLS[name](t, rng_state=s))(x, states)
    expected = [CALLS[name](t, rng_state=s) for t, s in zip(x, states, strict=True)]
    assert torch.equal(found, torch.stack(expected))


MODULES: dict[str, tuple[torch.nn.Module, Callable[..., Tensor]]] = {
    "Dropout": (dropout_ext.Dropout(0.4), lambda x, **kw: F.dropout(x, 0.4, **kw)),
    "shared": (
        dropout_ext.Dropout(0.4, broadcast_dims=0),
        lambda x, **kw: F.dropout(x, 0.4, broadcast_dims=0, **kw),
    ),
    "Dropout1d": (dropout_ext.Dropout1d(0.4), lambda x, **kw: F.dropout1d(x, 0.4, **kw)),
    "Dropout2d": (dropout_ext.Dropout2d(0.4), lambda x, **kw: F.dropout2d(x, 0.4, **kw)),
    "Dropout3d": (dropout_ext.Dropout3d(0.4), lambda x, **kw: F.dropout3d(x, 0.4, **kw)),
    "alpha": (dropout_ext.AlphaDropout(0.4), lambda x, **kw: F.alpha_dropout(x, 0.4, True, **kw)),
    "feature alpha": (
        dropout_ext.FeatureAlphaDropout(0.4),
        lambda x, **kw: F.feature_alpha_dropout(x, 0.4, True, **kw),
    ),
    "DropPath": (dropout_ext.DropPath(0.4), lambda x, **kw: F.drop_path(x, 0.4, True, **kw)),
    "StochasticDepth": (
        dropout_ext.StochasticDepth(0.4, "row"),
        lambda x, **kw: F.stochastic_depth(x, 0.4, "row", **kw),
    ),
    "DropConnect": (dropout_ext.DropConnect(0.4, None), lambda x, **kw: F.dropout(x, 0.4, **kw)),
}


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", MODULES)
def test_modules_take_a_state(name: str, own: bool) -> None:
    """Nothing is drawn then, from the generator of the module either."""
    module, call = MODULES[name]
    module = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(3)
    if own:
        module.generator = generator  # type: ignore[assignment]
    x = INPUT[:, :, 0] if name == "Dropout1d" else INPUT
    default, before = torch.get_rng_state(), generator.get_state()
    found = module(x, rng_state=state((5, 6)))
    assert torch.equal(found, call(x, rng_state=state((5, 6))))
    assert torch.equal(torch.get_rng_state(), default)
    assert torch.equal(generator.get_state(), before)


def test_every_module_of_ours_takes_a_state() -> None:
    tested = {type(module) for module, _ in MODULES.values()}
    ours = {getattr(dropout_ext, name) for name in dropout_ext.__all__}
    family = {cls for cls in ours if isinstance(cls, type) and issubclass(cls, torch.nn.Module)}
    assert family - tested == {dropout_ext.DropoutModule, dropout_ext.MultiheadAttention}


def test_every_function_takes_a_state() -> None:
    for name in F.__all__:
        assert "rng_state" in inspect.signature(getattr(F, name)).parameters, name
