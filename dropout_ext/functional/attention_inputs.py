"""What attention with several heads makes of its arguments: checks, masks, projections.

The errors are those of :func:`torch.nn.functional.multi_head_attention_forward`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, unflatten
from torch.nn.functional import linear, pad


def check_dimensions(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    padding: Tensor | None,
    mask: Tensor | None,
    heads: int,
) -> None:
    """AssertionError unless all tensors are batched, or all are not."""
    dims = query.dim()
    if dims not in (2, 3):
        raise AssertionError(
            f"query should be unbatched 2D or batched 3D tensor but received {dims}-D query tensor"
        )
    expected = f"For {'batched (3-D)' if dims == 3 else 'unbatched (2-D)'} `query`, expected"
    if not key.dim() == value.dim() == dims:
        raise AssertionError(
            f"{expected} `key` and `value` to be {dims}-D but found {key.dim()}-D and "
            f"{value.dim()}-D tensors respectively"
        )
    if padding is not None and padding.dim() != dims - 1:
        raise AssertionError(
            f"{expected} `key_padding_mask` to be `None` or {dims - 1}-D but found "
            f"{padding.dim()}-D tensor instead"
        )
    if mask is not None and mask.dim() not in (2, 3):
        raise AssertionError(
            f"{expected} `attn_mask` to be `None`, 2-D or 3-D but found {mask.dim()}-D tensor "
            "instead"
        )
    shape = (heads, query.size(0), key.size(0))
    if dims == 2 and mask is not None and mask.dim() == 3 and mask.shape != shape:
        raise AssertionError(f"Expected `attn_mask` shape to be {shape} but got {mask.shape}")


def head_size(query: Tensor, expected: int, heads: int) -> int:
    """AssertionError unless the embedding has the expected size and the heads divide it."""
    size = query.size(-1)
    if size != expected:
        raise AssertionError(f"was expecting embedding dimension of {expected}, but got {size}")
    if size % heads != 0:
        raise AssertionError(f"embed_dim {size} not divisible by num_heads {heads}")
    return size // heads


def additive(mask: Tensor | None, name: str, dtype: torch.dtype) -> Tensor | None:
    """The mask to be added to the scores; True of a boolean one forbids."""
    if mask is None or mask.is_floating_point():
        return mask
    if mask.dtype != torch.bool:
        raise AssertionError(f"only bool and floating types of {name} are supported")
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))


def warn_of_two_types(padding: Tensor | None, mask: Tensor | None) -> None:
    if padding is not None and mask is not None and padding.dtype != mask.dtype:
        warnings.warn(
            "Support for mismatched key_padding_mask and attn_mask is deprecated. "
            "Use same type for both instead.",
            stacklevel=4,
        )


def check_mask(mask: Tensor | None, samples: int, queries: int, keys: int) -> None:
    """RuntimeError unless it is (queries, keys) or (samples, queries, keys)."""
    if mask is None:
        return
    shape = (queries, keys) if mask.dim() == 2 else (samples, queries, keys)
    if mask.shape != shape:
        raise RuntimeError(
            f"The shape of the {mask.dim()}D attn_mask is {mask.shape}, but should be {shape}."
        )


def merge_masks(
    mask: Tensor | None, padding: Tensor | None, heads: int, batch: int, keys: int, added: int
) -> Tensor | None:
    """One mask of shape (batch or 1, heads or 1, queries or 1, keys), None if there is none.

    Args:
        mask, padding: additive.
        heads, batch, keys: sizes; ``keys`` counts those that were added.
        added: number of keys at the end that no mask knows and all may attend to.
    """
    if mask is not None:
        mask = mask[None, None] if mask.dim() == 2 else unflatten(mask, 0, (batch, heads))
        mask = pad(mask, (0, added))
    if padding is None:
        return mask
    padding = pad(padding if padding.dim() == 2 else padding.unsqueeze(0), (0, added))
    for d, size in enumerate((batch, keys)):
        if padding.shape[d] != size:
            raise AssertionError(
                f"Expected key_padded_mask.shape[{d}] to be {size}, but got {padding.shape[d]}"
            )
    padding = padding[:, None, None]
    return padding if mask is None else mask + padding


def project(inputs: Sequence[Tensor], weight: Tensor | None, bias: Tensor | None) -> list[Tensor]:
    """Projections of query, key and value by one packed weight of shape (3 E, E).

    Neighbours that are one tensor, as all three in self-attention, share a matrix product.
    """
    query, key, value = inputs
    if key.shape != value.shape:
        raise AssertionError(f"key shape {key.shape} does not match value shape {value.shape}")
    if weight is None:
        raise AssertionError("use_separate_proj_weight is False but in_proj_weight is None")
    if key is not value:
        groups = [(query, 1), (key, 1), (value, 1)]
    elif query is key:
        groups = [(query, 3)]
    else:
        groups = [(query, 1), (key, 2)]
    size = query.size(-1)
    sizes = [size * count for _, count in groups]
    biases = [None] * len(groups) if bias is None else bias.split(sizes)
    projected: list[Tensor] = []
    for (tensor, count), w, b in zip(groups, weight.split(sizes), biases, strict=True):
        together = unflatten(linear(tensor, w, b), -1, (count, size)).movedim(-2, 0)
        projected += together.contiguous().unbind(0)
    return projected


def project_separately(
    inputs: Sequence[Tensor], weights: Sequence[Tensor | None], bias: Tensor | None
) -> list[Tensor]:
    """Projections of query, key and value, each by a weight of its own."""
    query, key, value = inputs
    if key.shape[:-1] != value.shape[:-1]:
        raise AssertionError(
            f"key's sequence and batch dims {key.shape[:-1]} do not match value's "
            f"{value.shape[:-1]}"
        )
    size = query.size(-1)
    biases = [None] * 3 if bias is None else bias.chunk(3)
    projected = []
    for name, tensor, w, b in zip(("query", "key", "value"), inputs, weights, biases, strict=True):
        if w is None:
            raise AssertionError(
                f"use_separate_proj_weight is True but {name[0]}_proj_weight is None"
            )
        for what, found, shape in (
            ("weights", w, (size, tensor.size(-1))),
            ("bias", b, (size,)),
        ):
            if found is not None and found.shape != shape:
                raise AssertionError(
                    f"expecting {name} {what} shape of {shape}, but got {found.shape}"
                )
        projected.append(linear(tensor, w, b))
    return projected
