"""Attention whose dropout is ours, and whose weights are never held."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn

from dropout_ext import _C
from dropout_ext.functional.checks import check_probability
from dropout_ext.functional.index_map import Shard, index_map
from dropout_ext.functional.override import overridable_by_any
from dropout_ext.functional.state import Source, repeatable_source, source_of, state_of
from dropout_ext.integration import dtensor
from dropout_ext.integration.strides import row_major

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

_NAME = "scaled_dot_product_attention"


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
    output, two numbers for each query and 16 bytes. The mask is that of the weights, bit for bit,
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
        enable_gqa: if True, Hq may be a multiple of H, also of one that differs between key and
            value; else heads broadcast as batches do.
        generator: takes the place of the default generator of the input's device.
        rng_state: the state of the mask, see :func:`dropout_ext.rng_state`; nothing is drawn then.
        shard: ``((..., Hq, L, S), start)`` if the weights are a piece of larger ones: their whole
            shape, and the coordinates at which the piece begins.

    Returns:
        Tensor of shape (..., Hq, L, Ev), of the dtype of query.

    Raises:
        RuntimeError: both attn_mask and is_causal are given; the dtypes of query, key and value
            differ; a mask of another dtype or shape; heads that do not divide; DTensors that are
            not sharded alike, along batches and heads alone; nested tensors.
        TypeError: an argument of another type, a scale that requires grad among them.
        ValueError, TypeError, RuntimeError: as :func:`dropout`.
    """
    dropout_p = check_probability(dropout_p, f"{_NAME}(): argument 'dropout_p'")
    if dropout_p == 0.0:
        return nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    _check_types(query, key, value, attn_mask, is_causal, scale)
    if any(map(dtensor.is_dtensor, (query, key, value))):
        source = source_of(query, generator, rng_state)
        call = functools.partial(
            scaled_dot_product_attention,
            dropout_p=dropout_p,
            is_causal=is_causal,
            scale=scale,
            enable_gqa=enable_gqa,
        )
        return _distributed(call, (query, key, value), attn_mask, source, shard)
    if query.is_nested or key.is_nested or value.is_nested:
        raise RuntimeError(
            f"{_NAME}: with dropout, query, key and value must not be nested tensors: pad them"
        )
    source = source_of(query, generator, rng_state)
    tensors, attn_mask = _prepared((query, key, value), attn_mask, enable_gqa)
    unbatched = max(query.dim(), key.dim(), value.dim()) == 2
    strides, base = None, 0
    if shard is not None:
        weights = [*tensors[0].shape[:-1], tensors[1].size(-2)]
        strides, base = index_map(weights[1:] if unbatched else weights, (), shard)
        strides = [0, *strides] if strides and unbatched else strides
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


def _check_types(
    query: Any, key: Any, value: Any, attn_mask: Any, is_causal: Any, scale: Any
) -> None:
    """TypeError in the words of torch."""
    tensors = {"query": query, "key": key, "value": value}
    tensors |= {} if attn_mask is None else {"attn_mask": attn_mask}
    for position, (name, tensor) in enumerate(tensors.items(), 1):
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{_NAME}(): argument '{name}' (position {position}) must be Tensor, not "
                f"{type(tensor).__name__}"
            )
    if not isinstance(is_causal, bool):
        raise TypeError(
            f"{_NAME}(): argument 'is_causal' must be bool, not {type(is_causal).__name__}"
        )
    if isinstance(scale, Tensor):
        number = scale.dim() == 0 and not scale.requires_grad
    else:
        number = scale is None or isinstance(scale, Real | torch.SymInt | torch.SymFloat)
    if not number:
        raise TypeError(f"{_NAME}(): argument 'scale' must be float, not {type(scale).__name__}")


def _distributed(
    call: functools.partial[Tensor],
    tensors: Sequence[Tensor],
    attn_mask: Tensor | None,
    source: Source,
    shard: Shard | None,
) -> Tensor:
    """Each rank's batches and heads, with their piece of the one mask, from the common state."""
    if shard is not None:
        raise ValueError(f"{_NAME}: shard must not be given for DTensors, which know their shards")
    query, key, value = _placed_alike(tensors, attn_mask)
    begin = dtensor.start(query)
    shape = (*query.shape[:-1], value.size(-1))
    if begin is None:
        return dtensor.like(dtensor.local(query), query, shape)
    local = [dtensor.local(tensor) for tensor in (query, key, value)]
    mask = None if attn_mask is None else dtensor.local(attn_mask, query)
    if query.dim() > 2 and any(
        local[0].size(-3) * whole.size(-3) != own.size(-3) * query.size(-3)
        for own, whole in zip(local[1:], (key, value), strict=True)
    ):
        raise RuntimeError(
            f"{_NAME}: each rank must hold the heads of key and value that its heads of query "
            f"attend with, but got {query.placements} of {query.size(-3)} and {key.size(-3)} heads"
        )
    if not torch.compiler.is_compiling():
        options = call.keywords
        (q, k, v), cast = _prepared(local, mask, options["enable_gqa"])
        _C.check_attention(q, k, v, cast, options["dropout_p"], options["is_causal"])
    state = dtensor.local(state_of(local[0], source))
    if source.rng_state is None:
        dtensor.verify(query.device_mesh, state)
    weights = (*query.shape[:-1], key.size(-2))
    output = call(*local, mask, rng_state=state, shard=(weights, (*begin[:-1], 0)))
    return dtensor.like(output, query, shape, _strides(shape))


