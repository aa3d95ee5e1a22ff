"""What autograd keeps for the backward pass: 16 bytes, the rng_state, and nothing else.

Catches: a saved mask, input or output; a state that is kept although nobody asked for a gradient,
or that can be changed behind the back of the graph.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dropout_ext import functional as F
from tests.helpers.compare import state

RNG_STATE = (101, 7)


class Saved:
    """Counts the bytes that autograd keeps while it is active."""

    def __init__(self) -> None:
        self.tensors: list[torch.Tensor] = []

    def __enter__(self) -> Saved:
        def pack(tensor: torch.Tensor) -> torch.Tensor:
            self.tensors.append(tensor)
            return tensor

        self.hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.hooks.__exit__(*error)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("inplace", [True, False])
def test_saves_16_bytes(device: torch.device, explicit: bool, inplace: bool) -> None:
    x = torch.ones(1000, device=device, requires_grad=True).clone()
    with Saved() as saved:
        F.dropout(x, 0.5, inplace=inplace, rng_state=state(RNG_STATE, device) if explicit else None)
    assert saved.nbytes == 16
    (kept,) = saved.tensors
    assert kept.dtype == torch.int64
    assert kept.shape == (2,)


def test_saved_state_can_be_packed_and_unpacked(device: torch.device) -> None:
    """Hooks that move the 16 bytes away and back, as offloading does."""
    x = torch.ones(100, device=device, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: tensor.tolist(),
        lambda numbers: torch.tensor(numbers, dtype=torch.int64, device=device),
    ):
        y = F.dropout(x)
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_saves_nothing_without_grad(device: torch.device) -> None:
    x = torch.ones(1000, device=device, requires_grad=True)
    with Saved() as saved:
        with torch.no_grad():
            y = F.dropout(x)
        F.dropout(x.detach())
    assert saved.tensors == []
    assert not y.requires_grad
    assert y.grad_fn is None


def test_changed_rng_state_is_noticed(device: torch.device) -> None:
    rng_tensor = state(RNG_STATE, device)
    x = torch.ones(5, device=device, requires_grad=True)
    y = F.dropout(x, 0.5, rng_state=rng_tensor)
    rng_tensor.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
