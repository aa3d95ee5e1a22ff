"""The output of dropout against the reference, bit for bit, on every kernel and dtype.

Catches: the scale taken from p instead of the realised probability, or computed in the narrow type;
a second rounding, a rounding that is not to even, flushed subnormals; dropped values multiplied by
zero instead of replaced (Inf, NaN, -0.0); an element served with its neighbour's decision.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dropout_ext import functional as F
from tests.helpers import cases, reference
from tests.helpers.compare import (
    assert_bits,
    dtype_name,
    expected_dropout,
    from_bits,
    random_bits,
    state,
    to_bits,
)

dropout = torch.ops.dropout_ext.dropout


def check(x: torch.Tensor, p: float, rng_state: tuple[int, int], what: str = "") -> None:
    """Out of place, then in place on a copy; the input is only read."""
    before = to_bits(x).copy()
    expected = expected_dropout(x, p, rng_state)
    rng_tensor = state(rng_state, x.device)
    assert_bits(F.dropout(x, p, rng_state=rng_tensor), expected, what)
    assert np.array_equal(to_bits(x), before), f"{what}: the input was changed"
    assert F.dropout(x, p, inplace=True, rng_state=rng_tensor) is x
    assert_bits(x, expected, f"{what}, in place")


def test_sizes(backend: torch.device, dtype: torch.dtype) -> None:
    for size in cases.SMALL_SIZES:
        check(random_bits((size,), dtype).to(backend), 0.3, (2, 3), f"size {size}")


def test_probabilities(backend: torch.device, dtype: torch.dtype) -> None:
    for p in cases.PROBABILITIES:
        check(random_bits((5003,), dtype).to(backend), p, (2**40 + 1, 6), f"p {p!r}")


@pytest.mark.parametrize("size", cases.THREAD_SIZES)
def test_sizes_for_several_threads(backend: torch.device, dtype: torch.dtype, size: int) -> None:
    check(random_bits((size,), dtype).to(backend), 0.1, (-5, 8))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_every_pattern_of_16_bits(backend: torch.device, name: str, p: float) -> None:
    """Each pattern at a kept and at a dropped place, through vectors and through a tail."""
    patterns = np.arange(2**16, dtype=np.uint16)
    dtype = getattr(torch, name)
    for shift in (0, 1, 4, 7):
        x = from_bits(np.tile(np.roll(patterns, shift), 3)[: 3 * 2**16 - shift], dtype).to(backend)
        check(x, p, (17, shift), f"shift {shift}")


def special_values(dtype: torch.dtype) -> torch.Tensor:
    """Signed zeros, infinities, NaN, the ends of the subnormal and the normal range."""
    finfo = torch.finfo(dtype)
    width = torch.empty((), dtype=dtype).element_size() * 8
    smallest = from_bits(np.array([1, 2, 3], dtype=f"u{width // 8}"), dtype).tolist()
    numbers = [0.0, *smallest, finfo.tiny, finfo.smallest_normal / 2, finfo.tiny * 0.75]
    numbers += [finfo.max, finfo.max / 2, finfo.max * 0.9, 1.0, 1 + finfo.eps, 1 - finfo.eps / 2]
    numbers += [float("inf"), float("nan")]
    return torch.tensor(numbers + [-number for number in numbers], dtype=dtype)


@pytest.mark.parametrize("p", [0.1, 0.5, 1 / 3, 0.75, 0.999999999, 1e-9, 2.0**-17])
def test_special_values(backend: torch.device, dtype: torch.dtype, p: float) -> None:
    values = special_values(dtype)
    x = values.repeat(80)[: 80 * len(values) - 3].to(backend)
    keep = reference.mask(x.shape, p, 23, 4)
    if 0.01 < p < 0.99:  # each value meets both fates
        for k in range(len(values)):
            assert 0 < np.count_nonzero(keep[k :: len(values)]) < len(keep[k :: len(values)])
    check(x, p, (23, 4))


def test_dropped_is_plus_zero(backend: torch.device, dtype: torch.dtype) -> None:
    for value in (float("nan"), float("inf"), -float("inf"), -0.0, -1.0):
        x = torch.full((1001,), value, dtype=dtype, device=backend)
        y = F.dropout(x, 1.0, rng_state=state((0, 0), backend))
        assert not to_bits(y).any()
        y = F.dropout(x, 0.5, rng_state=state((0, 0), backend))
        dropped = ~F.dropout_mask(x.shape, 0.5, rng_state=state((0, 0), backend))
        assert dropped.any()
        assert not to_bits(y[dropped]).any()


@pytest.mark.parametrize("p", [1e-12, 2.0**-33, 5e-324])
def test_threshold_zero_copies_bits(backend: torch.device, dtype: torch.dtype, p: float) -> None:
    """p is positive but its threshold is 0: signalling NaN and all stay as they are."""
    x = random_bits((4099,), dtype).to(backend)
    y = F.dropout(x, p, rng_state=state((0, 0), backend))
    assert y is not x
    assert y.data_ptr() != x.data_ptr()
    assert np.array_equal(to_bits(y), to_bits(x))


def test_scale_comes_from_the_realised_probability(backend: torch.device) -> None:
    """In float64 the two scales differ for every p that is not a multiple of 2^-32."""
    for p in (0.1, 0.3, 1 / 3, 0.7):
        assert reference.scale(p) != 1 / (1 - p)
        x = torch.ones(100, dtype=torch.float64, device=backend)
        y = F.dropout(x, p, rng_state=state((1, 2), backend))
        assert set(y.tolist()) == {0.0, reference.scale(p)}


@pytest.mark.parametrize("rng_state", cases.RNG_STATES)
def test_states(backend: torch.device, rng_state: tuple[int, int]) -> None:
    for dtype in cases.DTYPES:
        x = random_bits((20_003,), getattr(torch, dtype)).to(backend)
        check(x, 0.25 + 2.0**-17, rng_state, dtype)


@pytest.mark.parametrize("base", cases.BASES)
def test_base(backend: torch.device, base: int) -> None:
    for name in cases.DTYPES:
        x = random_bits((1000,), getattr(torch, name)).to(backend)
        found = dropout(x, 0.4, state((9, 9), backend), mask_base=base)
        assert_bits(found, expected_dropout(x, 0.4, (9, 9), base=base), name)


def test_one_mask_for_all_dtypes(backend: torch.device) -> None:
    rng_state = state((77, 1), backend)
    masks = [
        F.dropout(
            torch.ones(10_007, dtype=getattr(torch, name), device=backend), 0.2, rng_state=rng_state
        )
        != 0
        for name in cases.DTYPES
    ]
    assert all(torch.equal(mask, masks[0]) for mask in masks)


@pytest.mark.thorough
def test_sizes_written_past_the_caches(backend: torch.device, dtype: torch.dtype) -> None:
    """From 32 MB on, where stores may bypass the caches, with a tail."""
    size = 2**25 // torch.empty((), dtype=dtype).element_size() + 100
    x = random_bits((size,), dtype, seed=1).to(backend)
    expected = expected_dropout(x, 0.3, (8, 8))
    assert_bits(F.dropout(x, 0.3, rng_state=state((8, 8), backend)), expected)


@pytest.mark.thorough
def test_misaligned_past_the_caches(backend: torch.device) -> None:
    """As large, read from an address at which no vector begins while stores are streamed."""
    x = random_bits((2**23 + 100,), torch.float32, seed=1).to(backend)[1:]
    check(x, 0.3, (8, 8))


@pytest.mark.thorough
def test_mask_written_past_the_caches(backend: torch.device) -> None:
    shape = (2**25 + 77,)
    found = F.dropout_mask(shape, 0.3, rng_state=state((8, 8), backend))
    expected = reference.mask(shape, 0.3, 8, 8)
    assert np.array_equal(found.cpu().numpy(), expected)


@pytest.mark.thorough
def test_two_to_the_25(backend: torch.device) -> None:
    """128 MB: both directions of an allocation that the system maps afresh, in place too."""
    x = random_bits((2**25 + 1,), torch.float32, seed=1).to(backend)
    check(x, 0.1, (8, 8))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(
    cpu_path: torch.device, dtype: torch.dtype, threads: int, set_threads: Callable[[int], None]
) -> None:
    set_threads(threads)
    for size in (1, 1000, 16384, 32768 + 1, 300_007):
        check(random_bits((size,), dtype), 0.3, (6, 7), f"size {size}")
    wide = random_bits((300, 700), dtype)
    rng_tensor = state((6, 7))
    expected = expected_dropout(wide.t(), 0.3, (6, 7))
    assert_bits(F.dropout(wide.t(), 0.3, rng_state=rng_tensor), expected, dtype_name(dtype))


def test_paths_in_turn_give_the_same(cpu_path: torch.device, dtype: torch.dtype) -> None:
    """Switching paths between calls leaves nothing of the last one behind."""
    import dropout_ext

    x = random_bits((9001,), dtype)
    outputs = []
    here = dropout_ext.build_info()["cpu_path"]
    for path in [here, "scalar", here]:
        dropout_ext._C.set_cpu_path(path)
        outputs.append(to_bits(F.dropout(torch.nan_to_num(x), 0.1, rng_state=state((1, 2)))))
    assert all(np.array_equal(output, outputs[0]) for output in outputs)
