"""The family as drop-ins: both the namesake of torch.nn and ours go through the same checks.

Catches: an argument, default, repr, warning or error that differs; a shape that one takes and the
other does not; a decision shared by other elements than the namesake's.
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

import dropout_ext
from dropout_ext import functional as F
from tests.helpers.compare import shared_dims

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
            found.append(shared_dims(getattr(library, name)(0.5)(torch.ones(shape))))
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


@pytest.mark.thorough
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
