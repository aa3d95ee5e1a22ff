"""Row-major strides."""

from collections.abc import Sequence


def row_major(shape: Sequence[int]) -> list[int]:
    """Strides of a tensor of this shape whose last dimension is dense."""
    strides, stride = [], 1
    for size in reversed(shape):
        strides.append(stride)
        stride *= size
    return strides[::-1]
