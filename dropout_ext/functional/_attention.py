"""Attention whose dropout is ours: torch's fused kernels have masks of their own."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from dropout_ext.functional._elementwise import dropout


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """:func:`torch.nn.functional.scaled_dot_product_attention`, with this package's dropout.

    Without dropout it is torch's own. With it, the attention weights are materialised, as by
    torch on the CPU; its fused CUDA kernels, which do not, cannot be given a mask.

    Args:
        query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa: as torch's.
        generator: takes the place of the default generator of the input's device.

    Returns:
        Tensor of shape (..., L, Ev).
    """
    if dropout_p == 0.0:
        return nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if enable_gqa:
        groups = query.size(-3) // key.size(-3)
        key = key.repeat_interleave(groups, -3)
        value = value.repeat_interleave(groups, -3)
    factor = query.size(-1) ** -0.5 if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, float("-inf"))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return dropout(scores.softmax(-1), dropout_p, generator=generator) @ value
