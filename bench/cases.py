"""What is measured: dtypes, modes, sizes and layouts."""

from argparse import ArgumentTypeError
from dataclasses import dataclass

import torch
from torch import Tensor

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}

MODES = {
    "forward": "forward, allocating, input without gradient",
    "forward_grad": "forward, allocating, input that requires a gradient",
    "forward_backward": "forward, then the gradient of the input from a dense output gradient",
    "backward": "the gradient alone, through a graph built beforehand",
    "inplace": "forward, written over its input",
}

LAYOUTS = (
    "contiguous", "channels_last", "transposed", "heads", "sliced", "odd_pitch", "misaligned"
)  # fmt: skip

LAYOUT_MULTIPLE = 64 * 32 * 32  # elements; every layout has a shape for multiples of it

_SUFFIXES = {"G": 1 << 30, "M": 1 << 20, "K": 1 << 10}


@dataclass(frozen=True)
class Case:
    """One cell of the grid; all candidates are compared within a case."""

    section: str
    mode: str
    dtype: str
    numel: int
    p: float
    device: str
    layout: str = "contiguous"


def parse_size(text: str) -> int:
    """Elements, from ``1000``, ``64K`` (65,536) or ``4M`` (4,194,304)."""
    factor = _SUFFIXES.get(text[-1:].upper(), 1)
    digits = text if factor == 1 else text[:-1]
    if not digits.isdecimal() or int(digits) == 0:
        raise ArgumentTypeError(f"must be a positive integer, with K, M or G behind, got {text!r}")
    return int(digits) * factor


def format_size(numel: int) -> str:
    """The inverse of `parse_size`, in the shortest form."""
    for suffix, factor in _SUFFIXES.items():
        if numel % factor == 0:
            return f"{numel // factor}{suffix}"
    return str(numel)


def arrange(flat: Tensor, layout: str) -> Tensor:
    """The values of a flat tensor in fresh memory, strided as `layout` names it.

    Channels last are (N, 64, 32, 32); heads, (N, 64, 16, 64) with its middle dimensions exchanged;
    sliced, rows of 1024 out of 1032, of an odd pitch out of 1025; misaligned, dense from one
    element after an aligned address.
    """
    if layout == "contiguous":
        return flat.clone()
    if layout == "channels_last":
        return flat.view(-1, 64, 32, 32).clone(memory_format=torch.channels_last)
    if layout == "transposed":
        return flat.view(-1, 1024).clone().t()
    if layout == "heads":
        return flat.view(-1, 64, 16, 64).clone().transpose(1, 2)
    if layout in ("sliced", "odd_pitch"):
        rows = flat.view(-1, 1024)
        pitch = 1032 if layout == "sliced" else 1025
        return rows.new_empty(rows.size(0), pitch)[:, :1024].copy_(rows)
    return flat.new_empty(flat.numel() + 1)[1:].copy_(flat)
