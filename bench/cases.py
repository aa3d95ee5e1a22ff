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

LAYOUTS = {
    "contiguous": "one dense row",
    "channels_last": "(N, 64, 32, 32) stored with the channels last",
    "transposed": "(1024, N) stored column by column",
    "sliced": "rows of 1024 out of rows of 1032",
    "misaligned": "dense, starting one element after an aligned address",
}

LAYOUT_MULTIPLE = 64 * 32 * 32
"""Numbers of elements that every layout has a shape for are multiples of this."""

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
    """The values of a flat tensor in fresh memory, strided as `layout` names it."""
    if layout == "contiguous":
        return flat.clone()
    if layout == "channels_last":
        return flat.view(-1, 64, 32, 32).clone(memory_format=torch.channels_last)
    if layout == "transposed":
        return flat.view(-1, 1024).clone().t()
    if layout == "sliced":
        rows = flat.view(-1, 1024)
        return rows.new_empty(rows.size(0), 1032)[:, :1024].copy_(rows)
    if layout == "misaligned":
        return flat.new_empty(flat.numel() + 1)[1:].copy_(flat)
    raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
