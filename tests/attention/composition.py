"""What attention is by definition: softmax, this package's dropout of the weights, product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dropout_ext import functional as F

STATE = (11, 4)


def rng_state(numbers: tuple[int, int] = STATE) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def scores(
    query: Tensor,
    key: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    factor = query.size(-1) ** -0.5 if scale is None else scale
    found = (query * factor) @ key.transpose(-2, -1)
    if is_causal:
        attn_mask = torch.ones(found.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is None:
        return found
    if attn_mask.dtype == torch.bool:
        return found.masked_fill(~attn_mask, float("-inf"))
    return found + attn_mask.to(found.dtype)


def composed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    **dropout: Any,
) -> Tensor:
    if enable_gqa:
        group = query.size(-3) // key.size(-3)
        key, value = key.repeat_interleave(group, -3), value.repeat_interleave(group, -3)
    found = scores(query, key, attn_mask, is_causal, scale)
    nothing = found.isneginf().all(-1, keepdim=True)
    weights = found.masked_fill(nothing, 0.0).softmax(-1).masked_fill(nothing, 0.0)
    return F.dropout(weights, dropout_p, **dropout) @ value


def leaves(*tensors: Tensor, dtype: torch.dtype | None = None) -> list[Tensor]:
    """Copies that require gradients, of the same strides."""
    return [
        torch.empty_strided(t.shape, t.stride(), dtype=dtype or t.dtype).copy_(t).requires_grad_()
        for t in tensors
    ]
