"""Every way in which a tensor can lie in memory, by name.

Lengths sit around those at which a kernel changes its mind: 8 (block), 64 (keep word, rows of a
transposed tile), 256 (columns of a tile), 2048 (row buffer).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

# Makes a fresh contiguous tensor of a shape.
Make = Callable[[Sequence[int]], torch.Tensor]
Layout = Callable[[Make], torch.Tensor]

DENSE: dict[str, Layout] = {}  # no memory is shared between elements: in place is allowed
OVERLAPPING: dict[str, Layout] = {}
LARGE: dict[str, Layout] = {}  # enough elements for several threads


def _contiguous(shape: Sequence[int]) -> Layout:
    return lambda make: make(shape)


def _row(begin: int, end: int, allocated: int) -> Layout:
    return lambda make: make((allocated,))[begin:end]


def _rows_with_gaps(width: int) -> Layout:
    return lambda make: make((5, width + 3))[:, 1 : 1 + width]


def _transposed(rows: int, columns: int) -> Layout:
    return lambda make: make((rows, columns)).t()


def _permuted(shape: Sequence[int], order: Sequence[int]) -> Layout:
    return lambda make: make(shape).permute(*order)


def _channels_last(shape: Sequence[int]) -> Layout:
    memory_format = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    return lambda make: make(shape).to(memory_format=memory_format)


def _add_plain_shapes() -> None:
    for shape in [(), (1,), (1, 1, 1), (0,), (3, 0, 5), (0, 4), (1, 7, 1), (3, 5, 7), (64, 64)]:
        DENSE[f"contiguous {shape}"] = _contiguous(shape)
    DENSE["13 dimensions of 2"] = _contiguous((2,) * 13)
    DENSE["13 dimensions of 2, reversed"] = _permuted((2,) * 13, range(12, -1, -1))
    DENSE["31 dimensions"] = _contiguous((1,) * 15 + (9,) + (1,) * 15)


def _add_offsets() -> None:
    for offset in (1, 2, 3, 4, 5, 7, 8, 15):
        DENSE[f"storage offset {offset}"] = _row(offset, 1000 + offset, 1000 + offset)
        DENSE[f"storage offset {offset}, short"] = _row(offset, offset + 13, 40)
    DENSE["storage offset and tail"] = _row(9, 4107, 5000)


def _add_slices() -> None:
    for width in (1, 2, 7, 8, 9, 63, 64, 65, 129, 2047, 2048, 2049, 4500):
        DENSE[f"rows of {width} with gaps"] = _rows_with_gaps(width)
    DENSE["every second row"] = lambda make: make((20, 65))[::2]
    DENSE["every third column"] = lambda make: make((20, 200))[:, 1::3]
    DENSE["every second element"] = lambda make: make((4200,))[::2]
    DENSE["every fifth element"] = lambda make: make((700,))[3::5]
    DENSE["steps in all dimensions"] = lambda make: make((7, 9, 40))[::2, 1::3, ::3]
    DENSE["one column"] = lambda make: make((300, 5))[:, 2]
    DENSE["middle dimension cut"] = lambda make: make((3, 11, 70))[:, 4:9]
    DENSE["interleaved"] = lambda make: make((300,)).as_strided((50, 2), (2, 51))
    DENSE["diagonal"] = lambda make: make((90, 90)).diagonal()


def _add_permutations() -> None:
    for rows, columns in itertools.product((2, 63, 64, 65, 130), (3, 255, 256, 257)):
        DENSE[f"transposed {rows} x {columns}"] = _transposed(rows, columns)
    for order in list(itertools.permutations(range(3)))[1:]:
        DENSE[f"permuted {order}"] = _permuted((9, 33, 20), order)
    DENSE["permuted 5-d"] = _permuted((3, 4, 5, 6, 7), (3, 0, 4, 2, 1))
    DENSE["transposed slice"] = lambda make: make((70, 300))[3:, 5:290].t()
    DENSE["transposed with steps"] = lambda make: make((70, 300))[::2, ::3].t()
    DENSE["batch of transposed"] = lambda make: make((3, 65, 40)).transpose(1, 2)
    DENSE["attention heads"] = lambda make: make((2, 30, 4, 16)).transpose(1, 2)


def _add_channels_last() -> None:
    for channels in (1, 3, 8, 63, 64, 65, 130):
        DENSE[f"channels last, {channels} channels"] = _channels_last((2, channels, 17, 15))
    DENSE["channels last, a slice of channels"] = lambda make: _channels_last((2, 9, 6, 5))(make)[
        :, 2:7
    ]
    DENSE["channels last 3d"] = _channels_last((2, 5, 3, 4, 17))


def _add_overlapping() -> None:
    OVERLAPPING["expanded rows"] = lambda make: make((1, 300)).expand(7, 300)
    OVERLAPPING["expanded columns"] = lambda make: make((70, 1)).expand(70, 130)
    OVERLAPPING["expanded scalar"] = lambda make: make(()).expand(1000)
    OVERLAPPING["expanded scalar, 3-d"] = lambda make: make(()).expand(5, 13, 70)
    OVERLAPPING["expanded middle"] = lambda make: make((4, 1, 33)).expand(4, 9, 33)
    OVERLAPPING["expanded and transposed"] = lambda make: make((70, 1)).expand(70, 300).t()
    OVERLAPPING["windows"] = lambda make: make((300,)).unfold(0, 100, 7)


def _add_large() -> None:
    LARGE["rows with gaps"] = lambda make: make((503, 1010))[:, 3:1000]
    LARGE["long rows with gaps"] = lambda make: make((3, 100_010))[:, 5:]
    LARGE["short rows with gaps"] = lambda make: make((50_000, 8))[:, :7]
    LARGE["every second element"] = lambda make: make((600_001,))[::2]
    LARGE["storage offset 3"] = lambda make: make((300_006,))[3:]
    LARGE["transposed"] = lambda make: make((530, 999)).t()
    LARGE["transposed, tall"] = lambda make: make((30_003, 9)).t()
    LARGE["transposed, wide"] = lambda make: make((9, 30_003)).t()
    LARGE["channels last, 3 channels"] = _channels_last((3, 3, 150, 201))
    LARGE["channels last, 256 channels"] = _channels_last((2, 256, 19, 31))
    LARGE["channels last 3d"] = _channels_last((2, 33, 5, 31, 30))
    LARGE["batch of transposed"] = lambda make: make((30, 70, 130)).transpose(1, 2)
    LARGE["permuted 4-d"] = lambda make: make((11, 40, 50, 13)).permute(3, 1, 0, 2)
    LARGE["expanded"] = lambda make: make((1, 999)).expand(300, 999)


_add_plain_shapes()
_add_offsets()
_add_slices()
_add_permutations()
_add_channels_last()
_add_overlapping()
_add_large()
