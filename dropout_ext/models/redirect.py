"""Calls of torch's functional dropout, served by this package."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import ContextDecorator
from typing import Any, TypeVar

import torch
from torch import Generator
from torch.utils.checkpoint import checkpoint

from dropout_ext import functional as F
from dropout_ext.functional.attention_choice import Attention, attention_is_ours, check_attention
from dropout_ext.functional.channels import feature_dropout
from dropout_ext.integration.checkpoint import ReenteredMode

Function = TypeVar("Function", bound=Callable[..., Any])
_theirs = torch.nn.functional


def _inplace(function: Callable[..., Any]) -> Callable[..., Any]:
    return functools.partial(function, inplace=True)


_ATTENTION: dict[Any, Callable[..., Any]] = {
    _theirs.multi_head_attention_forward: F.multi_head_attention_forward,
    _theirs.scaled_dot_product_attention: F.scaled_dot_product_attention,
}
ATTENTION = [function.__name__ for function in _ATTENTION]
# torch.dropout and its kin have the arguments (input, p, train).
REDIRECTED: dict[Any, Callable[..., Any]] = {
    _theirs.dropout: F.dropout,
    _theirs.dropout1d: F.dropout1d,
    _theirs.dropout2d: F.dropout2d,
    _theirs.dropout3d: F.dropout3d,
    _theirs.alpha_dropout: F.alpha_dropout,
    _theirs.feature_alpha_dropout: F.feature_alpha_dropout,
    torch.dropout: F.dropout,
    torch.dropout_: _inplace(F.dropout),
    torch.alpha_dropout: F.alpha_dropout,
    torch.alpha_dropout_: _inplace(F.alpha_dropout),
    torch.feature_dropout: feature_dropout,
    torch.feature_dropout_: _inplace(feature_dropout),
    torch.feature_alpha_dropout: F.feature_alpha_dropout,
    torch.feature_alpha_dropout_: _inplace(F.feature_alpha_dropout),
    **_ATTENTION,
}
"""Each dropout of torch that is a function, to ours."""


class redirect_torch_dropout(ReenteredMode, ContextDecorator):
    """While it is active, torch's functional dropout is this package's.

    For code that calls ``torch.nn.functional.dropout``, ``dropout1d``, ``dropout2d``,
    ``dropout3d``, ``alpha_dropout``, ``feature_alpha_dropout``, ``multi_head_attention_forward``
    or ``scaled_dot_product_attention(..., dropout_p=...)``. A context manager and a decorator; for
    a whole model, :func:`convert_dropout` does the same for good. Modules of torch.nn are served
    as well, as they call these functions.

    Enclose the forward pass; the backward pass needs no context, also where
    ``torch.utils.checkpoint`` runs the forward pass again. It is a mode of the thread that entered
    it: other threads, as those of nn.DataParallel, keep torch's dropout.

    Served are torch's functions alone. Functions and modules of this package draw from the
    generator that they name, whatever ``generator`` is here. The dropout between the layers of
    ``nn.LSTM`` and ``nn.GRU`` happens inside their kernels and stays torch's, as does
    ``torch.native_dropout``, which returns its mask. While any function mode is active, torch does
    not take the fused inference of nn.TransformerEncoder and nn.MultiheadAttention.

    Args:
        generator: takes the place of the default generator of each input's device.
        attention: whether attention with dropout is ours. ``"auto"``: on the CPU; on other
            devices, and for nested tensors, torch's own kernels keep their masks. See
            docs/attention.md.

    Raises:
        ValueError: another value of ``attention``.
    """

    def __init__(
        self, *, generator: Generator | None = None, attention: Attention = "auto"
    ) -> None:
        check_attention("redirect_torch_dropout", attention)
        super().__init__()
        self.generator = generator
        self.attention = attention

    def __call__(self, function: Function) -> Function:
        """Decorates a function, which must not be a generator or a coroutine: its body runs later.

        Raises:
            TypeError: it is one.
        """
        if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
            raise TypeError(
                "redirect_torch_dropout: cannot decorate a generator or coroutine function, but "
                f"got {function!r}; use the context manager inside of it"
            )
        return super().__call__(function)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is checkpoint:
            return self._checkpoint(*args, **kwargs)
        ours = REDIRECTED.get(func)
        if ours is None or (func in _ATTENTION and not self._serves(*args, **kwargs)):
            return func(*args, **kwargs)
        if "train" in kwargs:
            kwargs["training"] = kwargs.pop("train")
        return ours(*args, generator=self.generator, **kwargs)

    def _checkpoint(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In code that Dynamo traces, which would leave this mode for what is checkpointed."""

        def redirected(*inner: Any, **options: Any) -> Any:
            with self:
                return function(*inner, **options)

        return checkpoint(redirected, *args, **kwargs)

    def _serves(self, query: torch.Tensor, *_: Any, **__: Any) -> bool:
        return attention_is_ours(self.attention, query)
