"""A whole model, from this package's dropout back to torch's."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from dropout_ext import modules
from dropout_ext.functional.checks import UPSCALE
from dropout_ext.models.counterparts import THEIRS
from dropout_ext.models.report import ConversionReport

Model = TypeVar("Model", bound=nn.Module)


def revert_dropout(model: Model, *, report: ConversionReport | None = None) -> Model:
    """Turns this package's dropouts in a model into those of torch.nn, in place.

    Generators are forgotten, as torch's dropouts have none.

    Args:
        model: any module.
        report: receives what was changed, and what was not and why. Without it, the latter is a
            warning.

    Returns:
        ``model``.

    Warns:
        UserWarning: without ``report``, if there is a dropout that torch.nn does not have:
            DropPath, StochasticDepth, DropConnect, a mode or broadcast_dims.
    """
    found = ConversionReport() if report is None else report
    for name, module in model.named_modules():
        before = type(module)
        if before in THEIRS and not (reason := _without_counterpart(module)):
            vars(module).pop("generator", None)
            module.__class__ = THEIRS[before]
            found.changed[name] = before, type(module)
        elif reason := _without_counterpart(module):
            found.unchanged[name] = reason
    if report is None:
        found.warn_of_unchanged()
    return model


def _without_counterpart(module: nn.Module) -> str | None:
    if not isinstance(module, modules.DropoutModule):
        return None
    cls = type(module)
    if cls not in THEIRS:
        return f"torch.nn has no {cls.__qualname__}"
    if isinstance(module, modules.Dropout) and module.mode != UPSCALE:
        return f"torch.nn.Dropout has no mode={module.mode!r}"
    if isinstance(module, modules.Dropout) and module.broadcast_dims != ():
        return f"torch.nn.Dropout has no broadcast_dims={module.broadcast_dims}"
    return None
