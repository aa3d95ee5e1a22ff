"""Derivatives: the same operation on another tensor, with the same mask.

Catches: a backward that draws again; a gradient taken in memory order when it arrives expanded or
transposed; a tangent that misses what memory it shares.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.autograd.forward_ad as fwAD

from dropout_ext import functional as F
from tests.helpers.compare import assert_bits, expected_dropout, random_bits, state, to_bits

RNG_STATE = (101, 7)


@pytest.mark.parametrize("drawn", [True, False])
def test_backward_has_the_mask_of_forward(
    device: torch.device, dtype: torch.dtype, drawn: bool
) -> None:
    """With an explicit state and with a draw, also through 100 other draws in between."""
    x = torch.ones(3, 5001, dtype=dtype, device=device, requires_grad=True)
    y = F.dropout(x, 0.3, rng_state=None if drawn else state(RNG_STATE, device))
    for _ in range(100):
        F.dropout(x.detach())
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
    assert x.grad.eq(0).any()


def gradients(device: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    shape = (65, 130)
    return {
        "contiguous": random_bits(shape, dtype).to(device),
        "transposed": random_bits((130, 65), dtype).to(device).t(),
        "expanded scalar": torch.tensor(3.0, dtype=dtype, device=device).expand(shape),
        "expanded rows": random_bits((1, 130), dtype).to(device).expand(shape),
        "expanded columns": random_bits((65, 1), dtype).to(device).expand(shape),
        "steps": random_bits((130, 260), dtype).to(device)[::2, ::2],
        "offset": random_bits((65 * 130 + 1,), dtype).to(device)[1:].view(shape),
    }


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x.t().contiguous().t()])
def test_gradients_of_any_layout(
    device: torch.device, dtype: torch.dtype, view: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """The gradient is the reference's output for the incoming one, Inf and NaN included."""
    for name, gradient in gradients(device, dtype).items():
        x = view(torch.ones(65, 130, dtype=dtype, device=device)).requires_grad_()
        y = F.dropout(x, 0.3, rng_state=state(RNG_STATE, device))
        (found,) = torch.autograd.grad(y, x, gradient)
        assert_bits(found, expected_dropout(gradient, 0.3, RNG_STATE), name)


def test_sum_backward(device: torch.device) -> None:
    x = torch.randn(40, 50, device=device, requires_grad=True)
    y = F.dropout(x, 0.4, rng_state=state(RNG_STATE, device))
    y.sum().backward()
    assert x.grad is not None
    expected = expected_dropout(torch.ones(40, 50), 0.4, RNG_STATE)
    assert_bits(x.grad, expected)


def test_double_backward_bits(device: torch.device) -> None:
    """d/dg of (mask g) . v is mask v."""
    x = torch.ones(500, device=device, requires_grad=True)
    g = torch.ones(500, device=device, requires_grad=True)
    v = random_bits((500,), torch.float32).to(device)
    y = F.dropout(x, 0.4, rng_state=state(RNG_STATE, device))
    (first,) = torch.autograd.grad(y, x, g, create_graph=True)
    assert first.requires_grad
    (second,) = torch.autograd.grad(first, g, v)
    assert_bits(second, expected_dropout(v, 0.4, RNG_STATE))


def test_forward_mode_bits(device: torch.device) -> None:
    x, tangent = (random_bits((500,), torch.float32, seed).to(device) for seed in (1, 2))
    with fwAD.dual_level():
        y = F.dropout(fwAD.make_dual(x, tangent), 0.4, rng_state=state(RNG_STATE, device))
        primal, found = fwAD.unpack_dual(y)
        assert_bits(primal, expected_dropout(x, 0.4, RNG_STATE))
        assert_bits(found, expected_dropout(tangent, 0.4, RNG_STATE))


def test_forward_mode_inplace_bits(device: torch.device) -> None:
    x, tangent = (random_bits((500,), torch.float32, seed).to(device) for seed in (1, 2))
    expected = [expected_dropout(t, 0.4, RNG_STATE) for t in (x, tangent)]
    with fwAD.dual_level():
        dual = fwAD.make_dual(x.clone(), tangent)
        F.dropout(dual, 0.4, inplace=True, rng_state=state(RNG_STATE, device))
        for found, bits in zip(fwAD.unpack_dual(dual), expected, strict=True):
            assert_bits(found, bits)


def test_forward_mode_inplace_on_a_view(device: torch.device) -> None:
    """What shares memory with the view sees its tangent changed too."""
    base, tangent = (random_bits((6, 50), torch.float32, seed).to(device) for seed in (1, 2))
    with fwAD.dual_level():
        dual = fwAD.make_dual(base.clone(), tangent.clone())
        F.dropout(dual[1::2], 0.4, inplace=True, rng_state=state(RNG_STATE, device))
        for found, before in zip(fwAD.unpack_dual(dual), (base, tangent), strict=True):
            assert_bits(found[1::2], expected_dropout(before[1::2], 0.4, RNG_STATE))
            assert_bits(found[::2], to_bits(before[::2]))


def test_forward_mode_draws_once(device: torch.device) -> None:
    x = torch.ones(500, device=device)
    with fwAD.dual_level():
        y = F.dropout(fwAD.make_dual(x, x.clone()), 0.4)
        primal, tangent = fwAD.unpack_dual(y)
        assert torch.equal(primal, tangent)
