"""A whole model, from this package's dropout back to torch's."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from dropout_ext import modules
from dropout_ext.functional.checks import UPSCALE
from dropout_ext.models.counterparts import CONVERTED, become, counterparts, is_ours
from dropout_ext.models.redirected import Redirected, without_redirection
from dropout_ext.models.report import ConversionReport

Model = TypeVar("Model", bound=nn.Module)
_OF_A_CONVERSION = "generator", "attention", CONVERTED


def revert_dropout(model: Model, *, report: ConversionReport | None = None) -> Model:
    """Undoes :func:`convert_dropout`, in place.

    This package's modules become those of torch.nn, and of timm and torchvision where these are
    imported; calls of torch's dropout are redirected no more. Generators are forgotten, as theirs
    have none.

    Args:
        model: any module.
        report: receives what was changed, and what was not and why. Without it, the latter is a
            warning.

    Returns:
        ``model``.

    Warns:
        UserWarning: without ``report``, if there is a dropout that they do not have: DropConnect,
            a mode, broadcast_dims, a subclass.
    """
    found = ConversionReport() if report is None else report
    theirs = {ours: theirs for theirs, ours in counterparts().items()}
    for name, module in model.named_modules():
        before = type(module)
        if isinstance(module, Redirected):
            if (target := without_redirection(before)) is None:
                found.unchanged[name] = (
                    f"{before.__qualname__} was made from a converted class, as by parametrize or "
                    "FSDP: revert before that"
                )
                continue
        elif reason := _without_counterpart(module, theirs):
            found.unchanged[name] = reason
            continue
        elif (target := theirs.get(before)) is None:
            continue
        for attribute in ("dropout_ext",) if isinstance(module, Redirected) else _OF_A_CONVERSION:
            vars(module).pop(attribute, None)
        become(module, target)
        found.changed[name] = before, target
    if report is None:
        found.warn_of_the_rest()
    return model


def _without_counterpart(
    module: nn.Module, theirs: dict[type[nn.Module], type[nn.Module]]
) -> str | None:
    if not is_ours(module):
        return None
    cls = type(module)
    if cls not in theirs:
        return f"neither torch.nn nor what is imported has {cls.__qualname__}"
    if isinstance(module, modules.Dropout) and module.mode != UPSCALE:
        return f"torch.nn.Dropout has no mode={module.mode!r}"
    if isinstance(module, modules.Dropout) and module.broadcast_dims != ():
        return f"torch.nn.Dropout has no broadcast_dims={module.broadcast_dims}"
    return None
