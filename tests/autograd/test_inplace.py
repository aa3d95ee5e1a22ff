"""dropout in place, as autograd sees it. (test_layouts.py looks at the memory.)

Catches: a version counter that is not bumped, so that a stale saved tensor goes unnoticed; a base
that does not learn what happened to its view; a graph that still has the old value.
"""

from __future__ import annotations

import pytest
import torch

from dropout_ext import functional as F
from tests.helpers.compare import assert_bits, expected_dropout, state

RNG_STATE = (101, 7)


@pytest.mark.parametrize("p", [0.5, 1.0])
def test_version_is_bumped_once(device: torch.device, p: float) -> None:
    x = torch.ones(5, device=device)
    F.dropout(x, p, inplace=True)
    assert x._version == 1
    F.dropout(x, p, inplace=True, rng_state=state(RNG_STATE, device))
    assert x._version == 2
    with torch.no_grad():
        F.dropout(x, p, inplace=True)
    assert x._version == 3
    F.dropout(x, p)
    F.dropout(x, 0.0, inplace=True)
    F.dropout(x, p, training=False, inplace=True)
    assert x._version == 3


def test_inplace_on_a_saved_tensor_is_noticed(device: torch.device) -> None:
    x = torch.ones(5, device=device, requires_grad=True)
    saved_by_exp = x.exp()
    F.dropout(saved_by_exp, 0.5, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        saved_by_exp.sum().backward()


def test_inplace_saves_no_input(device: torch.device) -> None:
    """Overwriting the output afterwards is allowed: nothing but the state is needed."""
    x = torch.ones(50, device=device, requires_grad=True)
    y = F.dropout(x.clone(), 0.5, inplace=True, rng_state=state(RNG_STATE, device))
    expected = y.detach().clone()
    y.mul_(7)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, 7 * expected)


def test_inplace_on_a_view_reaches_its_base(device: torch.device) -> None:
    x = torch.ones(6, 50, device=device, requires_grad=True)
    base = x.clone()
    view = base[1:5:2]
    assert F.dropout(view, 0.5, inplace=True, rng_state=state(RNG_STATE, device)) is view
    base.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, base.detach())
    assert x.grad[::2].eq(1).sum() > 0
    assert set(x.grad[1:5:2].unique().tolist()) == {0.0, 2.0}


def test_inplace_on_a_transposed_view(device: torch.device) -> None:
    x = torch.ones(60, 50, device=device, requires_grad=True)
    base = x.clone()
    F.dropout(base.t(), 0.5, inplace=True, rng_state=state(RNG_STATE, device))
    assert_bits(base.t(), expected_dropout(torch.ones(50, 60), 0.5, RNG_STATE))
    base.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, base.detach())


def test_inplace_in_the_graph_of_its_input(device: torch.device) -> None:
    x = torch.ones(50, device=device, requires_grad=True)
    h = x * 2
    y = F.dropout(h, 0.5, inplace=True)
    assert y is h
    (y * y).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, 8 * y.detach())  # 2 y dy/dx, and dy/dx is 4 where y is not 0


FAILS_LATE = pytest.mark.xfail(strict=True, reason="the state is saved after the kernel has run")


@FAILS_LATE
def test_a_hook_that_fails_leaves_the_input(device: torch.device) -> None:
    """Saving the state comes before anything is written."""

    def refuse(tensor: torch.Tensor) -> torch.Tensor:
        raise KeyError("no room")

    x = torch.ones(50, device=device, requires_grad=True) * 1
    node = x.grad_fn
    with (
        torch.autograd.graph.saved_tensors_hooks(refuse, lambda tensor: tensor),
        pytest.raises(KeyError, match="no room"),
    ):
        F.dropout(x, 0.5, inplace=True, rng_state=state(RNG_STATE, device))
    assert x.eq(1).all()
    assert (x._version, x.grad_fn) == (0, node)


@FAILS_LATE
def test_a_state_that_cannot_be_saved_leaves_the_input(device: torch.device) -> None:
    with torch.inference_mode():
        rng_tensor = state(RNG_STATE, device)
    x = torch.ones(50, device=device, requires_grad=True) * 1
    node = x.grad_fn
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        F.dropout(x, 0.5, inplace=True, rng_state=rng_tensor)
    assert x.eq(1).all()
    assert (x._version, x.grad_fn) == (0, node)


def test_inplace_result_requires_grad_only_if_it_should(device: torch.device) -> None:
    x = torch.ones(5, device=device)
    assert not F.dropout(x, 0.5, inplace=True).requires_grad
    with torch.no_grad():
        leaf = torch.ones(5, device=device, requires_grad=True)
        F.dropout(leaf, 0.5, inplace=True)
    assert leaf.is_leaf
    assert leaf._version == 1
