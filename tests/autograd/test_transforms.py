"""torch.func: grad, vjp, jvp and their compositions, and functionalization.

Catches: a node that functorch refuses; a derivative that is not that of the mask; a write in place
that a transform does not see.
"""

from __future__ import annotations

import pytest
import torch
from torch.func import functionalize, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

from dropout_ext import functional as F
from tests.helpers.compare import assert_bits, expected_dropout, random_bits, state

RNG_STATE = (55, 1)


def drop(x: torch.Tensor) -> torch.Tensor:
    return F.dropout(x, 0.4, rng_state=state(RNG_STATE, x.device))


@pytest.fixture
def x(device: torch.device) -> torch.Tensor:
    return torch.randn(70, generator=torch.Generator().manual_seed(1)).to(device)


@pytest.fixture
def mask(x: torch.Tensor) -> torch.Tensor:
    """The factor of each element: 0 or the scale."""
    return drop(torch.ones_like(x))


def test_grad(x: torch.Tensor, mask: torch.Tensor) -> None:
    found = grad(lambda t: drop(t).sum())(x)
    assert torch.equal(found, mask)


def test_grad_of_a_drawn_mask(x: torch.Tensor) -> None:
    gradient, y = grad(lambda t: (lambda y: (y.sum(), y))(F.dropout(t)), has_aux=True)(
        torch.ones_like(x)
    )
    assert torch.equal(gradient, y)


def test_second_derivative(x: torch.Tensor, mask: torch.Tensor) -> None:
    found = grad(lambda t: grad(lambda u: (drop(u) ** 3).sum())(t).sum())(x)
    torch.testing.assert_close(found, 6 * mask**3 * x)


def test_vjp(x: torch.Tensor) -> None:
    gradient = random_bits((70,), torch.float32).to(x.device)
    pull = vjp(drop, x)[1]
    assert_bits(pull(gradient)[0], expected_dropout(gradient, 0.4, RNG_STATE))


def test_jvp(x: torch.Tensor) -> None:
    tangent = random_bits((70,), torch.float32).to(x.device)
    y, pushed = jvp(drop, (x,), (tangent,))[:2]
    assert_bits(y, expected_dropout(x, 0.4, RNG_STATE))
    assert_bits(pushed, expected_dropout(tangent, 0.4, RNG_STATE))


def test_jacobians(x: torch.Tensor, mask: torch.Tensor) -> None:
    assert torch.equal(jacrev(drop)(x), torch.diag(mask))
    assert torch.equal(jacfwd(drop)(x), torch.diag(mask))


def test_hessian(x: torch.Tensor, mask: torch.Tensor) -> None:
    found = hessian(lambda t: (drop(t) ** 2).sum())(x)
    torch.testing.assert_close(found, torch.diag(2 * mask**2))


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")
def test_linearize(x: torch.Tensor, mask: torch.Tensor) -> None:
    _, push = linearize(drop, x)
    assert torch.equal(push(torch.ones_like(x)), mask)


def test_inplace_in_a_transform(x: torch.Tensor, mask: torch.Tensor) -> None:
    def f(t: torch.Tensor) -> torch.Tensor:
        y = t.clone()
        F.dropout(y, 0.4, inplace=True, rng_state=state(RNG_STATE, t.device))
        return y.sum()

    assert torch.equal(grad(f)(x), mask)


def test_functionalize(x: torch.Tensor) -> None:
    def f(t: torch.Tensor) -> torch.Tensor:
        y = t.clone()
        F.dropout(y, 0.4, inplace=True, rng_state=state(RNG_STATE, t.device))
        return y

    assert torch.equal(functionalize(f)(x), f(x))


def test_vmap_of_grad_and_grad_of_vmap(x: torch.Tensor, mask: torch.Tensor) -> None:
    batch = torch.stack([x, 2 * x, 3 * x])
    per_sample = vmap(grad(lambda t: (drop(t) ** 2).sum()))(batch)
    torch.testing.assert_close(per_sample, 2 * mask**2 * batch)
    through = grad(lambda b: (vmap(drop)(b) ** 2).sum())(batch)
    torch.testing.assert_close(through, 2 * mask**2 * batch)
