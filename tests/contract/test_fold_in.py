"""draw_rng_state and fold_in: states for researchers.

Catches: a state that is not the one a call would draw, or is drawn twice; a folded state that
another device, dtype of the number or compiler computes differently; masks of folded states that
are correlated with each other or with those of the state they come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import scipy.stats
import torch
import torch._dynamo
from torch import Tensor
from torch._dynamo.utils import counters

import dropout_ext
from dropout_ext import draw_rng_state, fold_in
from dropout_ext import functional as F
from tests.helpers import reference
from tests.helpers.compare import state

# draw_rng_state.


def test_draw_is_that_of_a_call(device: torch.device) -> None:
    x = torch.ones(500, device=device)
    torch.manual_seed(3)
    expected, after = F.dropout(x), torch.rand(2, device=device)
    torch.manual_seed(3)
    drawn = draw_rng_state(device=device)
    assert drawn.shape == (2,) and drawn.dtype == torch.int64 and drawn.device == x.device
    assert torch.equal(torch.rand(2, device=device), after), "drawn once"
    for _ in range(2):
        assert torch.equal(F.dropout(x, rng_state=drawn), expected)


def test_draw_from_a_generator(device: torch.device) -> None:
    ours, theirs = (torch.Generator(device).manual_seed(5) for _ in range(2))
    before, x = torch.get_rng_state(), torch.ones(500, device=device)
    for _ in range(3):
        drawn = draw_rng_state(ours, device=device)
        assert torch.equal(F.dropout(x, rng_state=drawn), F.dropout(x, generator=theirs))
    assert torch.equal(torch.get_rng_state(), before)


def test_draw_in_compiled_code() -> None:
    """In order with the draws of calls, as in eager code."""

    def function(x: Tensor) -> tuple[Tensor, ...]:
        first = F.dropout(x)
        drawn = draw_rng_state()
        return first, F.dropout(x, rng_state=drawn), F.dropout(x, rng_state=drawn), F.dropout(x)

    x, found = torch.ones(100), []
    for run in (function, torch.compile(function, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(3)
        found.append(torch.stack(run(x)))
    torch._dynamo.reset()
    assert torch.equal(*found)
    assert torch.equal(found[0][1], found[0][2]) and not torch.equal(found[0][0], found[0][1])


def test_draw_under_vmap() -> None:
    """A state for each sample, the one that a loop would draw."""
    batch = torch.ones(3, 100)

    def sample(t: Tensor) -> Tensor:
        return F.dropout(t, rng_state=draw_rng_state())

    torch.manual_seed(3)
    found = torch.func.vmap(sample, randomness="different")(batch)
    torch.manual_seed(3)
    assert torch.equal(found, torch.stack([sample(t) for t in batch]))


def test_draw_errors() -> None:
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, but got 5"):
        draw_rng_state(5)  # type: ignore[arg-type]


# fold_in.

STATES = [(0, 0), (7, 0), (-1, 2**32 - 1), (2**63 - 1, -1), (2**40 + 5, 2**33)]
NUMBERS = [0, 1, 2, -1, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)]


@pytest.mark.parametrize("parent", STATES)
def test_known_answers(device: torch.device, parent: tuple[int, int]) -> None:
    for number in NUMBERS:
        expected = state(reference.fold_in(*parent, number), device)
        assert torch.equal(fold_in(state(parent, device), number), expected)
        signed = number - 2**64 if number >= 2**63 else number
        tensor = torch.tensor(signed, device=device)
        assert torch.equal(fold_in(state(parent, device), tensor), expected)


def test_written_down() -> None:
    """Of seed 7, offset 0 and number 3: no version may give another."""
    folded = fold_in(dropout_ext.rng_state(7), 3)
    assert folded.tolist() == [-5504193695490229109, 5582881985981066014]


def test_nothing_is_drawn_and_the_state_stays() -> None:
    before, parent = torch.get_rng_state(), dropout_ext.rng_state(7)
    fold_in(parent, 3)
    assert torch.equal(torch.get_rng_state(), before) and parent.tolist() == [7, 0]


def test_strided_states_and_batches(device: torch.device) -> None:
    """The operator takes a batch, as vmap gives it, in any strides."""
    states = torch.arange(24, device=device).view(2, 3, 4).permute(2, 1, 0)
    numbers = torch.arange(12, device=device).view(3, 4).t()
    found = torch.ops.dropout_ext.fold_in(states, numbers)
    for row in range(4):
        for column in range(3):
            expected = fold_in(states[row, column], numbers[row, column])
            assert torch.equal(found[row, column], expected)


@pytest.mark.parametrize("in_dims", [(0, None), (None, 0), (0, 0), (1, 0)])
def test_vmap_is_a_loop(in_dims: tuple[Any, Any]) -> None:
    states = torch.tensor([[1, 2], [3, 4], [5, 6]])
    one = states if in_dims[0] == 0 else states.t() if in_dims[0] == 1 else states[0]
    number = torch.tensor(5) if in_dims[1] is None else torch.arange(3)
    found = torch.func.vmap(fold_in, in_dims)(one, number)
    rows = (states if in_dims[0] is not None else states[:1].expand(3, 2)).unbind()
    expected = [fold_in(s, n) for s, n in zip(rows, number.expand(3), strict=True)]
    assert torch.equal(found, torch.stack(expected))


@pytest.mark.parametrize("tensor", [False, True])
def test_compiled_once_for_all_numbers(tensor: bool) -> None:
    """A step counter compiles no graph for each step."""
    torch._dynamo.reset()
    counters.clear()
    function = torch.compile(fold_in, backend="aot_eager", fullgraph=True)
    parent = dropout_ext.rng_state(7)
    for step in (0, 1, 2, 3, 4, -1, 2**40):
        number = torch.tensor(step) if tensor else step
        assert torch.equal(function(parent, number), fold_in(parent, step))
    assert counters["stats"]["unique_graphs"] <= (1 if tensor else 2)
    torch._dynamo.reset()


def test_exported() -> None:
    class Model(torch.nn.Module):
        def forward(self, parent: Tensor, x: Tensor) -> Tensor:
            return F.dropout(x, rng_state=fold_in(parent, 3))

    arguments = dropout_ext.rng_state(7), torch.ones(50)
    program = torch.export.export(Model(), arguments)
    assert torch.equal(program.module()(*arguments), Model()(*arguments))


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "beyond 64 bits": (
        lambda: fold_in(dropout_ext.rng_state(1), 2**64),
        ValueError,
        "fold_in: number must be an integer of 64 bits, but got 18446744073709551616",
    ),
    "no integer": (lambda: fold_in(dropout_ext.rng_state(1), 1.5), TypeError, "float"),  # type: ignore[arg-type]
    "no state": (
        lambda: fold_in(7, 1),  # type: ignore[arg-type]
        TypeError,
        "fold_in: state must be a Tensor, but got 7",
    ),
    "a batch": (
        lambda: fold_in(torch.ones(3, 2, dtype=torch.int64), 1),
        ValueError,
        r"fold_in: state must have shape \[2\] \(seed, offset\), but got shape \[3, 2\]",
    ),
    "another shape": (
        lambda: fold_in(torch.ones(3, dtype=torch.int64), 1),
        ValueError,
        r"fold_in: rng_state must have shape \[2\]",
    ),
    "a number with dimensions": (
        lambda: fold_in(dropout_ext.rng_state(1), torch.ones(2, dtype=torch.int64)),
        ValueError,
        r"and number shape \[\].*but got \[2\] and \[2\]",
    ),
    "floating point": (
        lambda: fold_in(dropout_ext.rng_state(1), torch.ones(())),
        TypeError,
        "rng_state and number must be int64, but got Long and Float",
    ),
    "another device": (
        lambda: fold_in(dropout_ext.rng_state(1), torch.ones((), device="meta").long()),
        RuntimeError,
        "number must be on the device of rng_state, cpu, but got meta",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    call, error, words = ERRORS[name]
    with pytest.raises(error, match=words):
        call()


# Statistics. A mask of n decisions agrees with an independent one in n (p^2 + (1 - p)^2) places.

LIMIT = 5.0  # deviations: false-alarm rate 6e-7 for each comparison


def agreement(a: Tensor, b: Tensor, p: float) -> float:
    expected = p * p + (1 - p) * (1 - p)
    same = int((a == b).count_nonzero())
    return (same - a.numel() * expected) / math.sqrt(a.numel() * expected * (1 - expected))


def test_different_numbers_give_different_states() -> None:
    """A call is a bijection of its counter, so there is no collision at all; here 2^17 of them, of
    two parents, also by the seed alone, of which 2^-31 are expected to meet by chance."""
    count = 2**16
    numbers = torch.arange(count)
    parents = [dropout_ext.rng_state(7), dropout_ext.rng_state(7, 2)]
    folded = torch.cat(
        [torch.ops.dropout_ext.fold_in(p.expand(count, 2), numbers) for p in parents]
    )
    assert len(folded[:, 0].unique()) == 2 * count
    assert len(folded[:, 1].unique()) == 2 * count


@pytest.mark.thorough
@pytest.mark.parametrize("parent", [(7, 0), (-1, 12)])
def test_masks_are_independent(parent: tuple[int, int]) -> None:
    """Of 32 numbers and of the parent itself, all 528 pairs, n = 2^16 decisions each: one pair that
    agrees in 2 % more places is z = 5.1 and more, a repeated mask in the hundreds."""
    n, p = 2**16, 0.4
    states = [state(parent), *(fold_in(state(parent), number) for number in range(32))]
    masks = [F.dropout_mask((n,), p, rng_state=one) for one in states]
    for k, a in enumerate(masks):
        for b in masks[:k]:
            assert abs(agreement(a, b, p)) < LIMIT
    other = F.dropout_mask((n,), p, rng_state=fold_in(state((parent[0], parent[1] + 1)), 0))
    assert abs(agreement(masks[1], other, p)) < LIMIT


@pytest.mark.thorough
def test_bits_are_fair() -> None:
    """Each of the 128 bits of 2^16 folded states, and each bit against each: all 8,256 binomial
    counts within 6 deviations (false-alarm rate 2e-5 together); the sum of their squares as
    chi-squared for the 128 alone."""
    count = 2**16
    folded = torch.ops.dropout_ext.fold_in(state((7, 0)).expand(count, 2), torch.arange(count))
    bits = (folded[:, :, None] >> torch.arange(64)).bitwise_and(1).reshape(count, 128)
    signs = (2 * bits - 1).double()
    z = signs.sum(0) / math.sqrt(count)
    assert 1e-6 < scipy.stats.chi2.sf(float((z * z).sum()), 128) < 1 - 1e-6
    correlation = (signs.t() @ signs / math.sqrt(count)).fill_diagonal_(0)
    assert correlation.abs().max() < 6


@pytest.mark.thorough
def test_one_index_over_all_numbers() -> None:
    """2^13 numbers by 512 elements: the keep rates of columns and of rows are binomial
    (chi-squared, false-alarm rate 1e-6 each)."""
    count, n, p = 2**13, 512, 0.3
    states = torch.ops.dropout_ext.fold_in(state((7, 0)).expand(count, 2), torch.arange(count))
    rows = torch.ops.dropout_ext.dropout_mask([count, n], p, states)
    for counts, trials in ((rows.sum(0), count), (rows.sum(1), n)):
        squares = (counts.double() - trials * (1 - p)).square().sum() / (trials * p * (1 - p))
        assert 1e-6 < scipy.stats.chi2.sf(float(squares), len(counts)) < 1 - 1e-6
