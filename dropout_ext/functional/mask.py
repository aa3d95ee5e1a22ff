"""Which mask a call applies, and what it makes of an element."""

from collections.abc import Sequence
from typing import NamedTuple

from dropout_ext.functional.index_map import Dims, Shard, index_map


class Kept(NamedTuple):
    """Kept elements become ``input * scale + shift``, dropped ones ``fill``.

    Written out where it is used: Dynamo makes constants of the numbers in a function, but inputs
    of those in a global.
    """

    scale: float
    shift: float
    fill: float


class Mask(NamedTuple):
    """One mask, but for the state it is drawn from.

    Attributes:
        p: probability to be dropped, in [0, 1], already checked.
        kept: what becomes of an element; None for the inverted scaling, by one over the
            probability that is realised for an element to be kept.
        broadcast_dims: dimensions along which one decision is shared.
        shard: the piece of a larger tensor that the input is.
    """

    p: float
    kept: Kept | None = None
    broadcast_dims: Dims = ()
    shard: Shard | None = None


def is_elementwise(mask: Mask) -> bool:
    """Whether each element of the input itself has a decision of its own."""
    return mask.shard is None and mask.broadcast_dims == ()


def mask_indices(mask: Mask, shape: Sequence[int]) -> tuple[list[int] | None, int]:
    """Mask strides, None if row-major, and mask base for an input of this shape."""
    if mask.broadcast_dims == () and mask.shard is None:
        return None, 0
    return index_map(shape, mask.broadcast_dims, mask.shard)
