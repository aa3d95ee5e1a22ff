"""Attention whose dropout is ours: torch's fused kernels have masks of their own."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from dropout_ext._checks import check_probability
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
    torch on the CPU; its fused CUDA kernels, which do not, cannot be given a mask. As in torch's
    own composition, float16 and bfloat16 are computed in float32, and a query that may attend to
    nothing gives zeros.

    Args:
        query: tensor of shape (..., Hq, L, E), float64, float32, bfloat16 or float16.
        key: tensor of shape (..., H, S, E), of the dtype of query.
        value: tensor of shape (..., H, S, Ev), of the dtype of query.
        attn_mask: broadcastable to (..., L, S); boolean, True = may attend, or floating point, to
            be added to the scores.
        dropout_p: probability of a weight to be dropped, in [0, 1].
        is_causal: query i attends to keys 0 ... i alone; excludes attn_mask.
        scale: of the scores; by default ``1 / sqrt(E)``.
        enable_gqa: if True, Hq may be a multiple of H; else they are the same.
        generator: takes the place of the default generator of the input's device.

    Returns:
        Tensor of shape (..., Hq, L, Ev), of the dtype of query.

    Raises:
        RuntimeError: both attn_mask and is_causal are given.
        ValueError, TypeError, RuntimeError: as :func:`dropout`.
    """
    check_probability(dropout_p)
    if dropout_p == 0.0:
        return nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if is_causal and attn_mask is not None:
        raise RuntimeError(
            "scaled_dot_product_attention: Explicit attn_mask should not be set when "
            "is_causal=True, but got both"
        )
    dtype = query.dtype
    if dtype in (torch.float16, torch.bfloat16):
        query, key, value = query.float(), key.float(), value.float()
    if enable_gqa:
        groups = query.size(-3) // key.size(-3)
        key = key.repeat_interleave(groups, -3)
        value = value.repeat_interleave(groups, -3)
    factor = query.size(-1) ** -0.5 if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, float("-inf"))
    weights = scores.softmax(-1) if attn_mask is None else _masked_softmax(scores, attn_mask)
    return (dropout(weights, dropout_p, generator=generator) @ value).to(dtype)


def _masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    boolean = mask.dtype == torch.bool
    scores = scores.masked_fill(~mask, float("-inf")) if boolean else scores + mask
    nothing = scores.isneginf().all(-1, keepdim=True)
    # Filled on both sides of the softmax: neither its result nor its derivative is NaN then.
    return scores.masked_fill(nothing, 0.0).softmax(-1).masked_fill(nothing, 0.0)
