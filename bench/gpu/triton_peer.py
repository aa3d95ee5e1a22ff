"""Low-memory dropout in Triton: the mask is drawn again from a seed and the element's index.

Nothing but the seed is kept for backward. The seed comes from the host, so a captured graph would
replay one mask: good enough to time, not to train with.
"""

import importlib
import random
from typing import Any

import torch
from torch import Tensor

triton: Any = importlib.import_module("triton")
tl: Any = importlib.import_module("triton.language")

_BLOCK = 1024


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _apply(source, target, numel, p, seed, block: tl.constexpr):  # type: ignore[no-untyped-def]
    index = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = index < numel
    values = tl.load(source + index, mask=inside)
    wide = values.to(tl.float64 if values.dtype == tl.float64 else tl.float32)
    # A 64-bit index would choose the twice as wide, slower generator.
    kept = tl.rand(seed, index.to(tl.uint32)) >= p
    tl.store(target + index, tl.where(kept, wide * (1.0 / (1.0 - p)), 0.0), mask=inside)


def _launch(x: Tensor, p: float, seed: int) -> Tensor:
    result = torch.empty_like(x)
    _apply[(triton.cdiv(x.numel(), _BLOCK),)](x, result, x.numel(), p, seed, block=_BLOCK)
    return result


class SeededDropout(torch.autograd.Function):
    """Dropout of a dense tensor; backward applies the same function to the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        """Draws a seed and applies its mask."""
        ctx.p, ctx.seed = p, random.getrandbits(31)
        return _launch(x, p, ctx.seed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Applies the mask of the forward pass, computed again."""
        return _launch(gradients[0].contiguous(), ctx.p, ctx.seed), None


def seeded_dropout(x: Tensor, p: float) -> Tensor:
    """Inverted dropout of a dense CUDA tensor, its mask never stored."""
    result: Tensor = SeededDropout.apply(x, p)  # type: ignore[no-untyped-call]
    return result