def _strides(shape: Sequence[int]) -> list[int]:
    """Of an output: heads and queries lie exchanged."""
    if len(shape) == 2:
        return row_major(shape)
    strides = row_major([*shape[:-3], shape[-2], shape[-3], shape[-1]])
    strides[-3], strides[-2] = strides[-2], strides[-3]
    return strides


def _placed_alike(
    tensors: Sequence[Tensor], attn_mask: Tensor | None
) -> tuple[DTensor, DTensor, DTensor]:
    """The tensors; an error unless they are cut alike, along batches and heads alone."""
    query, key, value = tensors
    if dtensor.is_dtensor(query) and dtensor.is_dtensor(key) and dtensor.is_dtensor(value):
        dims, placements = query.dim(), query.placements
        same = key.placements == placements == value.placements
        same = same and key.device_mesh == query.device_mesh == value.device_mesh
        same = same and key.shape[:-3] == query.shape[:-3] == value.shape[:-3]
        cut = {getattr(placement, "dim", None) for placement in placements}
        if same and not cut & {dims - 2, dims - 1} and _follows(attn_mask, query):
            return query, key, value
    given = [*tensors] if attn_mask is None else [*tensors, attn_mask]
    found = [
        f"{name}: {list(t.shape)} {getattr(t, 'placements', type(t).__name__)}"
        for name, t in zip(("query", "key", "value", "attn_mask"), given, strict=False)
    ]
    raise RuntimeError(
        f"{_NAME}: with dropout, query, key and value must be DTensors of the same batch sizes and "
        "placements on one mesh, sharded along batches and heads alone, and a mask must be one "
        "that is sharded as they are, and replicated where it is broadcast; but got "
        + ", ".join(found)
    )


def _follows(attn_mask: Tensor | None, query: DTensor) -> bool:
    """Does each rank hold of the mask what its queries need?"""
    if attn_mask is None:
        return True
    if not dtensor.is_dtensor(attn_mask) or attn_mask.device_mesh != query.device_mesh:
        return False
    missing = query.dim() - attn_mask.dim()
    for of_query, own in zip(query.placements, attn_mask.placements, strict=True):
        dim = getattr(of_query, "dim", -1) - missing  # negative: the mask has no such dimension
        broadcast = dim < 0 or attn_mask.size(dim) == 1
        if not (own.is_replicate() if broadcast else own.is_shard(dim)):
            return False
    return True


def _aligned(tensors: Sequence[Tensor], enable_gqa: bool) -> list[Tensor]:
    """Of the same number of dimensions, three at least, whose batches are broadcast."""
    query, key, value = tensors
    if min(tensor.dim() for tensor in tensors) < 2:
        raise RuntimeError(
            "Expected query, key, and value to all be  at least 2 dimensional, but got query.dim: "
            f"{query.dim()}, key.dim: {key.dim()} and value.dim: {value.dim()} instead."
        )
    if enable_gqa and min(t.dim() for t in tensors) > 2 and key.size(-3) != value.size(-3):
        heads = query.size(-3)
        if 0 not in (key.size(-3), value.size(-3)):
            key, value = (t.repeat_interleave(heads // t.size(-3), -3) for t in (key, value))
        tensors = query, key, value
    own = 3 if enable_gqa else 2  # dimensions that each tensor keeps
    batches = [tensor.shape[:-own] for tensor in tensors]
    if not batches[0] == batches[1] == batches[2]:
        batch = torch.broadcast_shapes(*batches)
        tensors = [tensor.expand(*batch, *tensor.shape[-own:]) for tensor in tensors]
    return [tensor.unsqueeze(0) if tensor.dim() == 2 else tensor for tensor in tensors]


def _prepared(
    tensors: Sequence[Tensor], attn_mask: Tensor | None, enable_gqa: bool
) -> tuple[list[Tensor], Tensor | None]:
    """What the operator is given: aligned, and of the dtype that autocast wants."""
    device = tensors[0].device.type
    tensors = _aligned(tensors, enable_gqa)
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        cast = functools.partial(_autocast, dtype=torch.get_autocast_dtype(device))
        return [*map(cast, tensors)], None if attn_mask is None else cast(attn_mask)
    return tensors, attn_mask


def _autocast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    eligible = tensor.is_floating_point() and tensor.dtype != torch.float64
    return tensor.to(dtype) if eligible else tensor
