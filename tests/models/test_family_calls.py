"""Every function of the family in the same situations: sources of randomness, compile, vmap, grad.

Catches: a function that draws from elsewhere than the others; a traced path that computes something
else; a derivative or a batch that only plain dropout gets right.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch._dynamo
from torch import Tensor

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
