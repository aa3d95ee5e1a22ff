"""The reference itself: known answers, and its vectorised lines against ones spelled out.

Catches a reference that is wrong in the same way as the kernels, which every other test would miss.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.helpers import cases, reference
from tests.helpers.compare import from_bits, to_bits

# Published with Random123: tests/kat_vectors, lines "philox4x32 10".
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], answer: tuple[int, ...]
) -> None:
    found = reference.philox4x32_10([np.array([c], dtype=np.uint64) for c in counter], key)
    assert tuple(int(word[0]) for word in found) == answer


def test_counter_holds_offset_below_and_block_above() -> None:
    (counter, key, answer) = KNOWN_ANSWERS[2]
    seed = key[0] | key[1] << 32
    offset = counter[0] | counter[1] << 32
    block = np.array([counter[2] | counter[3] << 32], dtype=np.uint64)
    assert tuple(int(word[0]) for word in reference.words(seed, offset, block)) == answer


def keep_spelled_out(index: int, p: float, seed: int, offset: int) -> bool:
    """One element, word for word as the contract says it, with the shortcut for ties."""
    block, lane = index >> 3, index & 7

    def h(of_offset: int) -> int:
        words = reference.words(seed, of_offset, np.array([block], dtype=np.uint64))
        return int(words[lane >> 1][0]) >> (16 * (lane & 1)) & 0xFFFF

    t = reference.threshold(p)
    t_hi, t_lo = t >> 16, t & 0xFFFF
    first = h(offset)
    return not (first < t_hi or (first == t_hi and h(offset + 1) < t_lo))


@pytest.mark.parametrize("p", cases.PROBABILITIES)
def test_mask_spelled_out(p: float) -> None:
    for seed, offset in cases.RNG_STATES[3:7]:
        keep = reference.mask((40,), p, seed, offset, base=3)
        assert keep.tolist() == [keep_spelled_out(i + 3, p, seed, offset) for i in range(40)]


@pytest.mark.parametrize("index", [*cases.RARE_ZEROS, *cases.RARE_ONES])
def test_rare_indices_are_what_they_claim(index: int) -> None:
    number = reference.uniform32(*cases.RARE_STATE, np.array([index], dtype=np.uint64))
    assert int(number[0]) == (0 if index in cases.RARE_ZEROS else 2**32 - 1)


def test_rare_indices_cover_every_lane() -> None:
    assert sorted(index % 8 for index in cases.RARE_ZEROS) == list(range(8))
    assert sorted(index % 8 for index in cases.RARE_ONES) == list(range(8))


def test_range_is_the_general_case() -> None:
    for start, count in [(0, 0), (0, 1), (5, 1000), (2**35 - 77, 200), (2**63 - 9, 9)]:
        index = np.arange(count, dtype=np.uint64) + np.uint64(start)
        general = reference.uniform32(11, 2**32 - 1, index)
        assert np.array_equal(general, reference.uniform32_range(11, 2**32 - 1, start, count))


@pytest.mark.parametrize(
    ("p", "t"),
    [
        (0.0, 0),
        (0.5, 2**31),
        (1.0, 2**32),
        (0.1, 429496730),
        (2.0**-33, 0),
        (3 * 2.0**-33, 2),
        (5 * 2.0**-33, 2),
        (1 - 2.0**-33, 2**32),
        (1 - 2.0**-32, 2**32 - 1),
        (5e-324, 0),
    ],
)
def test_threshold(p: float, t: int) -> None:
    assert reference.threshold(p) == t


def test_index_maps() -> None:
    assert reference.row_major((2, 3, 4)) == [12, 4, 1]
    assert reference.broadcast_strides((2, 3, 4), (1,)) == [4, 0, 1]
    assert reference.broadcast_strides((2, 3, 4), (-1, 0)) == [0, 1, 0]
    assert reference.shard_map((10, 6), (4, 2)) == ([6, 1], 26)
    assert reference.shard_map((10, 6), (4, 2), (0,)) == ([0, 1], 2)
    whole = reference.index_map((10, 6), [6, 1])
    assert np.array_equal(whole, np.arange(60, dtype=np.uint64).reshape(10, 6))
    assert np.array_equal(whole[4:7, 2:5], reference.index_map((3, 3), [6, 1], 26))


def nearest_even(exact: Fraction, candidates: list[tuple[Fraction, int]]) -> int:
    """The bits of the nearest candidate; of two equally near ones, those with a 0 at the end."""
    return min(candidates, key=lambda c: (abs(c[0] - exact), c[1] & 1))[1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrowing_is_to_nearest_even(dtype: str) -> None:
    """Against exact rational arithmetic over all finite values of the narrow type near x."""
    kind = getattr(torch, dtype)
    largest = int(to_bits(torch.tensor(torch.finfo(kind).max, dtype=kind)))
    values = [
        Fraction(v) for v in from_bits(np.arange(largest + 1, dtype=np.uint16), kind).tolist()
    ]
    rng = np.random.default_rng(3)
    picks = [0, 1, 2, 5, 900, largest - 2, *rng.integers(0, largest - 1, 300).tolist()]
    for low in picks:
        for quarter in (0.0, 0.25, 0.5, 0.75, 1.0):
            exact = values[low] + (values[low + 1] - values[low]) * Fraction(quarter)
            x = np.array([float(exact)], dtype=np.float32)
            assert Fraction(float(x[0])) == exact
            ours = (
                reference.round_to_bfloat16(x)
                if dtype == "bfloat16"
                else x.astype(np.float16).view(np.uint16)
            )
            near = [(values[low], low), (values[low + 1], low + 1)]
            assert int(ours[0]) == nearest_even(exact, near)


def test_bfloat16_overflows_to_infinity_and_keeps_signs() -> None:
    x = np.array([3.4e38, -3.4e38, 3.39e38, -0.0, np.nan, np.inf], dtype=np.float32)
    found = reference.round_to_bfloat16(x)
    assert found.tolist() == [0x7F80, 0xFF80, 0x7F7F, 0x8000, 0x7FC0, 0x7F80]


def test_scale_is_that_of_the_realised_probability() -> None:
    assert reference.scale(0.5) == 2.0
    assert reference.scale(0.1) == 1 / (1 - 429496730 / 2**32) != 1 / (1 - 0.1)


def test_output_rules() -> None:
    x = np.array([np.inf, np.nan, -0.0, -3.0], dtype=np.float32).view(np.uint32)
    none, every = np.zeros(4, dtype=bool), np.ones(4, dtype=bool)
    assert reference.dropout(x, none, 0.5, "float32").tolist() == [0, 0, 0, 0]
    assert reference.dropout(x, every, 0.5, "float32")[2] == 0x80000000
    assert np.array_equal(reference.dropout(x, every, 1e-12, "float32"), x)
    assert reference.dropout(x, every, 1.0, "float32").tolist() == [0, 0, 0, 0]
