"""Attention whose dropout is ours, and whose weights are never held."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from dropout_ext import _C
from dropout_ext.functional.checks import check_probability
from dropout_ext.functional.index_map import Shard, index_map
from dropout_ext.functional.override import overridable_by_any
from dropout_ext.functional.state import repeatable_source, source_of, state_of
from dropout_ext.integration.dtensor import is_dtensor


@overridable_by_any
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
    rng_state: Tensor | None = None,
    shard: Shard | None = None,
) -> Tensor:
    """:func:`torch.nn.functional.scaled_dot_product_attention`, with this package's dropout.

    Without dropout it is torch's own. With it, the result is that of
    ``dropout(softmax(scores), dropout_p, rng_state=rng_state) @ value``, but the weights are never
    held: forward and backward compute them block by block, and backward keeps the inputs, the
    output, one number for each query and 16 bytes. The mask is that of the weights, bit for bit,
    so :func:`dropout_mask` of shape (..., Hq, L, S) gives it. float16 and bfloat16 are computed
    in float32. A query that may attend to nothing gives zeros, and zero gradients.

    Args:
        query: tensor of shape (..., Hq, L, E), float64, float32, bfloat16 or float16.
        key: tensor of shape (..., H, S, E), of the dtype of query.
        value: tensor of shape (..., H, S, Ev), of the dtype of query.
        attn_mask: broadcastable to (..., Hq, L, S); boolean, True = may attend, or floating point,
            to be added to the scores.
        dropout_p: probability of a weight to be dropped, in [0, 1].
        is_causal: query i attends to keys 0 ... i alone; excludes attn_mask.
        scale: of the scores; by default ``1 / sqrt(E)``.
        enable_gqa: if True, Hq may be a multiple of H; else they are the same.
        generator: takes the place of the default generator of the input's device.
        rng_state: the state of the mask, see :func:`dropout_ext.rng_state`; nothing is drawn then.
        shard: ``((..., Hq, L, S), start)`` if the weights are a piece of larger ones: their whole
            shape, and the coordinates at which the piece begins.

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
    _check_dense(query, key, value)
    source = source_of(query, generator, rng_state)
    tensors = _aligned((query, key, value), enable_gqa)
    unbatched = max(query.dim(), key.dim(), value.dim()) == 2
    strides, base = None, 0
    if shard is not None:
        weights = [*tensors[0].shape[:-1], tensors[1].size(-2)]
        strides, base = index_map(weights[1:] if unbatched else weights, (), shard)
        strides = [0, *strides] if strides and unbatched else strides
    device = query.device.type
    if torch.is_autocast_enabled(device):
        cast = functools.partial(_autocast, dtype=torch.get_autocast_dtype(device))
        tensors = [cast(tensor) for tensor in tensors]
        attn_mask = None if attn_mask is None else cast(attn_mask)
    query, key, value = tensors
    if torch.compiler.is_compiling():
        output: Tensor = torch.ops.dropout_ext.attention(
            query,
            key,
            value,
            attn_mask,
            dropout_p,
            state_of(query, source),
            is_causal=is_causal,
            scale=scale,
            mask_strides=strides,
            mask_base=base,
        )[0]
    else:
        output = _C.attention(
            query,
            key,
            value,
            attn_mask,
            dropout_p,
            is_causal,
            scale,
            *repeatable_source(query, source),
            strides,
            base,
        )
    return output.squeeze(0) if unbatched else output


def _check_dense(*tensors: Tensor) -> None:
    """Of the tensors that torch composes attention for, those that no kernel of ours takes."""
    for tensor in tensors:
        if is_dtensor(tensor) or tensor.is_nested:
            raise RuntimeError(
                "scaled_dot_product_attention: with dropout, query, key and value must be dense "
                f"tensors, but got {type(tensor).__name__}. Of a DTensor take to_local(), and say "
                "by shard which heads and batches it holds; pad a nested tensor"
            )


def _aligned(tensors: Sequence[Tensor], enable_gqa: bool) -> list[Tensor]:
    """Of the same number of dimensions, three at least, whose batches are broadcast."""
    own = 3 if enable_gqa else 2  # dimensions that each tensor keeps
    batches = [tensor.shape[:-own] for tensor in tensors]
    if not batches[0] == batches[1] == batches[2]:
        batch = torch.broadcast_shapes(*batches)
        tensors = [tensor.expand(*batch, *tensor.shape[-own:]) for tensor in tensors]
    return [tensor.unsqueeze(0) if tensor.dim() == 2 else tensor for tensor in tensors]


def _autocast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    eligible = tensor.is_floating_point() and tensor.dtype != torch.float64
    return tensor.to(dtype) if eligible else tensor
