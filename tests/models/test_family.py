"""The family as drop-ins: both the namesake of torch.nn and ours go through the same checks.

Catches: an argument, default, repr, warning or error that differs; a shape that one takes and the
other does not; a decision shared by other elements than the namesake's; a traced path that computes
something else.
"""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor

import dropout_ext
from dropout_ext import functional as F
from tests.helpers.compare import state

MODULES = [
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "AlphaDropout",
    "FeatureAlphaDropout",
]
FUNCTIONS = [
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "alpha_dropout",
    "feature_alpha_dropout",
]
BATCHED = {"1d": (6, 8, 5), "2d": (6, 8, 3, 4), "3d": (6, 8, 2, 3, 4)}


def shape_for(name: str) -> tuple[int, ...]:
    return BATCHED.get(name[-2:], (6, 8, 3))


def signature(function: Any) -> list[tuple[str, Any]]:
    return [
        (parameter.name, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functional_arguments(name: str) -> None:
    assert signature(getattr(F, name)) == signature(getattr(torch.nn.functional, name))
    assert name in F.__all__


@pytest.mark.parametrize("name", MODULES)
def test_module_arguments_and_repr(name: str) -> None:
    ours, theirs = getattr(dropout_ext, name), getattr(torch.nn, name)
    assert signature(ours) == signature(theirs)
    for arguments in [(), (0.25,), (1, True)]:
        assert repr(ours(*arguments)) == repr(theirs(*arguments))
    for p in (-0.1, 1.5):
        assert outcome(ours, p) == outcome(theirs, p)
        assert outcome(ours, p)[0][0] is ValueError


def outcome(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """The shape or the error, and the warnings with the file they point to."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result: Any = tuple(function(*arguments, **keywords).shape)
        except Exception as error:
            result = type(error), str(error)
    said = [(w.category, str(w.message), w.filename) for w in caught]
    return result, said


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("ndim", range(7))
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("inplace", [True, False])
def test_shapes_warnings_errors(name: str, ndim: int, training: bool, inplace: bool) -> None:
    """Whatever number of dimensions: the same result, in the same words, blaming the caller."""
    shape = (3, 4, 2, 3, 2, 2)[:ndim]
    found, expected = (
        outcome(getattr(library, name), torch.ones(shape), 0.5, training, inplace)
        for library in (F, torch.nn.functional)
    )
    assert found == expected


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_p_errors(name: str, p: float) -> None:
    x = torch.ones(2, 3, 4)
    found, expected = (
        outcome(getattr(library, name), x, p) for library in (F, torch.nn.functional)
    )
    assert found == expected
    assert found[0][0] is ValueError


def shared(y: Tensor, dropped: float) -> list[bool]:
    """Along which dimensions are all decisions the same?"""
    kept = y != dropped
    return [bool((kept == kept.narrow(d, 0, 1)).all()) for d in range(y.dim())]


@pytest.mark.parametrize("name", [n for n in MODULES if "Alpha" not in n])
@pytest.mark.parametrize("batched", [True, False])
def test_decisions_are_shared_by_the_same_elements(name: str, batched: bool) -> None:
    shape = (20, *shape_for(name)) if name in ("Dropout", "Dropout2d") else shape_for(name)
    if name == "Dropout2d":
        shape = (20, 8, 3, 4) if batched else (20, 8, 5)
    elif not batched:
        shape = shape[1:]
    found = []
    for library in (dropout_ext, torch.nn):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(shared(getattr(library, name)(0.5)(torch.ones(shape)), 0.0))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["AlphaDropout", "FeatureAlphaDropout"])
def test_alpha_has_the_values_of_its_namesake(name: str) -> None:
    x = torch.linspace(0, 3, 24, dtype=torch.float64).expand(50, 24)
    ours, theirs = (getattr(library, name)(0.3)(x) for library in (dropout_ext, torch.nn))
    kept = (ours != ours.min()) & (theirs != theirs.min())
    assert kept.any()
    torch.testing.assert_close(ours[kept], theirs[kept], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.min(), theirs.min(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("library", [dropout_ext, torch.nn], ids=["ours", "nn"])
@pytest.mark.parametrize("name", MODULES)
def test_module_life(library: Any, name: str) -> None:
    """Eval is the identity, inplace does what it does there, copies and pickles work."""
    x = torch.randn(shape_for(name))
    module = getattr(library, name)(0.5)
    assert module.eval()(x) is x
    module.train()
    for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(again) is type(module)
        assert again(x).shape == x.shape
    alpha = "Alpha" in name
    assert (getattr(library, name)(0.5, inplace=True)(x) is x) == (not alpha)


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
INPUT = torch.randn(9, 8, 3, 4)


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


# timm and torchvision.


def test_drop_path_is_timms() -> None:
    x = torch.ones(400, 2, 3)
    y = dropout_ext.DropPath(0.25)(x)
    assert shared(y, 0.0) == [False, True, True]
    assert set(y.unique().tolist()) == {0.0, torch.tensor(4 / 3).item()}
    y = dropout_ext.DropPath(0.25, scale_by_keep=False)(x)
    assert set(y.unique().tolist()) == {0.0, 1.0}
    module = dropout_ext.DropPath(0.12345)
    assert repr(module) == "DropPath(drop_prob=0.123)"
    assert module.drop_prob == module.p == 0.12345
    module.drop_prob = 0.0
    assert module(x) is x
    assert dropout_ext.DropPath()(x) is x
    assert dropout_ext.DropPath(drop_prob=0.25).p == 0.25
    torch.manual_seed(0)
    expected = F.drop_path(x, 0.25, training=True)
    torch.manual_seed(0)
    assert torch.equal(F.drop_path(x, drop_prob=0.25, training=True), expected)
    with pytest.raises(ValueError, match="two names of one"):
        dropout_ext.DropPath(0.25, drop_prob=0.5)
    assert F.drop_path(x, 0.5) is x
    with pytest.raises(IndexError, match="0-D"):
        F.drop_path(torch.ones(()), 0.5, True)


def test_stochastic_depth_is_torchvisions() -> None:
    x = torch.ones(400, 2, 3)
    assert shared(dropout_ext.StochasticDepth(0.5, "row")(x), 0.0) == [False, True, True]
    assert shared(dropout_ext.StochasticDepth(0.5, "batch")(x), 0.0) == [True, True, True]
    module = dropout_ext.StochasticDepth(0.2, mode="row")
    assert repr(module) == "StochasticDepth(p=0.2, mode=row)"
    assert module.eval()(x) is x
    message = "mode has to be either 'batch' or 'row', but got column"
    with pytest.raises(ValueError, match=message):
        F.stochastic_depth(x, 0.5, "column")
    with pytest.raises(ValueError, match="drop probability has to be between 0 and 1, but got 2"):
        F.stochastic_depth(x, 2, "row")


def test_repr_of_what_torch_does_not_have() -> None:
    module = dropout_ext.Dropout(0.1, broadcast_dims=-2, mode="downscale_in_infer")
    expected = "Dropout(p=0.1, inplace=False, broadcast_dims=(-2,), mode=downscale_in_infer)"
    assert repr(module) == expected
    assert dropout_ext.Dropout(broadcast_dims=[0, 1]).broadcast_dims == (0, 1)


def test_import_is_cheap() -> None:
    """Neither the compiler nor distributed tensors are imported for the sake of a module."""
    code = (
        "import sys, torch; before = set(sys.modules); import dropout_ext;"
        "print([m for m in set(sys.modules) - before"
        " if m.startswith(('torch._dynamo', 'torch.distributed', 'torch._inductor'))])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
