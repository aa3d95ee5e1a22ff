"""Where in the mask the elements of a tensor lie: index = base + sum of coordinate * stride."""

import math
import operator
from collections.abc import Sequence
from typing import Any

from torch import SymInt

from dropout_ext.integration.strides import row_major

Shard = tuple[Sequence[int], Sequence[int]]
Dims = tuple[int, ...]
NO_DIMS: Dims = ()
_MOST_ELEMENTS = 2**63 - 1


def dimensions(dims: Any) -> Dims:
    """Dimensions as they are given: an index, a sequence of indices or None; TypeError else.

    An index is whatever Python takes for one, a NumPy integer or a tensor without dimensions too.
    """
    if dims is None:
        return NO_DIMS
    if isinstance(dims, int):
        return (dims,)
    try:
        return _indices(dims) if hasattr(dims, "__iter__") else (operator.index(dims),)
    except TypeError:
        pass
    try:
        return (operator.index(dims),)  # an array without dimensions has __iter__ as well
    except TypeError:
        raise TypeError(
            "dropout: broadcast_dims must be an integer or a sequence of integers, but got "
            f"{dims!r}"
        ) from None


def _indices(numbers: Any) -> tuple[Any, ...]:
    """Integers and symbols for them as they are."""
    return tuple(n if isinstance(n, int | SymInt) else operator.index(n) for n in numbers)


def index_map(
    shape: Sequence[int], broadcast_dims: Dims, shard: Shard | None
) -> tuple[list[int] | None, int]:
    """Mask strides and base of a tensor of this shape.

    Args:
        shape: of the tensor at hand.
        broadcast_dims: dimensions along which one decision is shared; their stride is 0 and the
            others are those of the shape with 1 in their place.
        shard: ``(global_shape, start)`` if the tensor is the piece of a larger one that begins at
            the coordinates ``start``.

    Returns:
        The strides, None if they are the row-major ones of ``shape``, and the base.
    """
    if not broadcast_dims and shard is None:
        return None, 0
    global_shape, start = (shape, None) if shard is None else _checked(shape, shard)
    shared = _normalized(broadcast_dims, len(shape))
    decisions = row_major([1 if d in shared else size for d, size in enumerate(global_shape)])
    strides = [0 if d in shared else stride for d, stride in enumerate(decisions)]
    if start is None:
        return strides, 0
    return strides, sum(s * m for s, m in zip(start, strides, strict=True))


def _normalized(dims: Sequence[int], ndim: int) -> set[int]:
    if ndim == 0:  # as torch has it, a scalar may be taken for one dimension
        _normalized(dims, 1)
        return set()
    for d in dims:
        if not -ndim <= d < ndim:
            raise IndexError(
                f"dropout: broadcast_dims out of range (expected to be in range of "
                f"[{-ndim}, {ndim - 1}], but got {d})"
            )
    shared = {d % ndim for d in dims}
    if len(shared) != len(dims):
        raise ValueError(f"dropout: broadcast_dims names a dimension twice: {tuple(dims)}")
    return shared


def _checked(shape: Sequence[int], shard: Any) -> Shard:
    try:
        global_shape, start = (_indices(numbers) for numbers in shard)
    except (TypeError, ValueError):
        raise TypeError(
            "dropout: shard must be (global_shape, start), two sequences of integers, but got "
            f"{shard!r}"
        ) from None
    if not len(global_shape) == len(start) == len(shape):
        raise ValueError(
            f"dropout: shard must give a global shape and a start of {len(shape)} dimensions, "
            f"but got {tuple(global_shape)} and {tuple(start)}"
        )
    for d, (size, whole, first) in enumerate(zip(shape, global_shape, start, strict=True)):
        if first < 0 or first + size > whole:
            raise ValueError(
                f"dropout: the shard of shape {tuple(shape)} at {tuple(start)} does not lie "
                f"within the global shape {tuple(global_shape)} (dimension {d})"
            )
    if math.prod(global_shape) > _MOST_ELEMENTS:
        raise ValueError(
            f"dropout: a global shape must have less than 2^63 elements, but got "
            f"{tuple(global_shape)}"
        )
    return global_shape, start
