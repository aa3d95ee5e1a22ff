"""The mask contract in a few slow, obvious lines: what every kernel is compared with, bit for bit.

It knows nothing of torch or of dropout_ext. Elements are bit patterns in unsigned integers of their
own width, so that numpy's lack of bfloat16 does not matter and a comparison cannot round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
Bits = NDArray[Any]
Mask = NDArray[np.bool_]

ONE = 2**32  # probability 1 as a threshold
BLOCK = 8  # elements that share a Philox call

_LOW32 = np.uint64(0xFFFFFFFF)
_LOW16 = np.uint64(0xFFFF)
_SHIFT32 = np.uint64(32)


# Random numbers.


def philox4x32_10(counter: Sequence[U64], key: tuple[int, int]) -> list[U64]:
    """Philox4x32-10 of Salmon et al., SC'11. Words of 32 bits, held in uint64 arrays."""
    c0, c1, c2, c3 = (np.asarray(word, dtype=np.uint64) for word in counter)
    k0, k1 = key
    for _ in range(10):
        product0 = np.uint64(0xD2511F53) * c0
        product1 = np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (product1 >> _SHIFT32) ^ c1 ^ np.uint64(k0),
            product1 & _LOW32,
            (product0 >> _SHIFT32) ^ c3 ^ np.uint64(k1),
            product0 & _LOW32,
        )
        k0 = (k0 + 0x9E3779B9) % 2**32
        k1 = (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def words(seed: int, offset: int, block: U64) -> list[U64]:
    """The four words of each block. `seed` and `offset`: 64 bits, signed or unsigned."""
    seed, offset = seed % 2**64, offset % 2**64
    zero = np.zeros_like(block)
    counter = [
        zero + np.uint64(offset % 2**32),
        zero + np.uint64(offset >> 32),
        block & _LOW32,
        block >> _SHIFT32,
    ]
    return philox4x32_10(counter, (seed % 2**32, seed >> 32))


def lane_bits(four_words: list[U64], lane: int) -> U64:
    return (four_words[lane >> 1] >> np.uint64(16 * (lane & 1))) & _LOW16


def uniform32(seed: int, offset: int, index: U64) -> U64:
    """The number of 32 bits that is compared with the threshold, for each mask index."""
    index = np.asarray(index, dtype=np.uint64)
    block, lane = index >> np.uint64(3), index & np.uint64(7)
    first = words(seed, offset, block)
    second = words(seed, offset + 1, block)
    result = np.zeros_like(index)
    for j in range(BLOCK):
        number = (lane_bits(first, j) << np.uint64(16)) | lane_bits(second, j)
        result = np.where(lane == np.uint64(j), number, result)
    return result


@lru_cache(maxsize=8)
def uniform32_range(seed: int, offset: int, start: int, count: int) -> NDArray[np.uint32]:
    """`uniform32` of the indices start, start + 1 ... start + count - 1, each block drawn once."""
    first_block, end_block = start // BLOCK, -(-(start + count) // BLOCK)
    numbers = np.empty((end_block - first_block, BLOCK), dtype=np.uint32)
    chunk = 2**14  # blocks whose arrays stay in the cache
    for begin in range(0, len(numbers), chunk):
        part = numbers[begin : begin + chunk]
        block = np.arange(len(part), dtype=np.uint64) + np.uint64(first_block + begin)
        first, second = words(seed, offset, block), words(seed, offset + 1, block)
        for j in range(BLOCK):
            part[:, j] = (lane_bits(first, j) << np.uint64(16)) | lane_bits(second, j)
    skip = start - first_block * BLOCK
    result = numbers.reshape(-1)[skip : skip + count]
    result.flags.writeable = False
    return result


def fold_in(seed: int, offset: int, number: int) -> tuple[int, int]:
    """The state that a state has for a number: the call of a block that no mask has gives key and
    upper counter words of another call, which the number tells apart."""
    parent = [int(word) for word in words(seed, offset, np.uint64(2**64 - 1))]
    low, high = number % 2**32, number % 2**64 >> 32
    counter = [np.uint64(word) for word in (low, high, parent[2], parent[3])]
    w = [int(word) for word in philox4x32_10(counter, (parent[0], parent[1]))]
    return w[0] + 2**32 * w[1], w[2] + 2**32 * w[3]


# Probability, scale.


def threshold(p: float) -> int:
    """round(p * 2^32), half to even: Python rounds a Fraction exactly that way."""
    return round(Fraction(p) * ONE)


def scale(p: float) -> float:
    """1 / (keep probability that the threshold realises), in double."""
    return 1.0 / (1.0 - threshold(p) / ONE)


# Index map.


def row_major(shape: Sequence[int]) -> list[int]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return strides[::-1]


def broadcast_strides(shape: Sequence[int], dims: Sequence[int]) -> list[int]:
    """One decision along each of `dims`: stride 0 there, else as if their size were 1."""
    shared = {dim % len(shape) for dim in dims}
    strides = row_major([1 if d in shared else size for d, size in enumerate(shape)])
    return [0 if d in shared else stride for d, stride in enumerate(strides)]


def shard_map(
    global_shape: Sequence[int], start: Sequence[int], dims: Sequence[int] = ()
) -> tuple[list[int], int]:
    """Strides and base of the piece of a larger tensor that begins at `start`."""
    strides = broadcast_strides(global_shape, dims)
    return strides, sum(s * m for s, m in zip(start, strides, strict=True))


def index_map(shape: Sequence[int], strides: Sequence[int], base: int = 0) -> U64:
    """The mask index of every element: base + sum of coordinate times stride."""
    index = np.full(tuple(shape), base, dtype=np.uint64)
    for d, (size, stride) in enumerate(zip(shape, strides, strict=True)):
        steps = np.arange(size, dtype=np.uint64) * np.uint64(stride)
        index += steps.reshape([-1 if e == d else 1 for e in range(len(shape))])
    return index


# Mask and output.


def mask(
    shape: Sequence[int],
    p: float,
    seed: int,
    offset: int = 0,
    *,
    strides: Sequence[int] | None = None,
    base: int = 0,
) -> Mask:
    """True where an element is kept."""
    t = np.uint64(threshold(p))
    if strides is None or list(strides) == row_major(shape):
        count = int(np.prod(shape, dtype=np.int64))
        return (uniform32_range(seed, offset, base, count) >= t).reshape(tuple(shape))
    return _uniform32_of_map(seed, offset, tuple(shape), tuple(strides), base) >= t


@lru_cache(maxsize=8)
def _uniform32_of_map(
    seed: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], base: int
) -> U64:
    return uniform32(seed, offset, index_map(shape, strides, base))


