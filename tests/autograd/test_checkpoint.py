"""Activation checkpointing: the mask of the second forward is that of the first.

Catches: a recomputation that draws on; an explicit state that is not the only source of the mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import _CheckpointFrame, checkpoint, checkpoint_sequential

import dropout_ext
from dropout_ext import functional as F
from dropout_ext.integration.checkpoint import repeatable
from dropout_ext.integration.torch_private import checkpoint_hook
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


def with_own(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    y = F.dropout(x.sin(), 0.5, generator=generator).exp()
    y = F.alpha_dropout(F.dropout1d(y, 0.4, generator=generator), 0.2, generator=generator)
    heads = y.view(2, 10, 10, 30)
    attention = F.scaled_dot_product_attention(heads, heads, heads, None, 0.3, generator=generator)
    return F.dropout(attention.reshape(y.shape), 0.3, inplace=True, generator=generator) * 2


def nested_own(x: torch.Tensor, generator: torch.Generator, reentrant: bool) -> torch.Tensor:
    y: torch.Tensor = checkpoint(with_own, x.cos(), generator, use_reentrant=reentrant)
    return F.dropout(y, 0.4, generator=generator)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("preserve", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_generator_of_ones_own(
    device: torch.device, use_reentrant: bool, preserve: bool, nested: bool
) -> None:
    """checkpoint restores default generators alone; the states of others are kept and replayed.

    The draws go on afterwards as if nothing had been computed again.
    """
    generator = torch.Generator(device)

    def plain(x: torch.Tensor) -> torch.Tensor:
        generator.manual_seed(5)
        y = with_own(x.cos(), generator) if nested else with_own(x, generator)
        return F.dropout(y, 0.4, generator=generator)

    def again(x: torch.Tensor) -> torch.Tensor:
        generator.manual_seed(5)
        options = {"use_reentrant": use_reentrant, "preserve_rng_state": preserve}
        if nested:
            y: torch.Tensor = checkpoint(nested_own, x, generator, use_reentrant, **options)
            return y
        return F.dropout(checkpoint(with_own, x, generator, **options), 0.4, generator=generator)

    expected, after = run(plain, device), generator.get_state()
    assert_equal(expected, run(again, device))
    assert torch.equal(generator.get_state(), after)


def test_generator_and_two_backward_passes(device: torch.device) -> None:
    """Each recomputation replays from the first state on."""
    generator = torch.Generator(device)
    x = torch.randn(200, 30, device=device, requires_grad=True)
    y = checkpoint(with_own, x, generator, use_reentrant=False).sum()
    (first,) = torch.autograd.grad(y, x, retain_graph=True)
    (second,) = torch.autograd.grad(y, x)
    assert torch.equal(first, second)


def test_forward_that_fails_leaves_nothing_behind(device: torch.device) -> None:
    """Draws after it are recorded, and replayed, by no one."""
    generator = torch.Generator(device)

    def fails(x: torch.Tensor) -> torch.Tensor:
        F.dropout(x, generator=generator)
        raise KeyError

    x = torch.ones(30, device=device, requires_grad=True)
    for use_reentrant in (False, True):
        with pytest.raises(KeyError):
            checkpoint(fails, x, use_reentrant=use_reentrant)
        assert repeatable(generator, lambda: pytest.fail("drawn")) is None


def test_recomputation_that_draws_more_is_an_error(device: torch.device) -> None:
    generator, times = torch.Generator(device), iter((1, 2))

    def uneven(x: torch.Tensor) -> torch.Tensor:
        for _ in range(next(times)):
            x = F.dropout(x, generator=generator)
        return x

    x = torch.ones(30, device=device, requires_grad=True)
    y = checkpoint(uneven, x, use_reentrant=True)
    with pytest.raises(RuntimeError, match="more often than its forward pass, which did 1 times"):
        y.sum().backward()


class Reversible(torch.autograd.Function):
    """Runs its forward pass again by itself."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.generator = generator
        return F.dropout(x, generator=generator)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            y = F.dropout(leaf, generator=ctx.generator)
        return torch.autograd.grad(y, leaf, grad)[0], None


def test_recomputation_by_a_function_is_warned_of(device: torch.device) -> None:
    x = torch.ones(300, device=device, requires_grad=True)
    y = Reversible.apply(x, torch.Generator(device))
    with pytest.warns(UserWarning, match="does not restore a generator"):
        y.sum().backward()


def test_checkpoint_by_another_way_is_warned_of(device: torch.device) -> None:
    """One that does not come by torch.utils.checkpoint: its recomputation draws other masks."""
    x = torch.ones(300, device=device, requires_grad=True)
    generator = torch.Generator(device)
    F.dropout(x, generator=generator)
    frame = _CheckpointFrame(lambda *_: None, True, None, None)
    default = torch.default_generator if device.type == "cpu" else torch.cuda.default_generators[0]
    calls = (
        lambda t: F.dropout(t, generator=generator),
        lambda t: F.dropout1d(t[None, None], generator=generator),
        dropout_ext.Dropout(generator=generator),
        lambda t: F.scaled_dot_product_attention(
            *[t.view(1, 50, 6)] * 3, dropout_p=0.5, generator=generator
        ),
    )
    with checkpoint_hook(frame):
        F.dropout(x, generator=default)
        for call in calls:
            with pytest.warns(UserWarning, match="does not restore a generator") as caught:
                call(x)
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
