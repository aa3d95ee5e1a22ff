"""Attention with several heads whose dropout is ours."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, unflatten
from torch.nn.functional import linear

from dropout_ext.functional.attention_inputs import (
    additive,
    check_dimensions,
    check_mask,
    head_size,
    merge_masks,
    project,
    project_separately,
    warn_of_two_types,
)
from dropout_ext.functional.elementwise import dropout
from dropout_ext.functional.override import overridable_by_any
from dropout_ext.functional.scaled_dot_product import scaled_dot_product_attention


@overridable_by_any
def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
    *,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """:func:`torch.nn.functional.multi_head_attention_forward`, with this package's dropout.

    Vaswani et al., "Attention is all you need", 2017. Dropout zeroes attention weights; its mask
    is that of the weights tensor, (N, num_heads, L, S). L counts queries, S keys, N samples; E is
    the size of the embedding, D = E / num_heads that of a head. Without N, inputs are unbatched.

    Args:
        query: tensor of shape (L, N, E) or (L, E).
        key, value: tensors of shape (S, N, E) or (S, E); of other last sizes with separate weights.
        embed_dim_to_check: E.
        num_heads: a divisor of E.
        in_proj_weight, in_proj_bias: for query, key and value, of shapes (3 E, E) and (3 E).
        bias_k, bias_v: of shape (1, 1, E), one more key and value for all; both or none.
        add_zero_attn: append a key and a value of zeros.
        dropout_p: probability of a weight to be dropped, in [0, 1].
        out_proj_weight, out_proj_bias: of shapes (E', E) and (E').
        training: if False, nothing is dropped.
        key_padding_mask: of shape (N, S) or (S); True = ignored, or floating point, to be added.
        need_weights: return the weights too, else use :func:`scaled_dot_product_attention`.
        attn_mask: of shape (L, S) or (N * num_heads, L, S); True = must not attend, or floating
            point, to be added to the scores.
        use_separate_proj_weight: project by q_proj_weight, k_proj_weight and v_proj_weight.
        q_proj_weight, k_proj_weight, v_proj_weight: of shape (E, last size of the input).
        static_k, static_v: of shape (N * num_heads, S, D), in place of projected keys and values.
        average_attn_weights: of the weights that are returned, over the heads.
        is_causal: a promise that attn_mask, which must be given, is the causal one.
        generator, rng_state: as in :func:`dropout`.

    Returns:
        The output, (L, N, E') or (L, E'), and the weights after dropout, (N, L, S) or (L, S),
        with num_heads before L unless averaged; None unless needed.

    Raises:
        AssertionError: as torch's, for shapes that do not fit each other.
        RuntimeError: attn_mask of another shape; is_causal without attn_mask.
        ValueError, TypeError, RuntimeError: as :func:`dropout`.
    """
    check_dimensions(query, key, value, key_padding_mask, attn_mask, num_heads)
    head = head_size(query, embed_dim_to_check, num_heads)
    batch = query.size(1) if query.dim() == 3 else 1
    heads, samples = (batch, num_heads), batch * num_heads
    warn_of_two_types(key_padding_mask, attn_mask)
    padding = additive(key_padding_mask, "key_padding_mask", query.dtype)
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "Need attn_mask if specifying the is_causal hint. "
            "You may use the Transformer module method "
            "`generate_square_subsequent_mask` to create this mask."
        )
    hint = is_causal and padding is None and not need_weights
    mask = None if hint else additive(attn_mask, "attn_mask", query.dtype)
    check_mask(mask, samples, query.size(0), key.size(0))
    if (bias_k is None) != (bias_v is None):
        given, missing = ("bias_k", "bias_v") if bias_v is None else ("bias_v", "bias_k")
        raise AssertionError(f"{given} is set but {missing} is None")
    inputs = (query, key, value)
    if use_separate_proj_weight:
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
        q, k, v = project_separately(inputs, weights, in_proj_bias)
    else:
        q, k, v = project(inputs, in_proj_weight, in_proj_bias)
    q = _split(q, samples, head)
    k = _keys("key", k, bias_k, static_k, add_zero_attn, samples, head)
    v = _keys("value", v, bias_v, static_v, add_zero_attn, samples, head)
    added = int(bias_k is not None) + int(add_zero_attn)
    mask = merge_masks(mask, padding, num_heads, batch, k.size(1), added)
    p = dropout_p if training else 0.0
    if need_weights:
        if mask is not None:
            mask = mask.expand(*heads, -1, -1).flatten(0, 1)
        output, attention = _with_weights(q, k, v, mask, p, generator, rng_state)
        attention = unflatten(attention, 0, heads)
        attention = attention.mean(1) if average_attn_weights else attention
    else:
        q, k, v = (unflatten(tensor, 0, heads) for tensor in (q, k, v))
        output = scaled_dot_product_attention(
            q, k, v, mask, p, hint, generator=generator, rng_state=rng_state
        )
        output, attention = output.flatten(0, 1), None
    output = output.transpose(0, 1).reshape(-1, embed_dim_to_check)
    output = unflatten(linear(output, out_proj_weight, out_proj_bias), 0, (query.size(0), batch))
    if query.dim() == 3:
        return output, attention
    return output.squeeze(1), None if attention is None else attention.squeeze(0)


def _split(tensor: Tensor, samples: int, head: int) -> Tensor:
    """(length, [N,] E) -> (N * num_heads, length, head)."""
    return tensor.reshape(tensor.size(0), samples, head).transpose(0, 1)


def _keys(
    name: str,
    projected: Tensor,
    bias: Tensor | None,
    static: Tensor | None,
    add_zero: bool,
    samples: int,
    head: int,
) -> Tensor:
    """All keys, or values, of shape (samples, S, head)."""
    if static is None:
        keys = _split(projected, samples, head)
    elif bias is not None:
        raise AssertionError(f"bias cannot be added to static {name}.")
    else:
        for d, size in ((0, samples), (2, head)):
            if static.size(d) != size:
                raise AssertionError(
                    f"expecting static_{name[0]}.size({d}) of {size}, but got {static.size(d)}"
                )
        keys = static
    if bias is not None:
        heads = bias.reshape(-1, 1, head)
        keys = torch.cat([keys, heads.repeat(samples // heads.size(0), 1, 1)], 1)
    if add_zero:
        keys = torch.cat([keys, keys.new_zeros(samples, 1, head)], 1)
    return keys


def _with_weights(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    p: float,
    generator: Generator | None,
    rng_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Output and weights, (samples, L, head) and (samples, L, S)."""
    q, k = q * math.sqrt(1.0 / q.size(-1)), k.transpose(-2, -1)
    scores = torch.bmm(q, k) if mask is None else torch.baddbmm(mask, q, k)
    weights = dropout(scores.softmax(-1), p, generator=generator, rng_state=rng_state)
    return torch.bmm(weights, v), weights
