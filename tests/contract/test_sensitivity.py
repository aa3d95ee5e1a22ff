"""Could the inputs of the bit-for-bit tests see a mistake at all? Here each mistake is made.

Each mutant is a copy of the reference with one thing wrong. It must differ from the reference on
the inputs that the tests of masks and outputs use (cases.py). A mutant that survives means that
those inputs were weakened. Mistakes in the sources themselves: python -m tests.mutations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers import cases, reference
from tests.helpers.compare import to_bits
from tests.helpers.reference import U64, Mask, lane_bits, threshold, words

MaskFunction = Callable[[U64, float, int, int], Mask]


def halves(seed: int, offset: int, index: U64) -> U64:
    """The 16-bit number of each index."""
    four = words(seed, offset, index >> np.uint64(3))
    lanes = np.stack([lane_bits(four, lane) for lane in range(8)])
    found: U64 = lanes[(index & np.uint64(7)).astype(np.int64), np.arange(len(index))]
    return found


def numbers(seed: int, offset: int, index: U64, second: int = 1) -> U64:
    return (halves(seed, offset, index) << np.uint64(16)) | halves(seed, offset + second, index)


def not_below(number: U64, t: int) -> Mask:
    return number >= np.uint64(t)


def tie_always_kept(index: U64, p: float, seed: int, offset: int) -> Mask:
    return halves(seed, offset, index) >= np.uint64(threshold(p) >> 16)


def tie_always_dropped(index: U64, p: float, seed: int, offset: int) -> Mask:
    return halves(seed, offset, index) > np.uint64(threshold(p) >> 16)


def tie_of_lane_zero(index: U64, p: float, seed: int, offset: int) -> Mask:
    second = halves(seed, offset + 1, index & ~np.uint64(7))
    return not_below((halves(seed, offset, index) << np.uint64(16)) | second, threshold(p))


def tie_without_carry(index: U64, p: float, seed: int, offset: int) -> Mask:
    """offset + 1 in its lower word only."""
    offset %= 2**64
    following = offset - offset % 2**32 + (offset + 1) % 2**32
    number = numbers(seed, offset, index, second=following - offset)
    return not_below(number, threshold(p))


def at_most(index: U64, p: float, seed: int, offset: int) -> Mask:
    """`<=` for `<`."""
    return numbers(seed, offset, index) > np.uint64(threshold(p))


def with_threshold(change: Callable[[float], int]) -> MaskFunction:
    def keep(index: U64, p: float, seed: int, offset: int) -> Mask:
        return not_below(numbers(seed, offset, index), change(p))

    return keep


def with_index(change: Callable[[U64], U64]) -> MaskFunction:
    def keep(index: U64, p: float, seed: int, offset: int) -> Mask:
        return not_below(numbers(seed, offset, change(index)), threshold(p))

    return keep


def with_state(change: Callable[[int, int], tuple[int, int]]) -> MaskFunction:
    def keep(index: U64, p: float, seed: int, offset: int) -> Mask:
        return not_below(numbers(*change(seed % 2**64, offset % 2**64), index), threshold(p))

    return keep


def offset_and_block_swapped(index: U64, p: float, seed: int, offset: int) -> Mask:
    def half(of: int) -> U64:
        found = []
        for i in index.tolist():
            four = words(seed, i >> 3, np.array([of % 2**64], dtype=np.uint64))
            found.append(int(lane_bits(four, i & 7)[0]))
        return np.array(found, dtype=np.uint64)

    return not_below((half(offset) << np.uint64(16)) | half(offset + 1), threshold(p))


def tail_late(index: U64) -> U64:
    """The last, incomplete word takes the decisions of one place further."""
    tail = len(index) - len(index) % 64
    return index + (np.arange(len(index)) >= tail).astype(np.uint64)


MASK_MUTANTS: dict[str, MaskFunction] = {
    "tie kept": tie_always_kept,
    "tie dropped": tie_always_dropped,
    "tie of lane 0": tie_of_lane_zero,
    "tie at offset + 1 without carry": tie_without_carry,
    "<= for <": at_most,
    "p rounded half up": with_threshold(lambda p: int(p * 2**32 + 0.5)),
    "p in float32": with_threshold(lambda p: threshold(float(np.float32(p)))),
    "p in 16 bits": with_threshold(lambda p: round(p * 2**16) << 16),
    "threshold in 32 bits": with_threshold(lambda p: threshold(p) % 2**32),
    "one place late": with_index(lambda i: i + np.uint64(1)),
    "tail one place late": with_index(tail_late),
    "lanes reversed": with_index(lambda i: i ^ np.uint64(7)),
    "words swapped": with_index(lambda i: i ^ np.uint64(2)),
    "index in 32 bits": with_index(lambda i: i & np.uint64(2**32 - 1)),
    "index in 31 bits": with_index(lambda i: i & np.uint64(2**31 - 1)),
    "seed in 32 bits": with_state(lambda s, o: (s % 2**32, o)),
    "seed in 63 bits": with_state(lambda s, o: (s % 2**63, o)),
    "seed words swapped": with_state(lambda s, o: (s >> 32 | s % 2**32 << 32, o)),
    "offset in 32 bits": with_state(lambda s, o: (s, o % 2**32)),
    "offset ignored": with_state(lambda s, o: (s, 0)),
    "offset by elements": with_state(lambda s, o: (s, o // 4)),
    "seed and offset swapped": with_state(lambda s, o: (o, s)),
    "offset and block swapped": offset_and_block_swapped,
}


def mask_inputs() -> list[tuple[U64, float, int, int]]:
    """What test_mask_bitwise.py compares, thinned out."""

    def indices(start: int, count: int) -> U64:
        return np.arange(count, dtype=np.uint64) + np.uint64(start)

    inputs = [(indices(0, 1000), p, 2**63 + 12345, 77) for p in cases.PROBABILITIES]
    inputs += [(indices(0, 100), 0.5, *rng_state) for rng_state in cases.RNG_STATES]
    inputs += [(indices(base, 65), 0.4, 9, 9) for base in cases.BASES]
    inputs += [
        (indices(index, 3), p, *cases.RARE_STATE)
        for p, rare in [(2.0**-33, cases.RARE_ZEROS), (0.75 * 2.0**-32, cases.RARE_ZEROS),
                        (1 - 2.0**-32, cases.RARE_ONES), (1.0, cases.RARE_ONES)]
        for index in rare
    ]  # fmt: skip
    ties = indices(0, 2_000_003)
    tied = halves(40, 2**40 - 1, ties) == np.uint64(threshold(0.25 + 2.0**-17) >> 16)
    return [*inputs, (ties[tied], 0.25 + 2.0**-17, 40, 2**40 - 1)]


@pytest.fixture(scope="module")
def expected_masks() -> list[tuple[tuple[U64, float, int, int], Mask]]:
    return [
        ((index, p, seed, offset), reference.uniform32(seed, offset, index) >= threshold(p))
        for index, p, seed, offset in mask_inputs()
    ]


def test_mutations_start_from_the_contract(
    expected_masks: list[tuple[tuple[U64, float, int, int], Mask]],
) -> None:
    same = with_index(lambda index: index)
    assert all(np.array_equal(same(*given), expected) for given, expected in expected_masks)


@pytest.mark.parametrize("name", MASK_MUTANTS)
@pytest.mark.thorough
def test_mask_mutant_is_seen(
    name: str, expected_masks: list[tuple[tuple[U64, float, int, int], Mask]]
) -> None:
    mutant = MASK_MUTANTS[name]
    with np.errstate(all="ignore"):
        assert any(
            not np.array_equal(mutant(*given), expected) for given, expected in expected_masks
        )


# The outputs: (bits, mask, p, dtype) -> bits.

Bits = NDArray[Any]
FLOATS = {"float64": np.float64, "float32": np.float32, "float16": np.float16}


def scaled_by(factor: Callable[[float], Any]) -> Callable[[Bits, Mask, float, str], Bits]:
    def output(x: Bits, keep: Mask, p: float, dtype: str) -> Bits:
        return np.where(keep, reference.scaled(x, dtype, factor(p)), x.dtype.type(0))

    return output


def truncated(x: Bits, keep: Mask, p: float, dtype: str) -> Bits:
    if dtype != "bfloat16":
        return reference.dropout(x, keep, p, dtype)
    wide = reference.widen_bfloat16(x) * np.float32(reference.scale(p))
    return np.where(keep, wide.view(np.uint32) >> 16, 0).astype(np.uint16)


def flushed(x: Bits, keep: Mask, p: float, dtype: str) -> Bits:
    found = reference.dropout(x, keep, p, dtype)
    exponent = {"float64": 0x7FF << 52, "float32": 0xFF << 23, "bfloat16": 0xFF << 7}.get(
        dtype, 0x1F << 10
    )
    return np.where(found & found.dtype.type(exponent), found, found.dtype.type(0))


def in_double(x: Bits, keep: Mask, p: float, dtype: str) -> Bits:
    """float32 multiplied in double: another rounding of the factor."""
    if dtype != "float32":
        return reference.dropout(x, keep, p, dtype)
    wide = (x.view(np.float32).astype(np.float64) * reference.scale(p)).astype(np.float32)
    return np.where(keep, wide.view(np.uint32), np.uint32(0))


OUTPUT_MUTANTS: dict[str, Any] = {
    "scale from p": scaled_by(lambda p: 1 / (1 - p)),
    "scale in bfloat16": scaled_by(
        lambda p: float(reference.widen_bfloat16(
            reference.round_to_bfloat16(np.array([reference.scale(p)], dtype=np.float32)))[0])
    ),
    "no scale": scaled_by(lambda p: 1.0),
    "bfloat16 truncated": truncated,
    "subnormals flushed": flushed,
    "float32 in double": in_double,
}  # fmt: skip


@pytest.mark.parametrize("name", OUTPUT_MUTANTS)
def test_output_mutant_is_seen(name: str) -> None:
    """With the random bit patterns that test_output_bitwise.py uses, at each of a few p."""
    import torch

    from tests.helpers.compare import random_bits

    seen = False
    with np.errstate(all="ignore"):
        for dtype in cases.DTYPES:
            x = to_bits(random_bits((5003,), getattr(torch, dtype)))
            for p in (0.1, 0.5, 1 / 3):
                keep = reference.mask((5003,), p, 2**40 + 1, 6)
                found = OUTPUT_MUTANTS[name](x, keep, p, dtype)
                seen = seen or not same_but_for_nan(
                    found, reference.dropout(x, keep, p, dtype), dtype
                )
    assert seen


def same_but_for_nan(a: Bits, b: Bits, dtype: str) -> bool:
    def is_nan(bits: Bits) -> Mask:
        if dtype == "bfloat16":
            return np.isnan(reference.widen_bfloat16(bits))
        found: Mask = np.isnan(bits.view(FLOATS[dtype]))
        return found

    return bool(np.all((a == b) | (is_nan(a) & is_nan(b))))
