"""Attention whose dropout is ours: torch's fused kernels have masks of their own."""

from __future__ import annotations

import functools

import torch
from torch import Generator, Tensor, nn

from dropout_ext.functional.checks import check_probability
from dropout_ext.functional.elementwise import dropout


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
        RuntimeError: both attn_mask and is_causal are given; the dtypes of query, key and value
            differ; a mask of another dtype or shape; heads that do not divide.
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
    device = query.device.type
    compose = functools.partial(
        _compose, p=dropout_p, is_causal=is_causal, scale=scale, gqa=enable_gqa, generator=generator
    )
    if not torch.is_autocast_enabled(device):
        return compose(query, key, value, attn_mask)
    cast = functools.partial(_autocast, dtype=torch.get_autocast_dtype(device))
    mask = None if attn_mask is None else cast(attn_mask)
    with torch.autocast(device, enabled=False):  # it would round the scores to that type
        return compose(cast(query), cast(key), cast(value), mask)


def _autocast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    eligible = tensor.is_floating_point() and tensor.dtype != torch.float64
    return tensor.to(dtype) if eligible else tensor


def _compose(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    p: float,
    is_causal: bool,
    scale: float | None,
    gqa: bool,
    generator: Generator | None,
) -> Tensor:
    dtype = query.dtype
    if not dtype == key.dtype == value.dtype:
        raise RuntimeError(
            "Expected query, key, and value to have the same dtype, but got query.dtype: "
            f"{dtype} key.dtype: {key.dtype} and value.dtype: {value.dtype} instead."
        )
    if mask is not None and mask.dtype not in (torch.bool, torch.float32, dtype):
        raise RuntimeError(
            "Expected attn_mask dtype to be bool or float or to match query dtype, but got "
            f"attn_mask.dtype: {mask.dtype} and  query.dtype: {dtype} instead."
        )
    if dtype in (torch.float16, torch.bfloat16):
        query, key, value = query.float(), key.float(), value.float()
    if gqa:
        key, value = _repeat_heads(key, query), _repeat_heads(value, query)
    factor = query.size(-1) ** -0.5 if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, float("-inf"))
    weights = scores.softmax(-1) if mask is None else _masked_softmax(scores, mask)
    return (dropout(weights, p, generator=generator) @ value).to(dtype)


def _repeat_heads(tensor: Tensor, query: Tensor) -> Tensor:
    if query.size(-3) % tensor.size(-3) != 0:
        raise RuntimeError(
            "scaled_dot_product_attention: with enable_gqa the heads of query must be a multiple "
            f"of those of key and value, but got {query.size(-3)} and {tensor.size(-3)}"
        )
    return tensor.repeat_interleave(query.size(-3) // tensor.size(-3), -3)


def _masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    boolean = mask.dtype == torch.bool
    mask = mask.expand_as(scores)
    scores = scores.masked_fill(~mask, float("-inf")) if boolean else scores + mask
    nothing = scores.isneginf().all(-1, keepdim=True)
    # Filled on both sides of the softmax: neither its result nor its derivative is NaN then.
    return scores.masked_fill(nothing, 0.0).softmax(-1).masked_fill(nothing, 0.0)
