"""Activation checkpointing: the mask of the second forward is that of the first.

Catches: a recomputation that draws on; an explicit state that is not the only source of the mask.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import dropout_ext
from dropout_ext import functional as F
from tests.helpers.compare import state

Block = Callable[[torch.Tensor], torch.Tensor]


def run(function: Block, device: torch.device) -> list[torch.Tensor]:
    torch.manual_seed(9)
    x = torch.randn(200, 30, generator=torch.Generator().manual_seed(1)).to(device)
    x.requires_grad_()
    y = function(x)
    y.sum().backward()
    assert x.grad is not None
    return [y, x.grad, torch.rand(3)]


def assert_equal(plain: list[torch.Tensor], found: list[torch.Tensor]) -> None:
    for one, other in zip(plain, found, strict=True):
        assert torch.equal(one, other)


def drawn(x: torch.Tensor) -> torch.Tensor:
    return F.dropout(F.dropout(x.sin(), 0.5).exp() + 1, 0.3, inplace=True) * 2


def explicit(x: torch.Tensor) -> torch.Tensor:
    return F.dropout(x.sin(), 0.5, rng_state=state((3, 4), x.device)).exp()


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_preserved_generator(device: torch.device, use_reentrant: bool) -> None:
    plain = run(drawn, device)
    again = run(lambda x: checkpoint(drawn, x, use_reentrant=use_reentrant), device)
    assert_equal(plain, again)


def test_generator_is_warned_of(device: torch.device) -> None:
    """checkpoint restores default generators alone; the gradients would silently be wrong."""
    x = torch.ones(300, device=device, requires_grad=True)
    generator = torch.Generator(device)
    F.dropout(x, generator=generator)
    default = torch.default_generator if device.type == "cpu" else torch.cuda.default_generators[0]
    checkpoint(lambda t: F.dropout(t, generator=default), x, use_reentrant=False)
    calls = (
        lambda t: F.dropout(t, generator=generator),
        lambda t: F.dropout1d(t[None, None], generator=generator),
        dropout_ext.Dropout(generator=generator),
        lambda t: F.scaled_dot_product_attention(
            *[t.view(1, 50, 6)] * 3, dropout_p=0.5, generator=generator
        ),
    )
    for call in calls:
        with pytest.warns(UserWarning, match="checkpoint does not restore a generator") as caught:
            checkpoint(lambda t, call=call: call(t), x, use_reentrant=False)
        assert [w.filename for w in caught] == [__file__]  # where the user called


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_explicit_state_needs_no_generator(device: torch.device, use_reentrant: bool) -> None:
    def again(x: torch.Tensor) -> torch.Tensor:
        return checkpoint(explicit, x, use_reentrant=use_reentrant, preserve_rng_state=False)

    assert_equal(run(explicit, device), run(again, device))


def test_nested(device: torch.device) -> None:
    def inner(x: torch.Tensor) -> torch.Tensor:
        return checkpoint(drawn, x.cos(), use_reentrant=False)

    def outer(x: torch.Tensor) -> torch.Tensor:
        return checkpoint(lambda t: F.dropout(inner(t), 0.4), x, use_reentrant=False)

    assert_equal(run(lambda x: F.dropout(drawn(x.cos()), 0.4), device), run(outer, device))


def test_sequential(device: torch.device) -> None:
    layers = torch.nn.Sequential(*(dropout_ext.Dropout(0.2) for _ in range(4)))

    def again(x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = checkpoint_sequential(layers, 2, x, use_reentrant=False)
        return found

    assert_equal(run(layers, device), run(again, device))


def test_selective(device: torch.device) -> None:
    """With a policy that saves the output of dropout, and one that saves nothing of it."""
    from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

    plain = run(explicit, device)
    for policy in (CheckpointPolicy.MUST_SAVE, CheckpointPolicy.PREFER_RECOMPUTE):

        def again(x: torch.Tensor, policy: CheckpointPolicy = policy) -> torch.Tensor:
            return checkpoint(
                explicit,
                x,
                use_reentrant=False,
                context_fn=lambda: create_selective_checkpoint_contexts(lambda *a, **k: policy),
            )

        assert_equal(plain, run(again, device))
