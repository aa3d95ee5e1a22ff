"""A whole model, from torch's dropout to this package's."""

from __future__ import annotations

from typing import TypeVar

from torch import Generator, nn

from dropout_ext.integration.torch_private import TorchDropout
from dropout_ext.models.counterparts import OURS, THEIRS, is_ours
from dropout_ext.models.report import ConversionReport

Model = TypeVar("Model", bound=nn.Module)


def convert_dropout(
    model: Model,
    *,
    generator: Generator | None = None,
    attention: bool = True,
    report: ConversionReport | None = None,
) -> Model:
    """Turns every dropout of torch.nn in a model into this package's, in place.

    Each module object stays and changes its class. So it keeps ``p``, ``inplace``, its training
    flag, hooks, name and references, and a model that is itself a dropout is converted too.
    Modules of exactly torch's classes are converted, and so is
    :class:`torch.nn.MultiheadAttention`, which drops attention weights by a function: all dropouts
    of a ``torch.nn.Transformer`` are replaced.

    A call of ``torch.nn.functional.dropout`` in a forward is not a module, so it stays torch's;
    :class:`redirect_torch_dropout` redirects it.

    Args:
        model: any module.
        generator: takes the place of the default generator in every dropout that is converted, now
            or before.
        attention: also convert nn.MultiheadAttention. In training with dropout it then holds its
            weights only where the caller wants them; if False, it keeps torch's fused CUDA kernels
            and their masks.
        report: receives what was changed, and what was not and why. Without it, the latter is a
            warning.

    Returns:
        ``model``.

    Warns:
        UserWarning: without ``report``, if there is a dropout that could not be converted: that of
            a subclass, or inside the kernel of an nn.RNN, nn.LSTM or nn.GRU.
    """
    found = ConversionReport() if report is None else report
    for name, module in model.named_modules():
        before = type(module)
        if before in OURS and _wanted(module, attention):
            module.__class__ = OURS[before]
            if generator is not None:
                module.generator = generator
            found.changed[name] = before, type(module)
        elif generator is not None and before in THEIRS:
            module.generator = generator
        elif reason := _obstacle(module, attention):
            found.unchanged[name] = reason
    if report is None:
        found.warn_of_unchanged()
    return model


def _wanted(module: nn.Module, attention: bool) -> bool:
    if isinstance(module, nn.MultiheadAttention):
        return attention and module.dropout > 0
    return True


def _obstacle(module: nn.Module, attention: bool) -> str | None:
    if is_ours(module):
        return None
    cls = type(module)
    if isinstance(module, nn.MultiheadAttention) and module.dropout > 0:
        if cls is nn.MultiheadAttention and not attention:
            return f"attention=False (dropout={module.dropout})"
        return f"{cls.__qualname__} is a subclass of torch.nn.MultiheadAttention"
    if isinstance(module, nn.RNNBase) and module.dropout > 0:
        return f"{cls.__qualname__} drops inside its kernel (dropout={module.dropout})"
    if isinstance(module, TorchDropout) and cls not in OURS:
        return f"{cls.__qualname__} is a subclass of torch's dropout with a forward of its own"
    return None
