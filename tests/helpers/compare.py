"""Between torch tensors and the bit patterns of the reference."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tests.helpers import reference

_UINTS: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_INTS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def torch_dtype(name: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def to_bits(tensor: torch.Tensor) -> NDArray[Any]:
    """The elements in logical order, as unsigned integers of their width."""
    dense = tensor.detach().cpu().contiguous()
    integers = dense.view(_INTS[dense.element_size()])
    return integers.numpy().view(_UINTS[dense.element_size()])


def from_bits(bits: NDArray[Any], dtype: torch.dtype) -> torch.Tensor:
    signed = np.ascontiguousarray(bits).view(f"i{bits.itemsize}").reshape(bits.shape)
    return torch.from_numpy(signed).view(dtype)


@functools.lru_cache(maxsize=4)
def _random_bits(itemsize: int, count: int, seed: int) -> NDArray[Any]:
    raw = np.random.default_rng(seed).bytes(itemsize * count)
    bits = np.frombuffer(raw, dtype=_UINTS[itemsize])
    return bits


def random_bits(shape: Sequence[int], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """A fresh tensor of random bit patterns: every exponent, subnormals, Inf and NaN included."""
    count = int(np.prod(shape, dtype=np.int64))
    itemsize = torch.empty((), dtype=dtype).element_size()
    return from_bits(_random_bits(itemsize, count, seed).copy(), dtype).view(tuple(shape))


def _one_nan(bits: NDArray[Any], dtype: torch.dtype) -> NDArray[Any]:
    """All NaN alike: their payload is outside the contract."""
    infinity = to_bits(torch.tensor(float("inf"), dtype=dtype))
    magnitude = bits & bits.dtype.type(~(1 << (8 * bits.itemsize - 1)) % 2 ** (8 * bits.itemsize))
    return np.where(magnitude > infinity, bits.dtype.type(infinity + 1), bits)


def assert_bits(actual: torch.Tensor, expected: NDArray[Any], what: str = "") -> None:
    """Every element of `actual` has the expected bits (NaN payloads aside)."""
    found = to_bits(actual)
    assert found.shape == expected.shape, f"{what}: {found.shape} is not {expected.shape}"
    if np.array_equal(found, expected):
        return
    if actual.dtype.is_floating_point:
        found, expected = _one_nan(found, actual.dtype), _one_nan(expected, actual.dtype)
    wrong = np.flatnonzero(found.reshape(-1) != expected.reshape(-1))
    if len(wrong):
        first = int(wrong[0])
        raise AssertionError(
            f"{what}: {len(wrong)} of {found.size} elements differ, first at logical index {first}"
            f" (lane {first % 8}), last at {int(wrong[-1])}:"
            f" found {int(found.reshape(-1)[first]):#x},"
            f" expected {int(expected.reshape(-1)[first]):#x}"
        )


def expected_dropout(
    x: torch.Tensor,
    p: float,
    rng_state: tuple[int, int],
    *,
    strides: Sequence[int] | None = None,
    base: int = 0,
) -> NDArray[Any]:
    """What the reference makes of the tensor's elements."""
    keep = reference.mask(tuple(x.shape), p, *rng_state, strides=strides, base=base)
    return reference.dropout(to_bits(x), keep, p, dtype_name(x.dtype))


def expected_mask(
    shape: Sequence[int],
    p: float,
    rng_state: tuple[int, int],
    *,
    strides: Sequence[int] | None = None,
    base: int = 0,
) -> NDArray[Any]:
    keep = reference.mask(tuple(shape), p, *rng_state, strides=strides, base=base)
    return keep.view(np.uint8)


def state(rng_state: tuple[int, int], device: torch.device | str = "cpu") -> torch.Tensor:
    """An rng_state tensor made without the library under test."""
    signed = [(number + 2**63) % 2**64 - 2**63 for number in rng_state]
    return torch.tensor(signed, dtype=torch.int64, device=device)


def shared_dims(y: torch.Tensor, dropped: float = 0.0) -> list[bool]:
    """Along which dimensions are all decisions the same?"""
    kept = y != dropped
    return [bool((kept == kept.narrow(d, 0, 1)).all()) for d in range(y.dim())]
