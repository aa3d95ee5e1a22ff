"""Derivatives against finite differences: first and second order, both modes, batched.

Catches: a derivative that is not that of the function, for some layout, index map, or p at the end
of its range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from dropout_ext import functional as F
from tests.helpers.compare import state
from tests.helpers.operators import dropout_

ops = torch.ops.dropout_ext

VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.t(),
    "steps": lambda x: x[::2, 1::2],
    "expanded": lambda x: x[:1].expand(3, x.shape[1]),
    "empty": lambda x: x[:0],
}


@pytest.fixture
def rng_tensor(device: torch.device) -> torch.Tensor:
    return state((101, 7), device)


def double(device: torch.device, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(*shape, dtype=torch.float64, generator=generator).to(device)
    return x.requires_grad_()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("p", [0.3, 1.0, 1e-12])
def test_gradcheck(rng_tensor: torch.Tensor, view: str, p: float) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return F.dropout(VIEWS[view](x), p, rng_state=rng_tensor)

    x = double(rng_tensor.device, 4, 5)
    assert gradcheck(f, x, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(f, x, check_fwd_over_rev=True, check_rev_over_rev=True)


@pytest.mark.parametrize("view", [view for view in VIEWS if view != "expanded"])
def test_gradcheck_inplace(rng_tensor: torch.Tensor, view: str) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        F.dropout(VIEWS[view](y), 0.3, inplace=True, rng_state=rng_tensor)
        return y

    x = double(rng_tensor.device, 4, 5)
    assert gradcheck(f, x, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(f, x, check_fwd_over_rev=True)


def test_gradcheck_of_the_op_with_a_map(rng_tensor: torch.Tensor) -> None:
    x = double(rng_tensor.device, 4, 5)

    def f(x: torch.Tensor) -> Any:
        return ops.dropout(x, 0.3, rng_tensor, mask_strides=[0, 1], mask_base=11)

    def f_inplace(x: torch.Tensor) -> Any:
        return dropout_(x.clone(), 0.3, rng_tensor, mask_strides=[0, 1], mask_base=11)

    for function in (f, f_inplace):
        assert gradcheck(function, x, check_forward_ad=True)
        assert gradgradcheck(function, x, check_fwd_over_rev=True)


@pytest.mark.parametrize("batched", [False, True])
def test_gradcheck_fast_mode(rng_tensor: torch.Tensor, batched: bool) -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x.sin(), 0.3, rng_state=rng_tensor)

    x = double(rng_tensor.device, 40, 50)
    assert gradcheck(f, x, fast_mode=True, check_forward_ad=True, check_batched_grad=batched)
    assert gradgradcheck(f, x, fast_mode=True, check_batched_grad=batched)


def test_gradcheck_with_a_state_for_each_sample(rng_tensor: torch.Tensor) -> None:
    states = torch.stack([rng_tensor, rng_tensor + 2, rng_tensor + 5])
    x = double(rng_tensor.device, 3, 5)

    def f(x: torch.Tensor) -> Any:
        return ops.dropout(x, 0.3, states)

    assert gradcheck(f, x, check_forward_ad=True, check_batched_forward_grad=True)
    assert gradgradcheck(f, x, check_fwd_over_rev=True)
