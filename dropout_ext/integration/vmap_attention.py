"""Batching rules of attention: the samples are a batch dimension more. See vmap.py."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dropout_ext.integration.strides import row_major
from dropout_ext.integration.vmap import leading

_ops = torch.ops.dropout_ext


def _mask(mask: Tensor | None, dim: int | None, size: int, dims: int) -> Tensor | None:
    """The samples first, then as many dimensions as those of a sample of the weights."""
    if mask is None:
        return None
    mask = leading(mask, dim, size)
    missing = dims - (mask.dim() - 1)
    return mask.reshape(size, *[1] * missing, *mask.shape[1:])


def _state(
    info: Any, state: Tensor, dim: int | None, strides: Sequence[int] | None, weights: list[int]
) -> tuple[Tensor, list[int] | None]:
    """The state, and the mask strides: one state for all samples is one mask for all."""
    if dim is None and state.dim() == 1:
        return state, [0, *(row_major(weights) if strides is None else strides)]
    states = leading(state, dim, info.batch_size)
    return states, None if strides is None else [0, *strides]


def _attention(
    info: Any,
    in_dims: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    p: float,
    rng_state: Tensor,
    *,
    mask_strides: Sequence[int] | None = None,
    **options: Any,
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    size = info.batch_size
    query, key, value = (
        leading(tensor, dim, size)
        for tensor, dim in zip((query, key, value), in_dims, strict=False)
    )
    dims = query.dim() - 1
    mask = _mask(attn_mask, in_dims[3], size, dims)
    weights = [*query.shape[1:-1], key.shape[-2]]
    state, strides = _state(info, rng_state, in_dims[5], mask_strides, weights)
    results = _ops.attention(query, key, value, mask, p, state, mask_strides=strides, **options)
    return results, (0, 0)


def _attention_backward(
    info: Any,
    in_dims: Any,
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    output: Tensor,
    softmax: Tensor,
    p: float,
    rng_state: Tensor,
    *,
    mask_strides: Sequence[int] | None = None,
    attn_mask_gradient: bool = False,
    **options: Any,
) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    size = info.batch_size
    grad_output, query, key, value, output, softmax = (
        leading(tensor, in_dims[place], size)
        for place, tensor in {
            0: grad_output,
            1: query,
            2: key,
            3: value,
            5: output,
            6: softmax,
        }.items()
    )
    mask = _mask(attn_mask, in_dims[4], size, query.dim() - 1)
    weights = [*query.shape[1:-1], key.shape[-2]]
    state, strides = _state(info, rng_state, in_dims[8], mask_strides, weights)
    *gradients, of_mask = _ops.attention_backward(
        grad_output,
        query,
        key,
        value,
        mask,
        output,
        softmax,
        p,
        state,
        mask_strides=strides,
        attn_mask_gradient=attn_mask_gradient,
        **options,
    )
    if not attn_mask_gradient or attn_mask is None:
        return (*gradients, of_mask), (0, 0, 0, None)
    dims = attn_mask.dim() - (in_dims[4] is not None)
    of_mask = of_mask.reshape(size, *of_mask.shape[of_mask.dim() - dims :])
    return (*gradients, of_mask), (0, 0, 0, 0)


def register(library: torch.library.Library) -> None:
    """Registers the rules for as long as the library lives."""
    torch.library.register_vmap("dropout_ext::attention", _attention, lib=library)
    torch.library.register_vmap("dropout_ext::attention_backward", _attention_backward, lib=library)