def round_to_bfloat16(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """To nearest even, in integers: bfloat16 is the upper half of float32."""
    bits = x.view(np.uint32).astype(np.uint64)
    odd = (bits >> np.uint64(16)) & np.uint64(1)
    rounded = (bits + np.uint64(0x7FFF) + odd) >> np.uint64(16)
    return np.where(np.isnan(x), 0x7FC0, rounded).astype(np.uint16)


def widen_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def widened(x: Bits, dtype: str) -> NDArray[Any]:
    """The numbers, in the type that is computed in: double for float64, else float32."""
    if dtype == "float64":
        return x.view(np.float64)
    if dtype == "float32":
        return x.view(np.float32)
    return widen_bfloat16(x) if dtype == "bfloat16" else x.view(np.float16).astype(np.float32)


def narrowed(y: NDArray[Any], dtype: str) -> Bits:
    """Rounded once to the dtype."""
    if dtype == "bfloat16":
        return round_to_bfloat16(y)
    with np.errstate(over="ignore"):
        return y.astype(dtype).view(f"u{np.dtype(dtype).itemsize}")


def scaled(x: Bits, dtype: str, factor: float, shift: float | None = None) -> Bits:
    """x * factor, and + shift: in float64 for double, else in float32, then once to the dtype."""
    wide = widened(x, dtype)
    with np.errstate(all="ignore"):
        result = wide * wide.dtype.type(factor)
        if shift is not None:
            result = result + wide.dtype.type(shift)
        return narrowed(result, dtype)


def dropout(x: Bits, keep: Mask, p: float, dtype: str) -> Bits:
    """The bits of the output for the bits `x` of an input and its mask."""
    if threshold(p) == 0:
        return x.copy()
    if threshold(p) == ONE:
        return np.zeros_like(x)
    return np.where(keep, scaled(x, dtype, scale(p)), x.dtype.type(0))


def affine(
    x: Bits, keep: Mask, dtype: str, factor: float, shift: float = 0.0, fill: float = 0.0
) -> Bits:
    """Kept: x * factor + shift, product and sum rounded one after the other; dropped: fill."""
    if (factor, shift, fill) == (1.0, 0.0, 0.0) and keep.all():
        return x.copy()
    kept = scaled(x, dtype, factor, None if shift == fill == 0.0 else shift)
    compute = np.float64 if dtype == "float64" else np.float32
    return np.where(keep, kept, narrowed(np.full(1, fill, dtype=compute), dtype))


# Alpha dropout, Klambauer et al., 2017.

ALPHA = -1.7580993408473766  # minus lambda times alpha of SELU


def alpha_coefficients(p: float) -> tuple[float, float, float]:
    """a and b of a * x + b, and what takes the place of dropped elements: a * ALPHA + b."""
    if threshold(p) == ONE:
        return 0.0, 0.0, 0.0
    p = threshold(p) / ONE
    a = 1.0 / math.sqrt((1.0 - p) * (1.0 + p * ALPHA * ALPHA))
    b = -a * p * ALPHA
    return a, b, a * ALPHA + b


def alpha_dropout(x: Bits, keep: Mask, p: float, dtype: str) -> Bits:
    """As `dropout`; product and sum are each rounded to the type that is computed in."""
    if threshold(p) == 0:
        return x.copy()
    return affine(x, keep, dtype, *alpha_coefficients(p))


def ties(numbers: NDArray[np.uint32], p: float) -> tuple[int, int]:
    """How many decisions the second call makes, dropped and kept: h equals the upper half of T."""
    t = threshold(p)
    tied = numbers[(numbers >> np.uint32(16)) == np.uint32(t >> 16)]
    dropped = int(np.count_nonzero(tied < np.uint64(t)))
    return dropped, len(tied) - dropped
