"""Whose attention a model computes: ours, or torch's fused kernels with masks of their own."""

from typing import Any, Literal

from torch import Tensor

Attention = Literal["auto"] | bool


def check_attention(caller: str, attention: Any) -> None:
    """ValueError unless it is True, False or "auto"."""
    if attention != "auto" and not isinstance(attention, bool):
        raise ValueError(
            f'{caller}: attention must be True, False or "auto", but got {attention!r}'
        )


def attention_is_ours(attention: Attention, query: Tensor) -> bool:
    """Whether attention of this query is ours.

    "auto" is yes on the CPU, no elsewhere, and no for nested tensors, which ours does not take.
    """
    return query.device.type == "cpu" and not query.is_nested if attention == "auto" else attention
