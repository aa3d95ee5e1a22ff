"""Layouts as they come up in models, and what a GPU may at most see of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Make = Callable[[Sequence[int]], torch.Tensor]

NARROW = ("bfloat16", "float16")
ALL = ("float64", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Everyday:
    """A layout with its bars: `loads` and `stores` are the least share of useful bytes in the
    sectors that accesses touch, `calls` the most Philox calls an element, `applied` the most
    elements that are computed for one that counts."""

    name: str
    make: Callable[[Make], torch.Tensor]
    loads: float = 0.9
    stores: float = 0.9
    calls: float = 1 / 7
    applied: float = 1.15
    shared: tuple[int, ...] = ()
    dtypes: tuple[str, ...] = ALL


def _rows(
    width: int, pitch: int, count: int = 900, begin: int = 0
) -> Callable[[Make], torch.Tensor]:
    return lambda make: make((count, pitch))[:, begin : begin + width]


def _heads(features: int) -> Callable[[Make], torch.Tensor]:
    return lambda make: make((4, 50, 6, features)).transpose(1, 2)


def _plain(*shape: int) -> Callable[[Make], torch.Tensor]:
    return lambda make: make(shape)


def _from(begin: int, count: int) -> Callable[[Make], torch.Tensor]:
    return lambda make: make((begin + count,))[begin:]


def _channels_last(*shape: int) -> Callable[[Make], torch.Tensor]:
    return lambda make: make(shape).to(memory_format=torch.channels_last)


def _transposed(rows: int, columns: int) -> Callable[[Make], torch.Tensor]:
    return lambda make: make((rows, columns)).t()


LONG = Everyday("contiguous", _plain(100_003), 0.99, 0.99, 0.13, 1.05)

ROWS = [
    Everyday("heads of 64", _heads(64)),
    Everyday("heads of 80", _heads(80)),
    Everyday("heads of 100", _heads(100), 0.8, 0.8, 0.16, 1.25),
    Everyday("64 features, the first dimension shared", _plain(1000, 64), shared=(0,)),
    Everyday("x[..., :64] of 128", _rows(64, 128)),
    Everyday("rows of 100 out of 128", _rows(100, 128), 0.8, 0.8),
    Everyday("rows of 128 out of 136", _rows(128, 136), 0.8, 0.8),
    Everyday("rows of 200 out of 208", _rows(200, 208), 0.8, 0.8),
    Everyday("rows of 300 out of 304", _rows(300, 304), 0.8, 0.8),
    Everyday("rows of 1024 out of 1032", _rows(1024, 1032, 100)),
    Everyday("x[..., :64] of 65", _rows(64, 65), 0.7, 0.9),
    Everyday("rows of 1000 out of 1001", _rows(1000, 1001, 100), 0.85, 0.9),
    Everyday("rows of 1003 out of 1024", _rows(1003, 1024, 100), 0.85, 0.85),
    Everyday("x[:, 1:201] of 256", _rows(200, 256, begin=1), 0.8, 0.8),
    Everyday("one element beyond alignment", _from(1, 100_000), 0.88),
    Everyday("three elements beyond alignment", _from(3, 100_001), 0.88),
]

SHARED = [
    Everyday(f"DropPath, {samples} of 150,000", _plain(samples, 150_000), 0.95, 0.95, 1 / 64,
             1.05, shared=(1,))
    for samples in (1, 2, 3)
] + [
    Everyday("everything shared", _plain(150_000), 0.95, 0.95, 1 / 64, 1.05, shared=(0,)),
    Everyday("feature maps shared", _plain(40, 64, 196), 0.95, 0.95, 1 / 32, 1.15, shared=(2,)),
    Everyday("last 8 shared", _plain(8192, 8), 0.75, 0.75, 1 / 60, 1.05, shared=(1,)),
    Everyday("narrow, middle shared", _plain(500, 128, 8), 0.9, 0.9, 1 / 7, shared=(1,)),
]  # fmt: skip

STRIDED = [
    *(Everyday(f"channels last, {channels} channels", _channels_last(4, channels, 48, 48),
               0.75, 0.75, 0.17) for channels in (3, 8, 16)),
    Everyday("channels last, 3 channels, odd maps", _channels_last(4, 3, 37, 41), 0.6, 0.6, 0.25),
    Everyday("channels last, 256 channels", _channels_last(2, 256, 16, 16)),
    Everyday("channels last, 64 channels", _channels_last(2, 64, 32, 32)),
    Everyday("transposed, 8 wide", _transposed(12_000, 8), 0.75, 0.75, 0.17),
    Everyday("transposed, 9 wide", _transposed(12_000, 9), 0.6, 0.6, 0.17, 1.25),
    Everyday("transposed", _transposed(512, 256)),
    Everyday("batch of transposed", lambda make: make((8, 128, 64)).transpose(1, 2)),
]  # fmt: skip

EVERYDAY = {layout.name: layout for layout in [LONG, *ROWS, *SHARED, *STRIDED]}
