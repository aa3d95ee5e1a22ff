"""Calls of torch's functional dropout, served by this package."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode

from dropout_ext import functional as F
from dropout_ext._checks import check_probability
from dropout_ext.functional._apply import INVERTED, unchanged
from dropout_ext.functional._channels import apply_to_channels

_theirs = torch.nn.functional


def _inplace(function: Callable[..., Any]) -> Callable[..., Any]:
    return functools.partial(function, inplace=True)


def _feature_dropout(
    input: Tensor,
    p: float,
    training: bool,
    inplace: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    check_probability(p)
    if not training or p == 0.0:
        return unchanged(input)
    return apply_to_channels(input, p, inplace, generator, None, INVERTED)


# torch.dropout and its kin have the arguments (input, p, train).
_OURS: dict[Any, Callable[..., Any]] = {
    _theirs.dropout: F.dropout,
    _theirs.dropout1d: F.dropout1d,
    _theirs.dropout2d: F.dropout2d,
    _theirs.dropout3d: F.dropout3d,
    _theirs.alpha_dropout: F.alpha_dropout,
    _theirs.feature_alpha_dropout: F.feature_alpha_dropout,
    _theirs.scaled_dot_product_attention: F.scaled_dot_product_attention,
    torch.dropout: F.dropout,
    torch.dropout_: _inplace(F.dropout),
    torch.alpha_dropout: F.alpha_dropout,
    torch.alpha_dropout_: _inplace(F.alpha_dropout),
    torch.feature_dropout: _feature_dropout,
    torch.feature_dropout_: _inplace(_feature_dropout),
    torch.feature_alpha_dropout: F.feature_alpha_dropout,
    torch.feature_alpha_dropout_: _inplace(F.feature_alpha_dropout),
}


def _attention_with(dropout: Any, scaled_dot_product_attention: Any) -> Callable[..., Any]:
    """torch's multi_head_attention_forward, made to call these functions.

    A mode sees the call of a Python function, but not what that calls in turn.
    """
    theirs: Any = _theirs.multi_head_attention_forward
    names = dict(theirs.__globals__)
    names["dropout"] = dropout
    names["scaled_dot_product_attention"] = scaled_dot_product_attention
    del names["__name__"]  # Dynamo would look the others up in the module of that name
    copy = types.FunctionType(
        theirs.__code__, names, theirs.__name__, theirs.__defaults__, theirs.__closure__
    )
    copy.__kwdefaults__ = theirs.__kwdefaults__
    names[theirs.__name__] = copy  # what it hands to subclasses and modes to be called again
    return copy


_default_attention = _attention_with(F.dropout, F.scaled_dot_product_attention)


def _attention(generator: Generator | None) -> Callable[..., Any]:
    if generator is None:
        return _default_attention
    return _attention_with(
        functools.partial(F.dropout, generator=generator),
        functools.partial(F.scaled_dot_product_attention, generator=generator),
    )


class redirect_torch_dropout(TorchFunctionMode):
    """While it is active, torch's functional dropout is this package's.

    For models that call ``torch.nn.functional.dropout``, ``dropout1d``, ``dropout2d``,
    ``dropout3d``, ``alpha_dropout``, ``feature_alpha_dropout`` or
    ``scaled_dot_product_attention(..., dropout_p=...)`` in their forward, where
    :func:`convert_dropout` finds no module to replace. Enclose the forward pass; the backward pass
    needs no mode. Modules of torch.nn are served as well, as they call the same functions. The
    dropout between the layers of ``nn.LSTM`` and ``nn.GRU`` happens inside their kernels and stays
    torch's, as does ``torch.native_dropout``, which returns its mask.

    Args:
        generator: takes the place of the default generator of each input's device.
    """

    def __init__(self, generator: Generator | None = None) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is _theirs.multi_head_attention_forward:
            return _attention(self.generator)(*args, **kwargs)
        ours = _OURS.get(func)
        if ours is None:
            return func(*args, **kwargs)
        if "train" in kwargs:
            kwargs["training"] = kwargs.pop("train")
        return ours(*args, generator=self.generator, **kwargs)
