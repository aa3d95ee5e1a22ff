"""The mask contract in the operations of Inductor's loops: csrc/core/mask.h once more.

Words are uint32 and products uint64, so that a compiler sees multiplications of 32 bits, and that
neighbours in a thread, whose blocks are equal, share a Philox call.
"""

from typing import Any, NamedTuple

import torch

from dropout_ext.integration.inductor_private import ops

ONE = 2**32  # probability 1 as a threshold
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def threshold(p: float) -> int:
    """round(p * 2^32), half to even; the product is exact."""
    return round(p * ONE)


def word(number: int) -> Any:
    return ops.constant(number, torch.uint32)


def wide(number: int) -> Any:
    """A constant of 64 bits; negative ones in two's complement."""
    return ops.constant(number % 2**64, torch.uint64)


def _halves(number: Any) -> tuple[Any, Any]:
    """The low and the high 32 bits of 64."""
    high = ops.bitwise_right_shift(number, wide(32))
    return ops.to_dtype(number, torch.uint32), ops.to_dtype(high, torch.uint32)


class State(NamedTuple):
    """seed and offset, uint64."""

    seed: Any
    offset: Any


class Place(NamedTuple):
    """Where in the mask: block, low and high 32 bits, and the lane in it; uint32."""

    low: Any
    high: Any
    lane: Any


def place_of_word(index: Any) -> Place:
    """Of a mask index that fits 31 bits, int32."""
    index = ops.to_dtype(index, torch.uint32)
    return Place(ops.bitwise_right_shift(index, word(3)), word(0), ops.bitwise_and(index, word(7)))


def place_of_wide(index: Any) -> Place:
    """Of any mask index, uint64."""
    low, high = _halves(ops.bitwise_right_shift(index, wide(3)))
    return Place(low, high, ops.to_dtype(ops.bitwise_and(index, wide(7)), torch.uint32))


def _philox(seed: Any, offset: Any, place: Place) -> list[Any]:
    """Philox4x32-10 (Salmon et al., SC'11): the four words of a block."""
    keys = _halves(seed)
    counter = [*_halves(offset), place.low, place.high]
    for number in range(_ROUNDS):
        products = [
            _halves(ops.mul(ops.to_dtype(counter[2 * k], torch.uint64), wide(_MULTIPLIERS[k])))
            for k in range(2)
        ]
        key = [ops.add(keys[k], word(number * _WEYL[k] % 2**32)) for k in range(2)]
        counter = [
            ops.bitwise_xor(ops.bitwise_xor(products[1][1], counter[1]), key[0]),
            products[1][0],
            ops.bitwise_xor(ops.bitwise_xor(products[0][1], counter[3]), key[1]),
            products[0][0],
        ]
    return counter


def _lane_bits(words: list[Any], lane: Any) -> Any:
    """The 16 bits of a lane. Selected as int32: the C++ backend promotes no bool with uint32."""
    words = [ops.to_dtype(each, torch.int32) for each in words]
    fourth, second = (ops.ne(ops.bitwise_and(lane, word(bit)), word(0)) for bit in (4, 2))
    lower, upper = (ops.where(second, words[k + 1], words[k]) for k in (0, 2))
    bits = ops.to_dtype(ops.where(fourth, upper, lower), torch.uint32)
    shift = ops.bitwise_left_shift(ops.bitwise_and(lane, word(1)), word(4))
    return ops.bitwise_and(ops.bitwise_right_shift(bits, shift), word(0xFFFF))


def keep(state: State, place: Place, t: int) -> Any:
    """Is the element kept? The second call is left out where it decides nothing.

    Args:
        t: the threshold, below ``ONE``.
    """
    number = _lane_bits(_philox(state.seed, state.offset, place), place.lane)
    if t & 0xFFFF == 0:
        return ops.ge(number, word(t >> 16))
    second = _philox(state.seed, ops.add(state.offset, wide(1)), place)
    number = ops.bitwise_left_shift(number, word(16))
    return ops.ge(ops.bitwise_or(number, _lane_bits(second, place.lane)), word(t))
