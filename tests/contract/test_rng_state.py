"""rng_state: the 16 bytes a mask is drawn from, made by hand or drawn from a generator.

Catches: seeds of 2^63 and above refused or changed; more or fewer draws than one per call, which
would shift every later random number of a program; a call that draws although it fails, or does
not draw because the tensor is empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import dropout_ext
from dropout_ext import functional as F
from tests.helpers.compare import state

draw = torch.ops.dropout_ext.draw


def next_draws(generator: torch.Generator, count: int) -> list[int]:
    """The next 64-bit numbers of a CPU generator, as torch itself draws them."""
    out = torch.empty(count, dtype=torch.int64)
    return out.random_(-(2**63), None, generator=generator).tolist()


# By hand.


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)])
def test_seed_of_64_bits_signed_or_not(device: torch.device, seed: int) -> None:
    made = dropout_ext.rng_state(seed, 3, device=device)
    assert made.dtype == torch.int64
    assert made.shape == (2,)
    assert made.device.type == device.type
    assert torch.equal(made.cpu(), state((seed, 3)))


def test_offset_defaults_to_zero() -> None:
    assert dropout_ext.rng_state(5).tolist() == [5, 0]
    assert dropout_ext.rng_state(5, 2**63 - 1).tolist() == [5, 2**63 - 1]


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_seed_beyond_64_bits(seed: int) -> None:
    with pytest.raises(ValueError, match="seed must be an integer of 64 bits, but got"):
        dropout_ext.rng_state(seed)


def test_used_as_it_is_and_left_alone(device: torch.device) -> None:
    rng_state = dropout_ext.rng_state(11, 12, device=device)
    x = torch.ones(999, device=device)
    default = torch.get_rng_state()
    y = F.dropout(x, 0.5, rng_state=rng_state)
    assert torch.equal(F.dropout(x, 0.5, rng_state=rng_state), y)
    assert rng_state.tolist() == [11, 12]
    assert torch.equal(torch.get_rng_state(), default)


def test_strided_rng_state(device: torch.device) -> None:
    """A row of a table of states: its two numbers need not be neighbours."""
    table = torch.tensor([[1, 5, 99], [4, 6, 99]], dtype=torch.int64, device=device)
    x = torch.ones(999, device=device)
    expected = F.dropout(x, 0.5, rng_state=state((5, 6), device))
    assert torch.equal(F.dropout(x, 0.5, rng_state=table[:, 1]), expected)
    mask = F.dropout_mask((999,), 0.5, rng_state=table[:, 1])
    assert torch.equal(mask, expected != 0)


def test_mask_goes_to_the_device_asked_for(device: torch.device) -> None:
    rng_state = state((5, 6))
    mask = F.dropout_mask((99,), 0.5, rng_state=rng_state, device=device)
    assert mask.device.type == device.type
    assert torch.equal(mask.cpu(), F.dropout_mask((99,), 0.5, rng_state=rng_state))


# Drawn (CPU).


def test_draw_is_one_number_of_the_generator() -> None:
    x, generator = torch.ones(3), torch.Generator().manual_seed(5)
    expected = next_draws(torch.Generator().manual_seed(5), 3)
    found = [draw(x, generator=generator).tolist() for _ in range(3)]
    assert found == [[seed, 0] for seed in expected]


def test_draw_without_generator_uses_the_default_one() -> None:
    torch.manual_seed(5)
    (expected,) = next_draws(torch.default_generator, 1)
    torch.manual_seed(5)
    assert draw(torch.ones(3)).tolist() == [expected, 0]


def test_draw_is_not_differentiated() -> None:
    assert not draw(torch.ones(3, requires_grad=True)).requires_grad


Call = Callable[[torch.Generator], Any]
ONE_DRAW: dict[str, Call] = {
    "plain": lambda g: F.dropout(torch.ones(5), 0.5, generator=g),
    "large": lambda g: F.dropout(torch.ones(300_000), 0.5, generator=g),
    "in place": lambda g: F.dropout(torch.ones(5), 0.5, inplace=True, generator=g),
    "with grad": lambda g: F.dropout(torch.ones(5, requires_grad=True), 0.5, generator=g),
    "no elements": lambda g: F.dropout(torch.ones(0), 0.5, generator=g),
    "no elements, in place": lambda g: F.dropout(torch.ones(0), inplace=True, generator=g),
    "p = 1": lambda g: F.dropout(torch.ones(5), 1.0, generator=g),
    "p = 1, in place": lambda g: F.dropout(torch.ones(5), 1.0, inplace=True, generator=g),
    "p = 1e-12": lambda g: F.dropout(torch.ones(5), 1e-12, generator=g),
    "strided": lambda g: F.dropout(torch.ones(5, 6).t(), 0.5, generator=g),
    "bfloat16": lambda g: F.dropout(torch.ones(5, dtype=torch.bfloat16), 0.5, generator=g),
    "module": lambda g: dropout_ext.Dropout(0.5, generator=g)(torch.ones(5)),
}
NO_DRAW: dict[str, Call] = {
    "p = 0": lambda g: F.dropout(torch.ones(5), 0.0, generator=g),
    "p = 0, in place": lambda g: F.dropout(torch.ones(5), 0.0, inplace=True, generator=g),
    "eval": lambda g: F.dropout(torch.ones(5), 0.5, training=False, generator=g),
    "module in eval": lambda g: dropout_ext.Dropout(0.5, generator=g).eval()(torch.ones(5)),
}


@pytest.mark.parametrize("name", ONE_DRAW)
def test_one_draw_per_call(name: str) -> None:
    found, expected = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    ONE_DRAW[name](found)
    next_draws(expected, 1)
    assert torch.equal(found.get_state(), expected.get_state())


@pytest.mark.parametrize("name", NO_DRAW)
def test_no_draw(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    NO_DRAW[name](generator)
    assert torch.equal(generator.get_state(), before)


FAILS: dict[str, Call] = {
    "p": lambda g: F.dropout(torch.ones(5), 1.5, generator=g),
    "dtype": lambda g: F.dropout(torch.ones(5, dtype=torch.int32), 0.5, generator=g),
    "leaf": lambda g: F.dropout(torch.ones(5, requires_grad=True), 0.5, inplace=True, generator=g),
    "overlap": lambda g: F.dropout(torch.ones(1).expand(5), 0.5, inplace=True, generator=g),
}


@pytest.mark.parametrize("name", FAILS)
def test_failure_draws_nothing(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        FAILS[name](generator)
    assert torch.equal(generator.get_state(), before)


def test_the_seed_of_a_call_is_the_number_drawn() -> None:
    x = torch.ones(500)
    (seed,) = next_draws(torch.Generator().manual_seed(3), 1)
    y = F.dropout(x, 0.5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(y, F.dropout(x, 0.5, rng_state=state((seed, 0))))


def test_manual_seed_repeats_and_calls_differ(device: torch.device) -> None:
    x = torch.ones(500, device=device)
    torch.manual_seed(1)
    first, second = F.dropout(x), F.dropout(x)
    torch.manual_seed(1)
    assert torch.equal(F.dropout(x), first)
    assert torch.equal(F.dropout(x), second)
    assert not torch.equal(first, second)


def test_generator_leaves_the_default_one_alone() -> None:
    before = torch.get_rng_state()
    F.dropout(torch.ones(5), generator=torch.Generator())
    assert torch.equal(torch.get_rng_state(), before)
