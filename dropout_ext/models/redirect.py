"""Calls of torch's functional dropout, served by this package."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator
from torch.overrides import TorchFunctionMode

from dropout_ext import functional as F
from dropout_ext.functional.channels import feature_dropout

_theirs = torch.nn.functional


def _inplace(function: Callable[..., Any]) -> Callable[..., Any]:
    return functools.partial(function, inplace=True)


# torch.dropout and its kin have the arguments (input, p, train).
_OURS: dict[Any, Callable[..., Any]] = {
    _theirs.dropout: F.dropout,
    _theirs.dropout1d: F.dropout1d,
    _theirs.dropout2d: F.dropout2d,
    _theirs.dropout3d: F.dropout3d,
    _theirs.alpha_dropout: F.alpha_dropout,
    _theirs.feature_alpha_dropout: F.feature_alpha_dropout,
    _theirs.multi_head_attention_forward: F.multi_head_attention_forward,
    _theirs.scaled_dot_product_attention: F.scaled_dot_product_attention,
    torch.dropout: F.dropout,
    torch.dropout_: _inplace(F.dropout),
    torch.alpha_dropout: F.alpha_dropout,
    torch.alpha_dropout_: _inplace(F.alpha_dropout),
    torch.feature_dropout: feature_dropout,
    torch.feature_dropout_: _inplace(feature_dropout),
    torch.feature_alpha_dropout: F.feature_alpha_dropout,
    torch.feature_alpha_dropout_: _inplace(F.feature_alpha_dropout),
}


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
        ours = _OURS.get(func)
        if ours is None:
            return func(*args, **kwargs)
        if "train" in kwargs:
            kwargs["training"] = kwargs.pop("train")
        return ours(*args, generator=self.generator, **kwargs)
