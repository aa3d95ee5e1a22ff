"""Derivatives of every order and kind, against finite differences and the composition.

Catches: a node that saves more than it says; a second derivative that stops at the output; a
forward-mode derivative that differs from the reverse one; gradients nobody asked for.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.autograd.graph import saved_tensors_hooks

from dropout_ext import functional as F
from tests.attention.composition import composed, leaves, random, rng_state
from tests.helpers.allocations import allocations

pytestmark = pytest.mark.thorough

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.7},
    "grouped": {"enable_gqa": True},
    "bool": {"attn_mask": torch.ones(3, 5, dtype=torch.bool).tril(1)},
    "empty row": {"attn_mask": torch.tensor([[True], [False], [True]])},
}


def tensors(grouped: bool = False, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    heads = 1 if grouped else 2
    shapes = (2, 2, 3, 4), (2, heads, 5, 4), (2, heads, 5, 3)
    return leaves(*(random(*shape, seed=k, dtype=dtype) for k, shape in enumerate(shapes)))


def attention(case: dict[str, Any]) -> Any:
    def call(query: Tensor, key: Tensor, value: Tensor, *mask: Tensor) -> Tensor:
        arguments = {**case, "attn_mask": mask[0]} if mask else case
        return F.scaled_dot_product_attention(
            query, key, value, dropout_p=0.4, rng_state=rng_state(), **arguments
        )

    return call


@pytest.mark.parametrize("name", CASES)
def test_gradcheck(name: str) -> None:
    function, given = attention(CASES[name]), tensors(name == "grouped")
    assert gradcheck(function, given, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, given, check_fwd_over_rev=True)


@pytest.mark.parametrize("shape", [(3, 5), (5,), (2, 1, 1), (2, 2, 3, 1)])
def test_gradcheck_of_a_mask(shape: tuple[int, ...]) -> None:
    given = [*tensors(), *leaves(random(*shape, seed=5, dtype=torch.float64))]
    assert gradcheck(attention({}), given, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(attention({}), given)


def test_forward_mode_is_that_of_the_composition() -> None:
    given, tangents = tensors(dtype=torch.float32), tensors(dtype=torch.float32)[::-1]
    tangents = [random(*t.shape, seed=7) for t in given]
    found = []
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t.detach(), d) for t, d in zip(given, tangents, strict=True)]
        for function in (F.scaled_dot_product_attention, composed):
            output = function(*duals, dropout_p=0.4, rng_state=rng_state())
            found.append(forward_ad.unpack_dual(output))
    torch.testing.assert_close(found[0].primal, found[1].primal)
    torch.testing.assert_close(found[0].tangent, found[1].tangent)


def test_saves_what_it_says() -> None:
    """Inputs, output, one number a query, 16 bytes; whatever the number of keys."""
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    query, key, value = leaves(random(2, 3, 70, 8), random(2, 3, 90, 8), random(2, 3, 90, 8))
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        F.scaled_dot_product_attention(query, key, value, dropout_p=0.4)
    numbers = query.numel() + 2 * key.numel() + query.numel()
    assert sum(saved.values()) == 4 * numbers + 8 * 2 * 3 * 70 + 16


@pytest.mark.parametrize("causal", [False, True])
def test_weights_are_never_held(causal: bool) -> None:
    """All that is allocated, forward and backward, is a fraction of the weights."""
    query, key, value = leaves(*(random(1, 2, 2048, 16) for _ in range(3)))
    gradient = torch.ones(1, 2, 2048, 16)
    sizes = allocations(
        lambda: F.scaled_dot_product_attention(
            query, key, value, dropout_p=0.4, is_causal=causal
        ).backward(gradient)
    )
    weights = 4 * 2 * 2048 * 2048
    assert len(sizes) > 4 and sum(sizes) < weights / 4


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)])
def test_gradients_of_some(wanted: tuple[int, ...]) -> None:
    given = tensors(dtype=torch.float32)
    for k, tensor in enumerate(given):
        tensor.requires_grad_(k in wanted)
    found = []
    for function in (F.scaled_dot_product_attention, composed):
        output = function(*given, dropout_p=0.4, rng_state=rng_state())
        found.append(torch.autograd.grad(output.square().sum(), [given[k] for k in wanted]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_second_derivative_of_float32() -> None:
    found = []
    for function in (F.scaled_dot_product_attention, composed):
        given = tensors(dtype=torch.float32)
        output = function(*given, dropout_p=0.4, rng_state=rng_state())
        first = torch.autograd.grad(output.square().sum(), given, create_graph=True)
        norm = sum(g.square().sum() for g in first)
        found.append(torch.autograd.grad(norm, given))  # type: ignore[arg-type]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_backward_twice_needs_the_graph() -> None:
    given = tensors()
    output = attention({})(*given)
    output.sum().backward(retain_graph=True)
    output.sum().backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        output.sum().backward()


def test_a_changed_input_is_noticed() -> None:
    given = tensors()
    inputs = [t * 1 for t in given]
    output = attention({})(*inputs)
    inputs[1].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_a_changed_output_is_noticed() -> None:
    output = attention({})(*tensors())
    output.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()
