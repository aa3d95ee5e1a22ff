"""dropout_mask against the reference, bit for bit, on every kernel.

Catches: a wrong round, key or counter word; `<` for `<=` or the reverse; a threshold truncated
instead of rounded; ties taken from the wrong call, lane or offset; a tail that is one element
short or starts in another place; a block number cut to 32 bits.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dropout_ext import functional as F
from tests.helpers import cases, reference
from tests.helpers.compare import assert_bits, expected_mask, state

dropout_mask = torch.ops.dropout_ext.dropout_mask


def test_sizes_and_probabilities(backend: torch.device) -> None:
    seed = (2**63 + 12345, 77)
    for size in cases.SMALL_SIZES:
        for p in cases.PROBABILITIES:
            found = F.dropout_mask((size,), p, rng_state=state(seed, backend))
            assert_bits(found, expected_mask((size,), p, seed), f"size {size}, p {p!r}")


@pytest.mark.parametrize("p", [0.0, 1e-12, 2.0**-33])
def test_keeps_all(backend: torch.device, p: float) -> None:
    assert F.dropout_mask((1000,), p, rng_state=state((1, 2), backend)).all()


@pytest.mark.parametrize("p", [1.0, 1 - 2.0**-34])
def test_drops_all(backend: torch.device, p: float) -> None:
    assert not F.dropout_mask((1000,), p, rng_state=state((1, 2), backend)).any()


@pytest.mark.parametrize("rng_state", cases.RNG_STATES)
def test_states(backend: torch.device, rng_state: tuple[int, int]) -> None:
    for p in (0.3, 0.5, 0.25 + 2.0**-17):
        found = F.dropout_mask((70_001,), p, rng_state=state(rng_state, backend))
        assert_bits(found, expected_mask((70_001,), p, rng_state), f"p {p!r}")


@pytest.mark.parametrize("size", cases.THREAD_SIZES)
def test_sizes_for_several_threads(backend: torch.device, size: int) -> None:
    found = F.dropout_mask((size,), 0.3, rng_state=state((3, 4), backend))
    assert_bits(found, expected_mask((size,), 0.3, (3, 4)))


@pytest.mark.parametrize("base", cases.BASES)
def test_base(backend: torch.device, base: int) -> None:
    for size in (1, 63, 64, 65, 1000):
        found = dropout_mask([size], 0.4, state((9, 9), backend), mask_base=base)
        assert_bits(found, expected_mask((size,), 0.4, (9, 9), base=base), f"size {size}")


def test_base_reaches_the_last_index(backend: torch.device) -> None:
    for size in (1, 64, 900):
        base = 2**63 - size
        found = dropout_mask([size], 0.4, state((9, 9), backend), mask_base=base)
        assert_bits(found, expected_mask((size,), 0.4, (9, 9), base=base), f"size {size}")


@pytest.mark.parametrize("p", [0.3, 2.0**-17, 0.25 + 2.0**-17, 1 - 2.0**-20, 0.999999999])
def test_ties(backend: torch.device, p: float) -> None:
    """About 30 decisions fall to the second call here; that they do is part of the test."""
    rng_state, size = (40, 2**40 - 1), 2_000_003
    dropped, kept = reference.ties(reference.uniform32_range(*rng_state, 0, size), p)
    assert dropped + kept > 12
    assert dropped > 3
    assert kept > 3 or p > 0.99
    found = F.dropout_mask((size,), p, rng_state=state(rng_state, backend))
    assert_bits(found, expected_mask((size,), p, rng_state))


@pytest.mark.parametrize("back", [0, 1, 5, 64, 200])
def test_smallest_probability_drops_one_element_in_billions(
    backend: torch.device, back: int
) -> None:
    """h and h2 both 0, at each lane of a block: T = 1 drops it, T = 0 does not.

    0.75 * 2^-32 rounds to T = 1; truncated it would drop nothing.
    """
    rng_state = state(cases.RARE_STATE, backend)
    for index in cases.RARE_ZEROS:
        for p, dropped in [(2.0**-32, [back]), (0.75 * 2.0**-32, [back]), (2.0**-33, [])]:
            keep = dropout_mask([back + 100], p, rng_state, mask_base=index - back)
            assert np.flatnonzero(~keep.cpu().numpy()).tolist() == dropped


@pytest.mark.parametrize("back", [0, 1, 5, 64, 200])
def test_largest_probability_keeps_one_element_in_billions(
    backend: torch.device, back: int
) -> None:
    """h and h2 both 0xffff: kept at T = 2^32 - 1, dropped at 2^32."""
    rng_state = state(cases.RARE_STATE, backend)
    for index in cases.RARE_ONES:
        for p, kept in [(1 - 2.0**-32, [back]), (1.0, [])]:
            keep = dropout_mask([back + 100], p, rng_state, mask_base=index - back)
            assert np.flatnonzero(keep.cpu().numpy()).tolist() == kept


def test_many_dimensions_are_one_row(backend: torch.device) -> None:
    found = F.dropout_mask((3, 5, 1, 7, 11), 0.5, rng_state=state((1, 1), backend))
    assert found.shape == (3, 5, 1, 7, 11)
    assert found.is_contiguous()
    assert_bits(found, expected_mask((3, 5, 1, 7, 11), 0.5, (1, 1)))


def test_shape_may_be_a_list_or_a_size_or_empty(device: torch.device) -> None:
    rng_state = state((1, 1), device)
    expected = F.dropout_mask((2, 3), 0.5, rng_state=rng_state)
    assert torch.equal(F.dropout_mask([2, 3], 0.5, rng_state=rng_state), expected)
    assert torch.equal(F.dropout_mask(torch.Size([2, 3]), 0.5, rng_state=rng_state), expected)
    assert torch.equal(F.dropout_mask((), 0.5, rng_state=rng_state), expected[0, 0])


def test_result_type_and_device(device: torch.device) -> None:
    mask = F.dropout_mask((4,), 0.5, rng_state=state((1, 1), device))
    assert mask.dtype == torch.bool
    assert mask.device.type == device.type
    assert not mask.requires_grad


def test_is_the_mask_of_dropout(backend: torch.device, dtype: torch.dtype) -> None:
    rng_state = state((5, 6), backend)
    x = torch.ones(3, 701, dtype=dtype, device=backend)
    y = F.dropout(x, 0.4, rng_state=rng_state)
    assert torch.equal(F.dropout_mask(x.shape, 0.4, rng_state=rng_state), y != 0)
